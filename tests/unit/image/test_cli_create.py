"""``zseal image create`` and ``genprotimg``: the options, exclusions, exit codes and errors of pvimg create."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.image.conftest import Ran, fake_kernel, image
from zseal.cli import s390_tools
from zseal.crypto.keyexchange import MachineKeys
from zseal.hostkeys.machine import Machine
from zseal.image.read import read_image
from zseal.image.verify import verify_image

Runner = Callable[..., Ran]


@pytest.fixture
def create(zseal: Runner, inputs: Path, machine: Machine, tmp_path: Path) -> Runner:
    """Runs create with all that is needed, plus the arguments of the test."""

    def run(*extra: str | Path) -> Ran:
        document = machine.directory / "host-key.crt"
        needed = ["-i", inputs / "kernel", "-k", document, "-o", tmp_path / "image"]
        return zseal("image", "create", *needed, *extra)

    return run


def test_image_of_all_parts_opens_on_its_machine(
    create: Runner, zseal: Runner, inputs: Path, machine: Machine, tmp_path: Path
) -> None:
    ran = create("-r", inputs / "ramdisk", "-p", inputs / "parmfile", "--no-verify")
    assert ran.code == 0 and "not verified" in ran.err and "software machine" in ran.err and not ran.out
    ran = zseal("image", "verify", tmp_path / "image", "--machine", machine.directory, "--extract", tmp_path / "out")
    assert ran.code == 0
    for name in ("kernel", "ramdisk", "parmfile"):
        assert (tmp_path / "out" / name).read_bytes() == (inputs / name).read_bytes()


def test_documents_are_verified_with_the_chain_that_is_named(create: Runner, machine: Machine, tmp_path: Path) -> None:
    folder = machine.directory
    chain = ["-C", f"{folder}/signing-key.crt,{folder}/intermediate-ca.crt", "--offline"]
    crls = [f"--crl={folder / name}" for name in ("signing-key.crl", "intermediate-ca.crl", "root-ca.crl")]
    refused = create(*chain, *crls)
    assert refused.code == 1 and "host-key document refused" in refused.err
    assert not (tmp_path / "image").exists()
    assert create(*chain, *crls, "--root-ca", folder / "root-ca.crt").code == 0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "--no-verify"),
        (["--no-verify", "--cert", "x"], "excludes"),
        (["--no-verify", "-i", "x"], "--kernel can be given only once"),
        (["--no-verify", "-o", "x"], "--output can be given only once"),
        (["--no-verify", "-r", "x", "-r", "x"], "--ramdisk can be given only once"),
        (["--no-verify", "-p", "x", "--parmfile", "x"], "--parmfile can be given only once"),
        (["--no-verify", "--cck", "x", "--comm-key", "x"], "--cck can be given only once"),
        (["--no-verify", "--hdr-key", "x", "--x-header-key", "x"], "--hdr-key can be given only once"),
        (["--no-verify", "--image-key", "x", "--x-comp-key", "x"], "--image-key can be given only once"),
        (["--no-verify", "--x-pcf", "1", "--x-pcf", "1"], "--x-pcf can be given only once"),
        (["--no-verify", "--enable-dump"], "needs --cck or --enable-cck-update"),
        (["--no-verify", "--enable-cck-extension-secret"], "needs --cck"),
        (["--no-verify", "--cck", "x", "--enable-cck-extension-secret", "--enable-cck-update"], "excludes"),
        (["--no-verify", "--image-key", "x", "--disable-image-encryption"], "excludes"),
        *(
            (["--no-verify", f"--enable-{name}", f"--disable-{name}"], "exclude each other")
            for name in (
                "dump", "cck-extension-secret", "cck-update", "pckmo", "pckmo-hmac", "backup-keys", "image-encryption"
            )
        ),
        (["--no-verify", "--x-pcf", "0xe0", "--enable-pckmo"], "exclude --enable-pckmo"),
        (["--no-verify", "--x-scf", "0", "--disable-dump"], "exclude --disable-dump"),
        (["--no-verify", "-v", "-q"], "exclude each other"),
        (["--no-verify", "--unknown"], "unknown"),
        (["--no-verify", "stray"], "stray"),
    ],
)  # fmt: skip
def test_usage_errors_exit_with_2(create: Runner, extra: list[str], message: str, tmp_path: Path) -> None:
    ran = create(*extra)
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("missing", ["-i", "-k", "-o"])
def test_missing_options_exit_with_2(zseal: Runner, missing: str) -> None:
    arguments = {"-i": "kernel", "-k": "document", "-o": "output"}
    del arguments[missing]
    ran = zseal("image", "create", "--no-verify", *(word for pair in arguments.items() for word in pair))
    assert ran.code == 2 and "is missing" in ran.err


@pytest.mark.parametrize(
    ("extra", "pcf", "scf"),
    [
        ([], 0xE0, 0),
        (["--disable-pckmo"], 0, 0),
        (["--enable-pckmo"], 0xE0, 0),
        (["--enable-pckmo-hmac"], 0xF0, 0),
        (["--enable-backup-keys"], 0xE2, 0),
        (["--disable-image-encryption"], 0x100000E0, 0),
        (["--enable-dump", "--cck", "key32"], 0x200000E0, 0),
        (["--enable-dump", "--enable-cck-update"], 0x200000E0, 1 << 61),
        (["--cck", "key32", "--enable-cck-extension-secret"], 0xE0, 1 << 62),
        (["--enable-cck-update"], 0xE0, 1 << 61),
        (["--x-pcf", "0x12"], 0x12, 0),
        (["--x-pcf", "12", "--x-scf", "6000000000000000"], 0x12, 3 << 61),
        (["--x-scf", "0"], 0xE0, 0),
    ],
)
def test_flags_end_up_in_the_header(
    create: Runner, inputs: Path, tmp_path: Path, extra: list[str], pcf: int, scf: int
) -> None:
    given = [str(inputs / word) if word.startswith("key") else word for word in extra]
    (tmp_path / "hdr").write_bytes(b"h" * 32)
    assert create("--no-verify", "--hdr-key", tmp_path / "hdr", *given).code == 0
    from zseal.crypto.header import open_header
    from zseal.secret import Secret

    header = read_image(tmp_path / "image").header
    area = open_header(header, Secret(b"h" * 32))
    assert (header.fixed.pcf, area.scf) == (pcf, scf)
    if "--cck" in extra:
        assert area.cck.reveal() == (inputs / "key32").read_bytes()


def test_image_key_and_start_address_are_used(create: Runner, inputs: Path, machine: Machine, tmp_path: Path) -> None:
    assert create("--no-verify", "--x-comp-key", inputs / "key64", "--x-psw", "0x15002").code == 0
    accepted = verify_image(tmp_path / "image", machine.keys).accepted
    assert accepted.image_key.reveal() == (inputs / "key64").read_bytes()
    assert accepted.psw.address == 0x15002


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--cck", "key64"], "communication key has 64 bytes instead of 32"),
        (["--hdr-key", "key64"], "header key has 64 bytes instead of 32"),
        (["--image-key", "key32"], "image key has 32 bytes instead of 64"),
        (["--cck", "none"], "cannot read the customer communication key"),
        (["--x-pcf", ""], "hexadecimal"),
        (["--x-pcf", "0X1"], "hexadecimal"),
        (["--x-psw", "12345678901234567"], "hexadecimal"),
        (["--x-scf", "xyz"], "hexadecimal"),
        (["-r", "none"], "cannot read the ramdisk"),
        (["-p", "none"], "cannot read the parmfile"),
        (["--x-bootloader-directory", "none"], "not a directory"),
    ],
)
def test_unusable_inputs_exit_with_1(
    create: Runner, inputs: Path, tmp_path: Path, extra: list[str], message: str
) -> None:
    given = [extra[0], str(inputs / extra[1]) if extra[1].startswith(("key", "none")) else extra[1]]
    ran = create("--no-verify", *given)
    assert ran.code == 1
    assert message in ran.err.splitlines()[-1]
    assert ran.err.splitlines()[-1].startswith("error: ")
    assert not list(tmp_path.glob("*image*"))


def test_output_that_exists_is_replaced_only_when_told(create: Runner, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"old")
    ran = create("--no-verify")
    assert ran.code == 1 and "--overwrite" in ran.err
    assert (tmp_path / "image").read_bytes() == b"old"
    assert create("--no-verify", "--overwrite").code == 0
    assert read_image(tmp_path / "image")


def test_the_same_machine_twice_is_refused(create: Runner, machine: Machine) -> None:
    ran = create("--no-verify", "-k", machine.directory / "host-key.crt")
    assert ran.code == 1 and "are the same" in ran.err


def test_several_documents_separated_by_commas(
    zseal: Runner, inputs: Path, machine: Machine, other_machine: Machine, tmp_path: Path
) -> None:
    documents = ",".join(str(item.directory / "host-key.crt") for item in (machine, other_machine))
    ran = zseal(
        "image", "create", "--kernel", inputs / "kernel", "-k", documents, "-o", tmp_path / "image", "--no-verify"
    )
    assert ran.code == 0 and "for 2 host keys" in ran.err
    for item in (machine, other_machine):
        verify_image(tmp_path / "image", MachineKeys(item.keys.host))


def test_component_check_can_be_left_out(create: Runner, inputs: Path) -> None:
    (inputs / "kernel").write_bytes(b"\x7fELF no kernel")
    ran = create("--no-verify")
    assert ran.code == 1 and "ELF" in ran.err
    ran = create("--no-verify", "--no-component-check")
    assert ran.code == 0 and "not checked" in ran.err


def test_command_line_must_fit_the_kernel(create: Runner, inputs: Path) -> None:
    (inputs / "kernel").write_bytes(fake_kernel(max_command_line=64))
    (inputs / "parmfile").write_bytes(b"x" * 64)
    ran = create("--no-verify", "-p", inputs / "parmfile")
    assert ran.code == 1 and "65 bytes with its NUL, this kernel takes 64" in ran.err


def test_95_documents_in_one_list(zseal: Runner, machine: Machine, inputs: Path, tmp_path: Path) -> None:
    """Together their names are longer than any file's may be."""
    documents = ",".join(str(inputs / "none.crt") for _ in range(94)) + f",{machine.directory / 'host-key.crt'}"
    ran = zseal("image", "create", "-i", inputs / "kernel", "--no-verify", "-k", documents, "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (
        1,
        f"error: {inputs / 'none.crt'}: cannot read the host-key document: No such file or directory\n",
    )


def test_quiet_says_nothing_and_verbose_tells_causes(create: Runner, tmp_path: Path) -> None:
    assert create("--no-verify", "-q") == Ran(0, "", "")
    ran = create("--no-verify", "--overwrite", "-v")
    assert ran.code == 0 and "kernel" in ran.err
    ran = create("--no-verify", "--overwrite", "-V")
    assert ran.code == 0 and "deprecated" in ran.err
    ran = create("--no-verify", "-r", tmp_path / "none", "--verbose", "--overwrite")
    assert ran.code == 1 and "caused by: [Errno 2]" in ran.err


def test_own_boot_loaders_can_be_given(create: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "loaders"
    folder.mkdir()
    (folder / "stage3a.bin").write_bytes(bytes(4096))
    (folder / "stage3b_reloc.bin").write_bytes(bytes(128))
    ran = create("--no-verify", "--x-bootloader-directory", folder)
    assert ran.code == 0 and "bootloaders are taken from" in ran.err
    stage3a = read_image(tmp_path / "image").stage3a
    assert stage3a is not None and stage3a.owner == "unknown"


@pytest.mark.parametrize("option", ["-h", "--help", "--help-all", "--help-experimental"])
def test_help(zseal: Runner, option: str) -> None:
    ran = zseal("image", "create", option)
    assert ran.code == 0
    for name in ("--kernel", "--image", "--host-key-document", "--enable-cck-update", "--comm-key"):
        assert name in ran.out
    assert "--x-pcf" not in ran.out


def test_genprotimg_takes_the_same_options(zseal: Runner, inputs: Path, machine: Machine, tmp_path: Path) -> None:
    document = machine.directory / "host-key.crt"
    arguments = ["--image", inputs / "kernel", "-k", document, "-o", tmp_path / "image", "--no-verify"]
    assert zseal(*arguments, program=s390_tools.genprotimg).code == 0
    verify_image(tmp_path / "image", machine.keys)
    assert zseal(*arguments, program=s390_tools.genprotimg).code == 1
    assert zseal("--no-verify", program=s390_tools.genprotimg).code == 2


def test_genprotimg_version_stands_alone(zseal: Runner) -> None:
    ran = zseal("--version", program=s390_tools.genprotimg)
    assert ran.code == 0 and "version" in ran.out
    # kata-containers' gate: what follows "version " is compared with 2.17.0
    found = re.search(r"(?<=version )[^-]+", ran.out)
    assert found is not None
    assert [int(part) for part in found[0].split()[0].split(".")] >= [2, 17, 0]
    assert "zseal" in ran.out
    assert zseal("--version", "--no-verify", program=s390_tools.genprotimg).code == 2


@pytest.mark.parametrize("name", ["genprotimg", "pvimg", "pvverify", "pvextract_hdr"])
def test_each_tool_says_its_version_and_helps(zseal: Runner, name: str) -> None:
    program = getattr(s390_tools, name)
    spelled = name.replace("_", "-")
    assert zseal("--version", program=program).out.startswith(f"{spelled} version 2.43.0 (zseal ")
    assert f"Usage: {spelled}" in zseal("--help", program=program).out


def test_pvimg_creates_describes_and_tests(zseal: Runner, inputs: Path, machine: Machine, tmp_path: Path) -> None:
    document = machine.directory / "host-key.crt"
    path = tmp_path / "image"
    arguments = ["create", "--image", inputs / "kernel", "-k", document, "-o", path, "--no-verify"]
    assert zseal(*arguments, program=s390_tools.pvimg).code == 0
    assert '"nks": 1' in zseal("info", path, program=s390_tools.pvimg).out
    assert zseal("test", path, "-k", document, program=s390_tools.pvimg).code == 0
    assert zseal("frobnicate", program=s390_tools.pvimg).code == 2


def test_pvverify_judges_documents(zseal: Runner, machine: Machine) -> None:
    at = machine.directory
    arguments = ["-k", at / "host-key.crt", "--bundle", at, "--offline"]
    assert zseal(*arguments, "--root-ca", at / "root-ca.crt", program=s390_tools.pvverify).code == 0
    assert zseal(*arguments, program=s390_tools.pvverify).code == 1


def test_pvextract_hdr_takes_the_places_of_its_namesake(
    zseal: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("image").write_bytes(image("se-kat1"))
    for _ in range(2):
        assert zseal("-s", "0x14", "-l", "4", "image", program=s390_tools.pvextract_hdr).code == 0
    assert zseal("-o", "other", "image", program=s390_tools.pvextract_hdr).code == 0
    assert Path("sehdr.bin").read_bytes() == Path("other").read_bytes()
    assert Path("other").read_bytes().startswith(b"IBMSecEx")
