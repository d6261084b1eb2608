"""EBCDIC text of the line-mode console and of load parameters."""

from __future__ import annotations

import pytest

from zseal.arch import ebcdic


def test_text_survives_the_way_there_and_back() -> None:
    text = "Secure unpack facility: [0x161]\n{a|b} ~!^"
    assert ebcdic.decode(ebcdic.encode(text)) == text


def test_code_points_are_those_of_code_page_500() -> None:
    assert ebcdic.encode("AZaz09 []!\n").hex() == "c1e981a9f0f9404a5a4f15"
    assert ebcdic.decode(b"\xc1\x25\xc2\x15") == "A\nB\n"
    assert ebcdic.encode("\u20ac") == ebcdic.encode("?")


def test_load_parameters_are_padded_and_checked() -> None:
    assert ebcdic.encode_loadparm("prompt").hex() == "d7d9d6d4d7e34040"
    assert ebcdic.decode_loadparm(ebcdic.encode_loadparm("3")) == "3"
    assert ebcdic.decode_loadparm(bytes(8)) == ""
    for bad in ("NINECHARS", "A/B", "ü"):
        with pytest.raises(ValueError, match="load parameter"):
            ebcdic.encode_loadparm(bad)
