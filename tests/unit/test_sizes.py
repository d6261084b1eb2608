"""Sizes on a command line: one grammar for all commands."""

from __future__ import annotations

import pytest

from zseal.errors import UsageError
from zseal.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 << 30), ("4G", 4 << 30), ("4gb", 4 << 30), ("512", 512 << 20), ("512MiB", 512 << 20),
        ("512m", 512 << 20), ("2048 KiB", 2 << 20), (" 1t ", 1 << 40), ("0002G", 2 << 30),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", " ", "0", "0G", "4X", "-1", "+1", "4 4", "1e9", "1.5G", "G", "512B", "512iB", "1 0G", "٤G", "1" * 16]
)
def test_what_is_not_a_size_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert str(caught.value) == f"invalid memory size {text!r}: use a value such as 512M or 2G"


def test_the_message_names_the_value_that_is_wrong() -> None:
    with pytest.raises(UsageError, match="invalid disk size '2X'"):
        parse_size("2X", "disk size")
