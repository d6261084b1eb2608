"""Nothing that a run shows, logs or leaves behind holds a key or what the guest keeps to itself."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.waiting import PATIENCE
from zseal.arch.storage import MIB
from zseal.guest.guest import Guest
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.image.keys import ImageKeys
from zseal.testguest import kernel
from zseal.ultravisor import Level

pytestmark = pytest.mark.qemu

MARKER = b"known-to-nobody-but-the-guest"
WORDS = b"hello marker=" + MARKER + b" share=2 wait"


def private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_numbers().private_value.to_bytes(66)


def image_secrets(keys: ImageKeys) -> dict[str, bytes]:
    return {
        "customer key": private_bytes(keys.customer_key),
        "communication key": keys.cck.reveal(),
        "image key": keys.image_key.reveal(),
        "header key": keys.header_key.reveal(),
    }


def machine_secrets(machine: Machine) -> dict[str, bytes]:
    assert machine.keys.backup is not None
    return {"host key": private_bytes(machine.keys.host), "backup host key": private_bytes(machine.keys.backup)}


def forms(secret: bytes) -> list[bytes]:
    """The ways in which ``secret``, or the middle of it, is usually written."""
    middle = secret[len(secret) // 4 : len(secret) // 4 * 3]
    found = [middle, middle.hex().encode(), middle.hex().upper().encode(), middle.hex(":").encode()]
    found += [repr(middle)[2:-1].encode(), str(list(middle))[1:-1].encode(), str(int.from_bytes(secret)).encode()]
    for shift in range(3):  # wherever it begins within a group of three bytes
        found.append(base64.b64encode(bytes(shift) + middle)[4:-4])
    return found


def leaks(secrets: dict[str, bytes], shown: dict[str, bytes]) -> list[tuple[str, str]]:
    return [
        (name, where)
        for name, secret in secrets.items()
        for where, content in shown.items()
        if any(form in content for form in forms(secret))
    ]


@pytest.fixture
def image(tmp_path: Path, machine: Machine) -> tuple[Path, ImageKeys]:
    keys, path = ImageKeys.generate(), tmp_path / "image"
    build_image(path, kernel=kernel(), cmdline=WORDS, host_keys=[machine.keys.host.public_key()], keys=keys)
    return path, keys


def test_the_search_finds_what_it_looks_for() -> None:
    secret = bytes(range(40, 104))
    for form in forms(secret):
        assert leaks({"secret": secret}, {"place": b"left" + form + b"right"}) == [("secret", "place")]
    text = base64.b64encode(b"some more" + secret + b"and more")
    assert leaks({"secret": secret}, {"base64": text, "other": b"nothing"}) == [("secret", "base64")]


def test_objects_events_and_logs_of_a_run_hold_no_secret(
    image: tuple[Path, ImageKeys], machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, keys = image
    caplog.set_level(logging.DEBUG)
    guest = Guest(path, machine=machine, memory=64 * MIB, timeout=PATIENCE, record=True)
    vmm = guest.vmm
    assert vmm is not None
    ultravisor = vmm.ultravisor
    ultravisor.log.level = Level.DEBUG
    with guest:
        guest.wait_for_output("waiting")
        guest.page_out(tmp_path / "pages", 100)
        guest.resume()
        assert vmm.configuration is not None
        configuration = ultravisor.firmware.configuration(vmm.configuration)
        sealer = configuration.guest.sealer
        secrets = image_secrets(keys) | machine_secrets(machine) | {"marker": MARKER}
        secrets["page key"] = sealer._encryption.reveal()
        objects = [
            guest,
            vmm,
            ultravisor,
            configuration,
            configuration.accepted,
            sealer,
            machine,
            keys,
            guest.observe(),
        ]
        guest.host.dump(tmp_path / "dump")
        guest.stop()
        shown = {
            "objects": "\n".join(map(repr, objects)).encode(),
            "attributes": "\n".join(repr(vars(each)) for each in (vmm, ultravisor, configuration, sealer)).encode(),
            "snapshot": json.dumps(ultravisor.snapshot().to_json()).encode(),
            "event log": "\n".join(map(str, ultravisor.log.events())).encode(),
            "events": "\n".join(map(repr, guest.events())).encode(),
            "record": repr(guest.record).encode(),
            "report": json.dumps(guest.report).encode(),
            "logging": caplog.text.encode(),
            "page map": ultravisor.host.frame_map().to_text().encode(),
        }
    assert b"SET_SHARED_ACCESS" in shown["event log"]
    for name in (b"zseal.engine.qemu.process", b"zseal.guest.session", b"zseal.ultravisor.events"):
        assert name in shown["logging"]
    shown |= {name: (tmp_path / name).read_bytes() for name in ("image", "pages", "dump")}
    assert leaks(secrets, shown) == []


def test_outputs_of_the_command_hold_no_secret(image: tuple[Path, ImageKeys], machine: Machine, tmp_path: Path) -> None:
    path, keys = image
    outputs = {option: tmp_path / option.strip("-") for option in ("--report", "--html", "--host-dump")}
    command = [
        *(sys.executable, "-m", "zseal", "run", str(path), "--machine", str(machine.directory), "--memory", "64M"),
        "--kernel-console",
        *(word for option, file in outputs.items() for word in (option, str(file))),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        lines = list(itertools.takewhile(lambda line: b"waiting" not in line, run.stdout))
        run.send_signal(signal.SIGINT)
        rest, errors = run.communicate()
    assert run.returncode == 130
    shown = {option: file.read_bytes() for option, file in outputs.items()}
    shown |= {"stdout": b"".join(lines) + rest, "stderr": errors}
    assert b"zseal-test-guest" in shown["stdout"]
    assert leaks(image_secrets(keys) | machine_secrets(machine) | {"marker": MARKER}, shown) == []


@pytest.mark.parametrize("engine", ["qemu", "embedded"])
def test_the_log_of_the_commands_holds_no_secret(machine: Machine, tmp_path: Path, engine: str) -> None:
    """Sealing, verifying and running, all with -vv; the keys are given, so that it is known what to look for."""
    keys = ImageKeys.generate()
    given = {"--cck": keys.cck, "--hdr-key": keys.header_key, "--image-key": keys.image_key}
    for option, key in given.items():
        (tmp_path / option.strip("-")).write_bytes(key.reveal())
    (tmp_path / "kernel").write_bytes(kernel())
    (tmp_path / "parmfile").write_bytes(b"hello marker=" + MARKER)
    image, box = str(tmp_path / "sealed"), str(machine.directory)
    create = ["image", "create", "-o", image, "-i", str(tmp_path / "kernel"), "-p", str(tmp_path / "parmfile")]
    create += ["-k", f"{box}/host-key.crt", "--bundle", box, "--root-ca", f"{box}/root-ca.crt", "--offline"]
    create += [word for option in given for word in (option, str(tmp_path / option.strip("-")))]
    logged = b""
    for arguments in (
        create,
        ["image", "verify", image, "--machine", box],
        ["run", image, "--machine", box, "--memory", "64M", "--engine", engine, "--name", f"secrecy-{engine}"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "zseal", *arguments, "-vv"], capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        logged += done.stderr
    for name in ("hostkeys.verify", "image.build", "image.verify", "guest.session", f"engine.{engine}"):
        assert f" zseal.{name}".encode() in logged
    secrets = {option: key.reveal() for option, key in given.items()} | machine_secrets(machine)
    assert leaks(secrets | {"marker": MARKER}, {"log": logged}) == []
