"""The JSON schema (draft-07) of what ``image info`` prints: that of ``pvimg info``, API level 1."""

from __future__ import annotations

from zseal.image.describe import API_LEVEL

_Schema = dict[str, object]

_COMMON = [
    *("kind", "verified", "magic_hex", "version", "sehs", "iv_hex", "nks", "sea", "nep", "pcf_hex", "cust_pub_key"),
    *("pld_hex", "ald_hex", "tld_hex", "keyslots", "tag_hex"),
]
_DECRYPTED = ["psw", "scf_hex", "cck_hex", "xts_hex"]


def _hex(size: int, description: str) -> _Schema:
    return {"type": "string", "pattern": "^[0-9a-fA-F]+$", "description": f"{description}, {size} bytes"}


def _number(description: str) -> _Schema:
    return {"type": "integer", "minimum": 0, "description": description}


def _text(description: str) -> _Schema:
    return {"type": "string", "description": description}


def _object(properties: _Schema, required: list[str] | None = None) -> _Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _case(kind: str, *, verified: bool, required: list[str], absent: list[str]) -> _Schema:
    case: _Schema = {
        "properties": {"kind": {"const": kind}, "verified": {"const": verified}},
        "required": ["kind", "verified", *required],
    }
    if absent:
        case["not"] = {"anyOf": [{"required": [name]} for name in absent]}
    return case


def info_schema() -> _Schema:
    """Return the schema as a document for ``json.dumps``."""
    meta = _object(
        {
            "api_level": {"const": API_LEVEL, "description": "changes if readers have to change"},
            "version": _text("release of the tool"),
            "host": _text("name of the computer, or unknown"),
            "time_epoch": _number("seconds since 1970"),
            "time": _text("the same in UTC, YYYY-MM-DD HH:MM:SS+0000"),
        }
    )
    slot = _object(
        {
            "phkh_hex": _hex(32, "hash of the public host key"),
            "wrpk_hex": _hex(32, "wrapped header protection key"),
            "kst_hex": _hex(16, "key slot tag"),
        }
    )
    data = _object(
        {
            "kind": {"enum": ["se_hdr", "decrypted_se_hdr"]},
            "verified": {"type": "boolean", "description": "whether the header is authentic"},
            "magic_hex": _hex(8, "IBMSecEx in ASCII"),
            "version": _text("header version"),
            "sehs": _number("size of the header in bytes"),
            "iv_hex": _hex(12, "AES-GCM initialization vector"),
            "nks": _number("number of key slots"),
            "sea": _number("size of the encrypted area in bytes"),
            "nep": _number("number of component pages"),
            "pcf_hex": _hex(8, "plaintext control flags"),
            "cust_pub_key": _object({"coord_hex": _hex(160, "X || Y of the customer public key, 80 bytes each")}),
            "pld_hex": _hex(64, "page list digest"),
            "ald_hex": _hex(64, "address list digest"),
            "tld_hex": _hex(64, "tweak list digest"),
            "keyslots": {"type": "array", "items": slot, "minItems": 1},
            "cipher_data_b64": {
                "type": "string",
                "pattern": "^[A-Za-z0-9+/]+={0,2}$",
                "description": "the encrypted area",
            },
            "cck_hex": _hex(32, "customer communication key"),
            "xts_hex": _hex(64, "AES-XTS key of the components"),
            "psw": _object({"mask_hex": _hex(8, "mask of the start PSW"), "addr_hex": _hex(8, "its address")}),
            "scf_hex": _hex(8, "secret control flags"),
            "tag_hex": _hex(16, "authentication tag of the header"),
        },
        _COMMON,
    )
    data["oneOf"] = [
        _case("decrypted_se_hdr", verified=True, required=_DECRYPTED, absent=["cipher_data_b64"]),
        _case("se_hdr", verified=True, required=["cipher_data_b64"], absent=[]),
        _case("se_hdr", verified=False, required=["cipher_data_b64"], absent=_DECRYPTED),
    ]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Secure Execution header",
        **_object({"meta": meta, "data": data}),
    }
