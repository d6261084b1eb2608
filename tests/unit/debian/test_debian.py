"""Fetching Debian's packages with a private apt root: what is asked of apt, and how failures are told."""

import concurrent.futures
import lzma
import os
import re
import time
from pathlib import Path

import pytest

from zseal.debian import archive as debian
from zseal.errors import InputError, MissingDependencyError

APT_GET = """#!/bin/bash
echo "apt-get $*" >> "$LOG"
for word; do case "$word" in
  -oAPT::Status-Fd=*) fd=${word#-oAPT::Status-Fd=} ;;
esac; done
case "$*" in
  *indextargets*) printf 'M1 Debian Debian-Security\\nM2 Debian Debian\\n' ;;
  *" update "*) [ -z "$FAIL" ] || { echo "E: The repository is not signed" >&2; exit 100; } ;;
  *" download linux-image-"$ABSENT-s390x*) touch half.deb
     echo "E: Failed to fetch http://m/linux-image.deb  404  Not Found [IP: 192.0.2.1 80]" >&2; exit 100 ;;
  *" download "*) eval "echo dlstatus:1:50.0:half >&$fd"
     case "$*" in *busybox*) touch busybox-static_1_s390x.deb ;; *) touch linux-image-6.0-s390x_1_s390x.deb ;; esac ;;
esac
"""
APT_CACHE = """#!/bin/sh
echo "apt-cache $*" >> "$LOG"
case "$*" in
  *pkgnames*) printf 'linux-image-%s-s390x\n' 5.9 6.0 5.10; echo linux-image-s390x; echo linux-image-6.0-s390x-dbg ;;
  *linux-image-s390x) echo "  Depends: linux-image-6.0-s390x" ;;
  *) echo "  Depends: kmod" ;;
esac
"""
DPKG_DEB = """#!/bin/sh
case "$2" in
  *busybox*) mkdir -p "$3/usr/bin"; echo box > "$3/usr/bin/busybox" ;;
  *) mkdir -p "$3/boot" "$3/usr/lib/modules/6.0-s390x"; echo kernel > "$3/boot/vmlinuz-6.0-s390x" ;;
esac
"""


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put stand-ins for apt and dpkg first on PATH; returns the log of their calls."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("apt-get", APT_GET), ("apt-cache", APT_CACHE), ("dpkg-deb", DPKG_DEB)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(debian, "KEYRING", keyring)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def test_kernel_is_fetched_once_from_the_own_mirror_with_signatures_checked(fake_apt: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    archive = debian.DebianArchive("trixie", cache=tmp_path, progress=lambda what, share: seen.append((what, share)))
    kernel = archive.kernel()
    assert (kernel.release, kernel.kernel.read_text()) == ("6.0-s390x", "kernel\n")
    sources = (tmp_path / "debian/trixie/apt/sources.list").read_text()
    assert "M2 trixie main" in sources
    assert f"signed-by={debian.KEYRING}" in sources
    assert ("Debian trixie: linux-image-s390x", 0.5) in seen
    calls = fake_apt.read_text()
    assert "download linux-image-6.0-s390x" in calls
    debian.DebianArchive("trixie", cache=tmp_path).kernel()
    assert fake_apt.read_text() == calls, "a second run asks apt for nothing"


def test_two_processes_fetch_once(fake_apt: Path, tmp_path: Path) -> None:
    first, second = (debian.DebianArchive("trixie", cache=tmp_path) for _ in range(2))
    made = []

    def fill(place: Path) -> None:
        made.append(place)
        time.sleep(0.2)
        (place / "content").touch()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        places = [pool.submit(archive.directory, "thing", fill) for archive in (first, second)]
    assert len(made) == 1
    assert all((place.result() / "content").exists() for place in places)


def test_kernel_that_the_mirror_lists_and_has_not_gives_way_to_the_newest_it_has(
    fake_apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABSENT", "6.0")
    debian.DebianArchive("trixie", cache=tmp_path).kernel()
    asked_for = re.findall(r" download (\S+)", fake_apt.read_text())
    assert asked_for == ["linux-image-6.0-s390x", "linux-image-5.10-s390x"]
    assert (tmp_path / "debian/trixie/linux-image-s390x/zseal-packages.json").read_text() == (
        '["linux-image-6.0-s390x_1_s390x.deb"]\n'
    )


def test_absent_package_without_an_older_one_is_told(
    fake_apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABSENT", "*")
    with pytest.raises(debian.DebianError, match=r"404.*`kernel` and `ramdisk`"):
        debian.DebianArchive("trixie", cache=tmp_path).kernel()
    assert not (tmp_path / "debian/trixie/linux-image-s390x").exists()


def test_failed_update_leaves_nothing_and_says_why(
    fake_apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "1")
    archive = debian.DebianArchive("trixie", cache=tmp_path)
    with pytest.raises(debian.DebianError, match=r"not signed.*`kernel` and `ramdisk`"):
        archive.busybox()
    assert not (tmp_path / "debian/trixie/busybox-static").exists()
    assert not list((tmp_path / "debian/trixie").glob(".fetch-*"))


def test_missing_keyring_is_named(fake_apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "absent.gpg")
    with pytest.raises(MissingDependencyError, match="debian-archive-keyring"):
        debian.DebianArchive("trixie", cache=tmp_path).busybox()


def test_missing_apt_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="apt-get is needed"):
        debian.DebianArchive("trixie", cache=tmp_path).busybox()


def test_modules_come_with_their_dependencies_first(tmp_path: Path) -> None:
    modules = tmp_path / "6.0" / "kernel"
    modules.mkdir(parents=True)
    (modules / "net-base.ko").write_bytes(b"x\0depends=\0")
    (modules / "virtio_net.ko.xz").write_bytes(lzma.compress(b"y\0depends=net_base\0"))
    files = debian.KernelFiles("trixie", "6.0", tmp_path / "k", None, tmp_path / "6.0")
    assert files.module("virtio_net") == [
        ("net_base.ko", b"x\0depends=\0"),
        ("virtio_net.ko", b"y\0depends=net_base\0"),
    ]
    with pytest.raises(InputError, match="no module absent"):
        files.module("absent")


def test_cache_directory_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert debian.cache_directory() == tmp_path / "zseal"
