"""Files with kernel parameters that the kernel would not read as they are meant."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from zseal import Machine, build_image, testguest
from zseal.errors import InputError
from zseal.image.checks import check_command_line, command_line_warnings, read_command_line
from zseal.image.source import SourceStream


def stored(content: bytes) -> bytes:
    return read_command_line(SourceStream(io.BytesIO(content), "parmfile", "parmfile", len(content)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("\ufeffroot=/dev/vda1 swiotlb=262144\n".encode("utf-16-le"), "the parmfile is UTF-16 text"),
        ("\ufeffroot=/dev/vda1\n".encode("utf-16-be"), "the parmfile is UTF-16 text"),
        ("root=/dev/vda1\n".encode("utf-16-le"), "the parmfile has a NUL at byte 1"),
        (b"root=/dev/vda1\0swiotlb=262144\n", "the parmfile has a NUL at byte 14: the kernel reads nothing after it"),
        (b"\x1f\x8b\x08\0\0\0\0\0\x02\x03307070", "the parmfile is not text: it has control characters"),
        (b"root=/dev/vda1 \x1b[0m", "the parmfile is not text: it has control characters"),
    ],
)
def test_a_parmfile_that_the_kernel_would_not_read_as_meant_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_command_line(stored(content), 4096, "parmfile")


@pytest.mark.parametrize(
    "content", [b"root=/dev/vda1 quiet", b"a\tb\r\n", b"a\0", b"a\n\0\0", "name=Gr\u00fc\u00dfe".encode(), b""]
)
def test_a_parmfile_that_the_kernel_reads_as_it_is_passes(content: bytes) -> None:
    line = stored(content)
    check_command_line(line, 4096, "parmfile")
    assert command_line_warnings(line, "parmfile") == ()


def test_a_byte_order_mark_is_warned_about(tmp_path: Path) -> None:
    machine = Machine.create(tmp_path / "box")
    keys = [machine.keys.host.public_key()]

    def warnings(*, check: bool) -> tuple[str, ...]:
        line = b"\xef\xbb\xbfroot=/dev/vda1"
        path = tmp_path / f"image-{check}"
        return build_image(
            path, kernel=testguest.kernel(), cmdline=line, host_keys=keys, check_components=check
        ).warnings

    (warning,) = warnings(check=True)
    assert "begins with a UTF-8 byte order mark, which the kernel takes for part of the first parameter" in warning
    assert warnings(check=False) == ()
