"""Binary layouts, one module each: parse, validate, serialize; no I/O, no keys, no policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.formats.ipib import Ipib, IpibComponent, IpibHeader
    from zseal.formats.layout import Layout
    from zseal.formats.se_header import HeaderError, HeaderFault, PlainFlags, SecretFlags, SeHeader, parse_header
    from zseal.formats.uv_codes import Command, Issuer, ResponseCode, describe, find_response_code
    from zseal.formats.uvcb import (
        CpuStateUvcb,
        CreateConfUvcb,
        CreateCpuUvcb,
        DestroyConfFastUvcb,
        FrameUvcb,
        GuestPageUvcb,
        HandleUvcb,
        InitUvcb,
        QueryKeysUvcb,
        QuiUvcb,
        SetParametersUvcb,
        ShareUvcb,
        UnpackUvcb,
        UvcbHeader,
    )

__all__ = [
    "Command",
    "CpuStateUvcb",
    "CreateConfUvcb",
    "CreateCpuUvcb",
    "DestroyConfFastUvcb",
    "FrameUvcb",
    "GuestPageUvcb",
    "HandleUvcb",
    "HeaderError",
    "HeaderFault",
    "InitUvcb",
    "Ipib",
    "IpibComponent",
    "IpibHeader",
    "Issuer",
    "Layout",
    "PlainFlags",
    "QueryKeysUvcb",
    "QuiUvcb",
    "ResponseCode",
    "SeHeader",
    "SecretFlags",
    "SetParametersUvcb",
    "ShareUvcb",
    "UnpackUvcb",
    "UvcbHeader",
    "describe",
    "find_response_code",
    "parse_header",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        ipib=("Ipib", "IpibComponent", "IpibHeader"),
        layout=("Layout",),
        se_header=("HeaderError", "HeaderFault", "PlainFlags", "SeHeader", "SecretFlags", "parse_header"),
        uv_codes=("Command", "Issuer", "ResponseCode", "describe", "find_response_code"),
        uvcb=(
            "CpuStateUvcb",
            "CreateConfUvcb",
            "CreateCpuUvcb",
            "DestroyConfFastUvcb",
            "FrameUvcb",
            "GuestPageUvcb",
            "HandleUvcb",
            "InitUvcb",
            "QueryKeysUvcb",
            "QuiUvcb",
            "SetParametersUvcb",
            "ShareUvcb",
            "UnpackUvcb",
            "UvcbHeader",
        ),
    )
