"""Debian's s390x packages, fetched with a private apt root into the user's cache.

The system's own apt is not touched. The mirror is that of this machine's apt configuration, the archive's signatures
are checked with Debian's keyring, and nothing is fetched twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zseal.errors import InputError, MissingDependencyError, ZsealError
from zseal.logs import logger
from zseal.parts import part_directory

_LOG = logger(__name__)

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
OWN_FILES_HINT = "or give files of your own with `kernel` and `ramdisk`"

Progress = Callable[[str, float], None]
"""Called with what is being fetched and the share that is done, 0.0 to 1.0."""

# linux-image-* depends on initramfs tools and the like; these alone have the kernel file and its modules
_KERNEL_PARTS = re.compile(r"linux-(image|binary|base|modules|image-unsigned)-\d[\w.+~-]*s390x$|linux-image-s390x$")
_KERNEL_IMAGE = re.compile(r"linux-image-\d[\w.+~-]*-s390x")
_KERNEL = "linux-image-s390x"
_MAX_KERNEL_PACKAGES = 8


class DebianError(ZsealError):
    """Debian's archive cannot be reached, verified, or lacks the package."""


class AbsentPackageError(DebianError):
    """The mirror lists a package that it does not have, as happens for some time after a new release."""


@dataclass(frozen=True)
class KernelFiles:
    """A Debian kernel: its ``release`` (as uname -r), the raw kernel image, its configuration and its modules."""

    suite: str
    release: str
    kernel: Path
    config: Path | None
    modules: Path

    def module(self, name: str) -> list[tuple[str, bytes]]:
        """Return the module ``name`` and all it depends on, in load order, as (file name, content) pairs.

        Raises InputError if the kernel has no such module.
        """
        loaded: dict[str, bytes] = {}
        self._collect(name, loaded)
        return [(f"{key}.ko", data) for key, data in loaded.items()]

    def _collect(self, name: str, loaded: dict[str, bytes]) -> None:
        if name in loaded:
            return
        found = next(self.modules.rglob(f"{name.replace('_', '[_-]')}.ko*"), None)
        if found is None:
            raise InputError(f"the kernel {self.release} has no module {name}", where=str(self.modules))
        data = found.read_bytes()
        if found.suffix == ".xz":
            data = lzma.decompress(data)
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for dependency in (depends.group(1).decode() if depends else "").split(","):
            if dependency:
                self._collect(dependency, loaded)
        loaded[name] = data


def cache_directory() -> Path:
    """Return zseal's directory in the user's cache (``$XDG_CACHE_HOME``, default ``~/.cache``), creating it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "zseal"
    path.mkdir(parents=True, exist_ok=True)
    return path


class DebianArchive:
    """One suite (``trixie``, ``sid``) of Debian's s390x archive, with its private apt root below ``cache``."""

    def __init__(self, suite: str, *, cache: Path | None = None, progress: Progress | None = None) -> None:
        self.suite = suite
        self._root = (cache or cache_directory()) / "debian" / suite
        self._progress = progress or (lambda _what, _share: None)
        self._updated = False

    def kernel(self) -> KernelFiles:
        """Return the suite's current default kernel, fetched now or before (about 52 MB to fetch, 60 MB on disk).

        If the mirror lists the current kernel but does not have it yet, the newest kernel that it has is used.
        """
        tree = self._tree(_KERNEL, self._kernels)
        image = next(iter(sorted(tree.glob("boot/vmlinuz-*")) or sorted(tree.rglob("vmlinuz*"))), None)
        modules = next(iter(sorted([*tree.glob("usr/lib/modules/*"), *tree.glob("lib/modules/*")])), None)
        if image is None or modules is None:
            raise DebianError(f"the kernel packages of {self.suite} contain no kernel", hint=OWN_FILES_HINT)
        config = next(iter(tree.rglob(f"config-{modules.name}")), None)
        return KernelFiles(self.suite, modules.name, image, config, modules)

    def busybox(self) -> Path:
        """Return a statically linked s390x busybox, fetched now or before (about 1 MB)."""
        tree = self.package("busybox-static")
        for place in ("usr/bin/busybox", "bin/busybox"):
            if (tree / place).is_file():
                return tree / place
        raise DebianError(f"busybox-static of {self.suite} contains no busybox", hint=OWN_FILES_HINT)

    def package(self, name: str) -> Path:
        """Return the directory with the files of the package ``name``, fetched now or before; nothing is configured."""
        return self._tree(name, lambda: [[name]])

    def download(self, names: Iterable[str], directory: Path, *, what: str) -> list[Path]:
        """Fetch the packages ``names`` and all they depend on into ``directory``; return the .deb files, sorted.

        Names may be apt's patterns (``?essential``); recommended packages are omitted. ``what`` is reported as
        progress.
        """
        self._update()
        (directory / "partial").mkdir(parents=True, exist_ok=True)
        self._apt(
            "apt-get",
            "install",
            "--download-only",
            "--no-install-recommends",
            "-y",
            f"-oDir::Cache::archives={directory}",
            *names,
            what=f"Debian {self.suite}: {what}",
        )
        return sorted(directory.glob("*.deb"))

    def mirror(self) -> str:
        """Return the address of the mirror that packages come from."""
        return _own_mirror()

    def directory(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Return the cached directory ``name`` of this suite; ``fill`` makes its content if it does not exist."""
        place = self._root / name
        if place.is_dir():
            return place
        with self._alone(name):
            if place.is_dir():
                return place  # another process made it while this one waited
            with part_directory(self._root, prefix=".fetch-") as work:
                new = work / "new"
                new.mkdir()
                fill(new)
                new.rename(place)
        return place

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Let only one process at a time do the work called ``name`` in this suite's directory."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / f".lock-{name}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _tree(self, name: str, choices: Callable[[], Iterable[list[str]]]) -> Path:
        """Return the directory with the packages of the first of the ``choices`` that the mirror has.

        It exists only when it is complete.
        """

        def fill(unpacked: Path) -> None:
            work = unpacked.parent
            self._update()
            debs = self._download_first(choices(), work, what=f"Debian {self.suite}: {name}")
            for deb in debs:
                self._run(["dpkg-deb", "-x", str(deb), str(unpacked)], what=f"unpacking {deb.name}")
            (unpacked / "zseal-packages.json").write_text(json.dumps([deb.name for deb in debs]) + "\n")

        return self.directory(name, fill)

    def _download_first(self, choices: Iterable[list[str]], work: Path, *, what: str) -> list[Path]:
        absent: AbsentPackageError | None = None
        for names in choices:
            try:
                self._apt("apt-get", "download", *names, what=what, directory=work)
            except AbsentPackageError as error:
                absent = absent or error
                for left in work.glob("*.deb"):
                    left.unlink()
                continue
            debs = sorted(work.glob("*.deb"))
            if len(debs) != len(names):
                raise DebianError(f"apt fetched {len(debs)} of {len(names)} packages", where=f"Debian {self.suite}")
            return debs
        raise absent or DebianError(f"{what}: the archive has no such package", hint=OWN_FILES_HINT)

    def _kernels(self) -> Iterator[list[str]]:
        """Yield the packages of the suite's kernels: the default's first, then the other ones, newest first."""
        default = self._kernel_packages(_KERNEL)
        yield default
        names = self._apt("apt-cache", "pkgnames", "linux-image-").split()
        for name in sorted(filter(_KERNEL_IMAGE.fullmatch, names), key=_version, reverse=True):
            if name not in default:
                yield self._kernel_packages(name)

    def _kernel_packages(self, first: str) -> list[str]:
        """Follow the dependencies of ``first`` to the packages that carry kernel and modules."""
        wanted: list[str] = []
        queue = [first]
        while queue and len(wanted) < _MAX_KERNEL_PACKAGES:
            name = queue.pop(0)
            if name in wanted:
                continue
            wanted.append(name)
            shown = self._apt("apt-cache", "depends", "--important", "--no-recommends", "--no-suggests", name)
            for dependency in re.findall(r"(?:Depends|PreDepends): <?([\w.+~-]+)", shown):
                if _KERNEL_PARTS.match(dependency):
                    queue.append(dependency)
        return [name for name in wanted if name != _KERNEL]

    def _update(self) -> None:
        if self._updated:
            return
        for program in ("apt-get", "apt-cache", "dpkg-deb"):
            if shutil.which(program) is None:
                raise MissingDependencyError(f"{program} is needed to fetch Debian's packages", hint=OWN_FILES_HINT)
        if not KEYRING.is_file():
            raise MissingDependencyError(
                "Debian's keyring is needed to check its signatures",
                where=str(KEYRING),
                hint=f"install the package debian-archive-keyring, {OWN_FILES_HINT}",
            )
        apt = self._root / "apt"
        for part in ("lists/partial", "cache/archives/partial"):
            (apt / part).mkdir(parents=True, exist_ok=True)
        (apt / "status").touch()
        (apt / "sources.list").write_text(
            f"deb [arch=s390x signed-by={KEYRING}] {_own_mirror()} {self.suite} main\n", encoding="utf-8"
        )
        with self._alone("apt"):
            self._apt("apt-get", "update", what=f"Debian {self.suite}: package list")
        self._updated = True

    def _apt(self, program: str, *arguments: str, what: str | None = None, directory: Path | None = None) -> str:
        apt = self._root / "apt"
        options = {
            "APT::Architecture": "s390x",
            "APT::Architectures": "s390x",
            "APT::Sandbox::User": "root",  # lists and debs are in the user's own cache
            "Dir::State": str(apt),
            "Dir::State::Lists": str(apt / "lists"),
            "Dir::State::status": str(apt / "status"),
            "Dir::Cache": str(apt / "cache"),
            "Dir::Etc::SourceList": str(apt / "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        _LOG.info("%s %s", program, shlex.join(arguments))
        command = [program, "-q", *(f"-o{key}={value}" for key, value in options.items()), *arguments]
        if what is None:
            return self._run(command, what=f"{program} {arguments[0]}")
        reader, writer = os.pipe()
        with os.fdopen(reader, encoding="utf-8", errors="replace") as status:
            try:
                process = subprocess.Popen(
                    [*command, f"-oAPT::Status-Fd={writer}"],
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    pass_fds=[writer],
                    env=_plain_environment(),
                )
            finally:
                os.close(writer)
            with process:
                for line in status:
                    fields = line.split(":")
                    if fields[0] == "dlstatus" and len(fields) > 2:
                        self._progress(what, min(1.0, float(fields[2]) / 100))
                stderr = process.stderr.read() if process.stderr else ""
        _check(process.returncode, stderr, what)
        self._progress(what, 1.0)
        return ""

    @staticmethod
    def _run(command: list[str], *, what: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env=_plain_environment(), check=False)
        _check(done.returncode, done.stderr, what)
        return done.stdout


def _version(package: str) -> list[int]:
    """Return the numbers in a kernel package's name, to be compared."""
    return [int(digits) for digits in re.findall(r"\d+", package)]


def _plain_environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def _check(status: int, stderr: str, what: str) -> None:
    if status:
        lines = [line for line in stderr.splitlines() if line.startswith("E: ")] or stderr.splitlines()
        reason = lines[-1].removeprefix("E: ") if lines else f"exit code {status}"
        absent = next((line for line in lines if re.search(r"Failed to fetch .* 404 ", line)), None)
        if absent is not None:
            raise AbsentPackageError(
                f"{what} failed: the mirror lists a package that it does not have: {absent.removeprefix('E: ')}",
                hint=f"try again in some hours, use another mirror or suite, {OWN_FILES_HINT}",
            )
        raise DebianError(f"{what} failed: {reason}", hint=f"check this machine's apt sources, {OWN_FILES_HINT}")


def _own_mirror() -> str:
    """Return the address of the Debian mirror that this machine's own apt uses."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"],
        capture_output=True,
        text=True,
        env=_plain_environment(),
        check=False,
    )
    mirrors = [line.split(" ") for line in done.stdout.splitlines()]
    for mirror in mirrors:
        # the security archive carries Label: Debian-Security and has no complete suites
        if mirror[1:] == ["Debian", "Debian"]:
            return mirror[0]
    raise DebianError(
        "this machine's apt knows no Debian mirror", hint=f"run apt-get update on a Debian machine, {OWN_FILES_HINT}"
    )
