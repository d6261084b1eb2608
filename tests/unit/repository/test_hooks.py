"""The checks before a commit find what they are for, and the repository passes them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.paths import REPOSITORY

TOOLS = REPOSITORY / "tools"
CONFIGURATION = (REPOSITORY / ".pre-commit-config.yaml").read_text()
KEY = "-----BEGIN {}PRIVATE KEY-----\nMIIB\n"


def check(tool: str, *arguments: object, cwd: Path = REPOSITORY) -> tuple[int, str]:
    done = subprocess.run([TOOLS / tool, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=cwd)
    return done.returncode, done.stderr


def test_hooks_are_local_and_their_programs_are_there() -> None:
    assert re.findall(r"^ *- repo: (.*)$", CONFIGURATION, re.MULTILINE) == ["local"]
    assert set(re.findall(r"^ *language: (.*)$", CONFIGURATION, re.MULTILINE)) == {"system"}
    programs = re.findall(r"^ *entry: (\S+)", CONFIGURATION, re.MULTILINE)
    assert len(programs) == 6
    assert [name for name in programs if name.startswith("tools/") and not (REPOSITORY / name).exists()] == []


def test_every_file_of_the_repository_passes() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    names = listed.stdout.splitlines() or [str(path.relative_to(REPOSITORY)) for path in TOOLS.iterdir()]
    assert check("check-files", *names) == (0, "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x" * (256 << 10) + b"x", "262,145 bytes, more than 262,144"),
        (b"ours\n<<<<<<< HEAD\nmine\n", "unfinished merge"),
        (b"ours\n>>>>>>> theirs\n", "unfinished merge"),
        (b"ours\n=======\ntheirs\n", "unfinished merge"),
        (KEY.format("").encode(), "a private key"),
        (KEY.format("EC ").encode(), "a private key"),
        (KEY.format("ENCRYPTED ").encode(), "a private key"),
    ],
)
def test_what_must_not_be_committed_is_found(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "good").write_bytes(b"heading\n========\n<<<<<<<\n")
    (tmp_path / "bad").write_bytes(content)
    code, errors = check("check-files", "good", "bad", "deleted", cwd=tmp_path)
    assert code == 1
    assert errors.startswith("bad: ")
    assert said in errors
    assert errors.count("\n") == 1


def test_keys_made_for_tests_may_stay(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/key.pem").write_text(KEY.format(""))
    assert check("check-files", "tests/key.pem", cwd=tmp_path) == (0, "")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Do it\n\nIt was not done.\n", None),
        ("Do it\n\nIt was not done.\n# a comment of git's\n", None),
        ("Merge branch 'x'\n", None),
        ("fixup! Do it\n", None),
        ("x" * 72 + "\n\nReason\n", None),
        ("x" * 73 + "\n\nReason\n", "has 73 characters, at most 72"),
        ("", "the first line is the subject"),
        ("\n\nReason\n", "the first line is the subject"),
        ("Do it.\n\nReason\n", "leave the full stop away"),
        ("Do it\nReason\n", "an empty line"),
        ("Do it\n", "a body gives the reason"),
        ("Do it\n\n# comment\n", "a body gives the reason"),
    ],
)
def test_a_commit_message_has_a_short_subject_and_a_reason(tmp_path: Path, message: str, said: str | None) -> None:
    file = tmp_path / "message"
    file.write_text(message)
    code, errors = check("check-commit-message", file)
    assert code == (1 if said else 0)
    assert (said in errors) if said else not errors


def test_the_version_stands_in_two_places_that_agree() -> None:
    version = re.search(r'"(.*)"\n$', (REPOSITORY / "src/zseal/version.py").read_text())
    assert version is not None
    assert f'\nversion = "{version[1]}"\n' in (REPOSITORY / "pyproject.toml").read_text()


def test_the_forms_for_issues_ask_for_no_secret() -> None:
    for name in ("bug", "refused"):
        form = (REPOSITORY / ".github/ISSUE_TEMPLATE" / f"{name}.yml").read_text()
        assert re.search(r"Do not attach host keys", form), name
