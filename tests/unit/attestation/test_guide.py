"""The pages on attestation and secrets: their commands print what they show, their Python examples run."""

import re
import shlex
from pathlib import Path

import pytest

from tests.paths import DOCS
from zseal import testguest
from zseal.cli.main import main

PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("attestation", "secrets")}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


def run(command: str, capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(command))
    out, err = capfd.readouterr()
    return f"$ zseal {command}\n{out}{err}" + (f"[exit code {caught.value.code}]\n" if caught.value.code else "")


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_the_page_shows(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmlinuz").write_bytes(testguest.kernel())
    (tmp_path / "disk-password").write_text("correct horse battery staple")
    run("machine create my-z", capfd)
    run("image create -i vmlinuz -k my-z/host-key.crt --no-verify -o sealed.img", capfd)
    shown = "".join(blocks(page, "console"))
    commands = re.findall(r"^\$ zseal (.*)$", shown, re.MULTILINE)
    assert len(commands) >= 6
    printed = "".join(run(command, capfd) for command in commands)
    assert printed.splitlines() == shown.splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmlinuz").write_bytes(testguest.kernel())
    (example,) = blocks(page, "python")
    exec(compile(example, f"{page}.md", "exec"), {})


def test_the_state_of_a_played_guest_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept are the requests, which only the machine can open."""
    from zseal.attestation import HeaderTags
    from zseal.errors import FormatError, InputError
    from zseal.formats.se_header import parse_header
    from zseal.hostkeys import Machine
    from zseal.model import seal_image
    from zseal.model.kept_guest import KeptGuest
    from zseal.secret import Secret
    from zseal.secrets import NewSecret, SecretList, create_add_secret_request, plaintext_of

    machine = Machine.create(tmp_path / "z")
    key = machine.keys.host.public_key()
    header = seal_image([(0x10000, b"x")], [key]).header
    tags = HeaderTags.of(parse_header(header))
    state = tmp_path / "state"
    request = create_add_secret_request([key], tags=tags, secret=NewSecret.plaintext("p", Secret(b"the secret")))
    with KeptGuest(state, machine.keys, header) as guest:
        guest.add_secret(request.pack())
        cuid = guest.configuration.uid
    assert state.stat().st_mode & 0o777 == 0o700
    assert all(b"the secret" not in path.read_bytes() for path in state.iterdir())
    with KeptGuest(state, machine.keys, header) as guest:
        assert guest.configuration.uid == cuid
        assert SecretList.parse(guest.list_secrets()).total == 1
        assert plaintext_of(guest.retrieve_secret(0, 16)) == b"the secret"
        guest.lock_secrets()
    with KeptGuest(state, machine.keys, header) as guest:
        assert guest.configuration.secret_store.locked
    (state / "guest.json").write_text("{}")
    with pytest.raises(FormatError, match="damaged description"):
        KeptGuest(state, machine.keys, header)
    with pytest.raises(InputError):
        KeptGuest(tmp_path / "z", machine.keys, header)
