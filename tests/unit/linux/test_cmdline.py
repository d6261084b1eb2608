"""``prot_virt=`` is read as the kernel, libvirt and Kata Containers each read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zseal.linux.cmdline import (
    kata_enables,
    kernel_enables,
    libvirt_enables,
    memory_limit,
    size_of,
    spellings,
    split_command_line,
)


@pytest.mark.parametrize(
    ("line", "kernel", "libvirt", "kata"),
    [
        ("prot_virt=1", True, True, True),
        ("prot_virt=y", True, True, True),
        ("prot_virt=on", True, True, True),
        ("prot_virt=yes", True, True, True),
        ("prot_virt=Y", True, True, True),
        ("prot_virt=ON", True, True, True),
        ("prot_virt=On", True, True, True),
        ("prot_virt=10", True, True, False),
        ("prot_virt=1foo", True, True, False),
        ("prot_virt=onward", True, True, False),
        ('prot_virt="1"', True, True, False),
        ("prot-virt=1", False, True, False),
        ("prot_virt", False, False, False),
        ("prot_virt=", False, False, False),
        ("prot_virt=true", False, False, False),
        ("prot_virt=enable", False, False, False),
        ("prot_virt=2", False, False, False),
        ("prot_virt=0", False, False, False),
        ("prot_virt=no", False, False, False),
        ("PROT_VIRT=1", False, False, False),
        ("prot_virt=0 prot_virt=1", True, True, True),
        ("prot_virt=1 prot_virt=0", True, True, True),
        ('dyndbg="file x.c +p; prot_virt=1" quiet', False, False, False),
        ("xprot_virt=1 prot_virts=1", False, False, False),
        ("", False, False, False),
    ],
)
def test_the_three_readers_of_prot_virt(line: str, kernel: bool, libvirt: bool, kata: bool) -> None:
    full = f"root=/dev/dasda1 {line} quiet"
    assert (kernel_enables(full), libvirt_enables(full), kata_enables(full)) == (kernel, libvirt, kata)


def test_a_quoted_parameter_counts_as_a_whole() -> None:
    assert kernel_enables('"prot_virt=1"')
    parameter = split_command_line('a="b c" d')[0]
    assert (parameter.text, parameter.name, parameter.value) == ('a="b c"', "a", "b c")


def test_attempts_at_the_parameter_are_found_whatever_their_spelling() -> None:
    assert spellings("root=x prot-virt=1 PROTVIRT=on prot_virt=0 protvirtual=1") == (
        "prot-virt=1",
        "PROTVIRT=on",
        "prot_virt=0",
    )


@given(st.text(alphabet='prot_virt-=10yYoOnN" \t\n', max_size=80))
def test_any_command_line_is_split_without_loss(line: str) -> None:
    parts = split_command_line(line)
    assert "".join("".join(p.text for p in parts).split()) == "".join(line.split())
    assert all(isinstance(f(line), bool) for f in (kernel_enables, libvirt_enables, kata_enables))


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("512M", 512 << 20), ("2g", 2 << 30), ("0x20000000", 512 << 20), ("536870912", 512 << 20), ("4095", 0),
        ("4097", 4096), ("010000", 4096), ("1T", 1 << 40), ("64Kx", 64 << 10), ("", 0), ("M", 0), ("-1", 0),
    ],
)  # fmt: skip
def test_a_size_is_read_as_the_kernel_reads_it(value: str, size: int) -> None:
    (parameter,) = split_command_line(f"mem={value}")
    assert size_of(parameter) == size


def test_the_last_limit_of_memory_counts() -> None:
    last = memory_limit(split_command_line("mem=1G root=/dev/vda1 mem=512M memmap=1"))
    assert last is not None
    assert last.text == "mem=512M"
    assert memory_limit(split_command_line("mem=1G mem=junk")) is None
    assert memory_limit(split_command_line("mem quiet")) is None
