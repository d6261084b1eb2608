"""Outputs appear whole or not at all, with and without the help of the file system; inputs are bounded."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.errors import InputError, OutputError
from zseal.files import atomic_output, check_output, new_directory, read_limited, write_atomic


@pytest.fixture(params=["unnamed", "named", "not Linux", "no links"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty directory where files need no name, and some where systems or file systems can do less."""
    if request.param == "named":
        real = os.open

        def without_tmpfile(path: Path, flags: int, mode: int = 0o777) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "not supported")
            return real(path, flags, mode)

        monkeypatch.setattr("zseal.files.os.open", without_tmpfile)
    elif request.param != "unnamed":
        monkeypatch.delattr("zseal.files.os.O_TMPFILE")
        monkeypatch.delattr("zseal.files.os.O_PATH")
    if request.param == "no links":

        def link(source: Path, target: Path) -> None:
            raise PermissionError(errno.EPERM, "as FAT says it")

        monkeypatch.setattr("zseal.files.os.link", link)
    return tmp_path


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_longest_names_that_there_are_can_be_given(folder: Path, overwrite: bool) -> None:
    path = folder / ("n" * 255)
    write_atomic(path, b"data", overwrite=overwrite)
    with new_directory(folder / ("d" * 255), what="machine", hint="") as part:
        part.joinpath("file").touch()
    assert path.read_bytes() == b"data"
    assert sorted(len(entry.name) for entry in folder.iterdir()) == [255, 255]


def test_the_output_appears_at_the_end_with_its_mode_and_nothing_beside_it(folder: Path) -> None:
    target = folder / "out"
    with atomic_output(target, overwrite=False) as stream:
        stream.write(b"content")
        assert not target.exists()
    assert target.read_bytes() == b"content"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == [target]


def test_an_existing_output_is_kept_unless_it_is_to_be_replaced(folder: Path) -> None:
    target = folder / "out"
    target.write_bytes(b"old")
    with pytest.raises(OutputError, match="the output exists"):
        write_atomic(target, b"new", overwrite=False)
    assert target.read_bytes() == b"old"
    write_atomic(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"
    assert list(folder.iterdir()) == [target]


def test_only_regular_files_are_replaced(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "inner").mkdir()
    for name in ("pipe", "inner"):
        with pytest.raises(OutputError, match=f"{name}: the output exists and is not a regular file"):
            write_atomic(folder / name, b"new", overwrite=True)
    assert (folder / "pipe").is_fifo()


def test_a_link_stays_a_link_to_what_is_replaced(folder: Path) -> None:
    (folder / "file").write_bytes(b"old")
    (folder / "link").symlink_to("file")
    write_atomic(folder / "link", b"new", overwrite=True)
    assert (folder / "link").is_symlink()
    assert (folder / "file").read_bytes() == b"new"
    assert len(list(folder.iterdir())) == 2


def test_an_output_that_appears_meanwhile_is_kept(folder: Path) -> None:
    target = folder / "out"
    with pytest.raises(OutputError, match="the output exists"), atomic_output(target, overwrite=False):
        target.write_bytes(b"somebody else's")
    assert target.read_bytes() == b"somebody else's"
    assert list(folder.iterdir()) == [target]


def test_a_failure_leaves_the_old_output_and_nothing_else(folder: Path) -> None:
    target = folder / "out"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="no good"), atomic_output(target, overwrite=True) as stream:
        stream.write(b"half")
        raise InputError("no good")
    assert target.read_bytes() == b"old"
    assert list(folder.iterdir()) == [target]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot create the output: No such file"):
        write_atomic(tmp_path / "absent" / "out", b"", overwrite=False)


def test_an_output_is_checked_beforehand_as_it_would_be_written(folder: Path) -> None:
    target = folder / "out"
    check_output(target, overwrite=False)
    assert list(folder.iterdir()) == []
    target.write_bytes(b"old")
    check_output(target, overwrite=True)
    assert target.read_bytes() == b"old"
    assert list(folder.iterdir()) == [target]
    for path, overwrite, message in (
        (target, False, "the output exists; choose"),
        (folder, True, "the output exists and is not a regular file"),
        (Path("/dev/full"), False, "the output exists and is not a regular file"),
        (folder / "absent" / "out", True, "cannot create the output: No such file"),
        (target / "out", False, "cannot create the output: Not a directory"),
    ):
        with pytest.raises(OutputError, match=message):
            check_output(path, overwrite=overwrite)


def test_a_folder_that_is_not_to_be_written_is_told_beforehand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, flags: int, mode: int = 0o777) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("zseal.files.os.open", refused)  # root, who may run this, is refused nothing
    with pytest.raises(OutputError, match="cannot create the output: Permission denied"):
        check_output(folder / "out", overwrite=False)


def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from zseal.files import atomic_output\n"
        "with atomic_output(Path(sys.argv[1]), overwrite=False) as stream:\n"
        "    stream.write(b'half')\n"
        "    stream.flush()\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        child.kill()
        assert child.wait(PATIENCE) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_bounded(tmp_path: Path) -> None:
    file = tmp_path / "in"
    file.write_bytes(bytes(11))
    assert read_limited(file, 11, "thing") == bytes(11)
    with pytest.raises(InputError, match="too large for a thing: more than 10 bytes"):
        read_limited(file, 10, "thing")
    with pytest.raises(InputError, match="cannot read the thing: No such file"):
        read_limited(tmp_path / "absent", 10, "thing")


def test_a_new_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with new_directory(target, what="thing", hint="take another name") as part:
        write_atomic(part / "file", b"content", overwrite=False)
        assert not target.exists()
    assert (target / "file").read_bytes() == b"content"
    assert target.stat().st_mode & 0o777 == 0o700
    with (
        pytest.raises(OutputError, match="made: it exists; take another name"),
        new_directory(target, what="thing", hint="take another name"),
    ):
        pytest.fail("there is nothing to do")
    for failure in (KeyboardInterrupt(), OSError(errno.ENOSPC, "full"), InputError("bad", where="x")):
        with (
            pytest.raises((KeyboardInterrupt, OutputError, InputError)),
            new_directory(tmp_path / "new", what="thing", hint=""),
        ):
            raise failure
    assert list(tmp_path.iterdir()) == [target]


def test_errors_in_a_new_directory_name_what_was_asked_for(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=f"^{tmp_path}/new/file: cannot read the list"),
        new_directory(tmp_path / "new", what="thing", hint="") as part,
    ):
        read_limited(part / "file", 10, "list")
