"""Facts that native code and Python both need are the same in both: addresses, codes, layouts, sentences."""

from __future__ import annotations

import re

import pytest

from tests.unit.native.building import NATIVE
from tests.unit.native.sources import ANY, causes, defined
from zseal import _native
from zseal.arch import lowcore, psw
from zseal.arch.diag308 import ReturnCode, Subcode
from zseal.arch.facilities import Facility
from zseal.arch.storage import PAGE_SIZE
from zseal.explanations.families import waits
from zseal.formats.image_layout import Stage3aArguments, Stage3bArguments
from zseal.formats.ipib import IpibHeader
from zseal.formats.uv_codes import Command, ResponseCode, SetParameters, VerifyImage
from zseal.linux import kernel_file
from zseal.messages import bootloaders

SHARED: dict[str, dict[str, int]] = {
    "common/layout.h": {
        "KERNEL_START": kernel_file.ENTRY,
        "KERNEL_RAMDISK_START": kernel_file.RAMDISK_ADDRESS_OFFSET,
        "KERNEL_RAMDISK_SIZE": kernel_file.RAMDISK_SIZE_OFFSET,
        "KERNEL_COMMAND_LINE_CAPACITY": kernel_file.MAX_COMMAND_LINE_OFFSET,
        "KERNEL_COMMAND_LINE": kernel_file.COMMAND_LINE_OFFSET,
        "LEGACY_COMMAND_LINE_CAPACITY": kernel_file.LEGACY_COMMAND_LINE,
    },
    "common/cpu.h": {
        "PAGE_SIZE": PAGE_SIZE,
        "PSW_DAT": psw.DAT,
        "PSW_EXTERNAL": psw.EXTERNAL,
        "PSW_WAIT": psw.WAIT,
        "PSW_PROBLEM": psw.PROBLEM_STATE,
        "PSW_HOME": psw.AddressSpace.HOME.value << psw.ADDRESS_SPACE_SHIFT,
        "PSW_BA": psw.BA,
        "PSW_64BIT": psw.EA | psw.BA,
        "LC_EXTERNAL_PARAMETER": lowcore.EXTERNAL_PARAMETER,
        "LC_EXTERNAL_CODE": lowcore.EXTERNAL_CODE,
        "LC_PROGRAM_CODE": lowcore.PROGRAM_CODE,
        "LC_PROGRAM_OLD_PSW": lowcore.PROGRAM_OLD_PSW,
        "LC_RESTART_NEW_PSW": lowcore.RESTART_NEW_PSW,
        "LC_EXTERNAL_NEW_PSW": lowcore.EXTERNAL_NEW_PSW,
        "LC_SVC_NEW_PSW": lowcore.SVC_NEW_PSW,
        "LC_PROGRAM_NEW_PSW": lowcore.PROGRAM_NEW_PSW,
    },
    "bootloaders/stage3a/stage3a.c": {
        "FACILITY_UNPACK": Facility.UNPACK,
        "DIAG308_SET_PV": Subcode.SET_PV,
        "DIAG308_UNPACK_PV": Subcode.START_PV,
        "DIAG308_OK": ReturnCode.OK,
        "IPIB_HEADER_ADDRESS": IpibHeader.FIELDS["header_address"].offset,
        "IPIB_HEADER_SIZE": IpibHeader.FIELDS["header_size"].offset,
    },
    "bootloaders/stage3a/failure.c": {"NO_CONFIGURATION": ReturnCode.NO_PV_CONFIGURATION},
    "testguest/machine.c": {"DIAG308_LOAD_CLEAR": Subcode.LOAD_CLEAR},
    "testguest/ultravisor.c": {
        "UVC_QUERY": Command.QUI,
        "UVC_SHARE": Command.SET_SHARED_ACCESS,
        "UVC_UNSHARE": Command.REMOVE_SHARED_ACCESS,
    },
}
"""What Python knows as well, by file and name."""

OWN = {
    "common/layout.h": {"SCCB_ADDRESS", "STACK_TOP", "STACK_FRAME"},
    "common/cpu.h": {"LC_STFL", "SUBCLASS_CLOCK_COMPARATOR", "SUBCLASS_SERVICE_SIGNAL"},
    "bootloaders/stage3a/stage3a.c": {"FACILITY_DOUBLEWORDS"},
    "bootloaders/stage3a/failure.c": {"ANY"},
}
"""What only native code knows. A new definition in one of these files belongs here or above."""

STOPS = {"STOP_INTERNAL_ERROR", "STOP_NO_SECURE_EXECUTION", "STOP_PROTECTED_BOOT_FAILED"}


CAUSES = causes()
SPECIFIC = [cause for cause in CAUSES if cause[1] != ANY]
GENERAL = [cause for cause in CAUSES if cause[1] == ANY]


@pytest.mark.parametrize(("name", "constant"), [(name, constant) for name in SHARED for constant in SHARED[name]])
def test_a_constant_of_native_code_is_that_of_python(name: str, constant: str) -> None:
    assert defined(name)[constant] == SHARED[name][constant]


@pytest.mark.parametrize("name", OWN)
def test_no_constant_is_forgotten_here(name: str) -> None:
    stops = STOPS if name == "common/layout.h" else set()
    assert set(defined(name)) == set(SHARED[name]) | OWN[name] | stops


@pytest.mark.parametrize("stop", sorted(STOPS))
def test_each_wait_code_of_a_bootloader_is_explained(stop: str) -> None:
    assert defined("common/layout.h")[stop] in waits._WAITS


def test_bootloaders_end_in_the_arguments_that_image_builders_fill_in() -> None:
    for name, size in (("stage3a", Stage3aArguments.SIZE), ("stage3b", Stage3bArguments.SIZE)):
        assert not any(_native.guest_program(name)[-size:])
    fields = re.search(
        r"struct arguments \{(.*?)\};", (NATIVE / "bootloaders/stage3a/stage3a.c").read_text(), re.DOTALL
    )
    assert fields is not None
    order = {name: 8 * number for number, name in enumerate(re.findall(r"uint64_t (\w+);", fields[1]))}
    assert order == {name: field.offset for name, field in Stage3aArguments.FIELDS.items()}


def test_the_test_guest_looks_like_a_kernel_to_image_builders() -> None:
    guest = _native.guest_program("testguest")
    assert guest[kernel_file.MAGIC_OFFSET :].startswith(kernel_file.MAGIC)


# --- what stage3a says of a failure ---


def code_of(sentence: str) -> ResponseCode:
    """Return the answer of the ultravisor that ``zseal explain`` takes the sentence for."""
    return next(code for known, code in bootloaders.ANSWERS if known in sentence)


@pytest.mark.parametrize(("rc", "rrc", "sentence"), SPECIFIC)
def test_a_sentence_for_one_answer_is_explained_as_that_answer(rc: int, rrc: int, sentence: str) -> None:
    code = code_of(sentence)
    assert (code.rc, code.rrc) == (rc, rrc)


@pytest.mark.parametrize(("rc", "rrc", "sentence"), GENERAL)
def test_a_sentence_for_all_other_answers_of_an_rc_is_explained_with_that_rc(rc: int, rrc: int, sentence: str) -> None:
    (message,) = [each for each in bootloaders.MESSAGES if each.text == sentence]
    assert f"rc {rc:#06x}" in message.meaning.meaning
    position = CAUSES.index((rc, rrc, sentence))
    assert not [cause for cause in CAUSES[position + 1 :] if cause[0] == rc], "it hides what comes after it"


def test_each_published_answer_about_an_image_has_a_sentence() -> None:
    published = [
        (code.rc, code.rrc) for code in (*SetParameters, *VerifyImage) if code.published and code.rrc is not None
    ]
    assert sorted(published) == sorted((rc, rrc) for rc, rrc, _ in SPECIFIC)


def test_each_sentence_fits_a_line_of_the_operators_console() -> None:
    line = defined("common/text.h")["TEXT_SIZE"]
    assert all(len(sentence) < line for _, _, sentence in CAUSES)
