"""Describes an image: the JSON document of ``pvimg info`` (API level 1), and zseal's additions."""

from __future__ import annotations

import base64
import dataclasses
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

from zseal.crypto.header import open_header
from zseal.formats.se_header import MAGIC, PlainFlags, SecretArea, SecretFlags, SeHeader
from zseal.image.read import Image
from zseal.secret import Secret
from zseal.version import __version__

API_LEVEL = 1

PLAIN_FLAG_NAMES = {
    PlainFlags.DUMP: "dumps by the host are allowed",
    PlainFlags.NO_COMPONENT_ENCRYPTION: "components are not encrypted",
    PlainFlags.PCKMO_DEA: "PCKMO wraps DEA and TDEA keys",
    PlainFlags.PCKMO_AES: "PCKMO wraps AES keys",
    PlainFlags.PCKMO_ECC: "PCKMO wraps ECC keys",
    PlainFlags.PCKMO_HMAC: "PCKMO wraps HMAC keys",
    PlainFlags.BACKUP_KEYS: "backup host keys may open the image",
}
SECRET_FLAG_NAMES = {
    SecretFlags.CCK_EXTENSION_SECRET: "add-secret requests need the extension secret of the CCK",
    SecretFlags.CCK_UPDATE: "the guest may update its CCK",
}


@dataclasses.dataclass(frozen=True)
class HeaderView:
    """A header with the area that a header key opened; ``area`` is None if no key was given."""

    header: SeHeader
    area: SecretArea | None = None
    show_secrets: bool = False
    """Whether the decrypted area, keys included, may be shown."""

    @classmethod
    def open(cls, header: SeHeader, header_key: Secret | None, *, show_secrets: bool = False) -> HeaderView:
        """Authenticate ``header`` with ``header_key``, if given; raises VerificationError."""
        return cls(header, None if header_key is None else open_header(header, header_key), show_secrets)

    @property
    def verified(self) -> bool:
        """Whether the header is authentic, that is, as made by the holder of its key."""
        return self.area is not None

    @property
    def shown(self) -> SecretArea | None:
        """The decrypted area, if it may be shown."""
        return self.area if self.show_secrets else None


@dataclasses.dataclass(frozen=True)
class HostKeyMatch:
    """Whether a host key with the 32-byte hash ``phkh`` can open an image: ``slot`` counts from 0, None means no."""

    source: str
    phkh: bytes
    slot: int | None


def match_host_key(header: SeHeader, phkh: bytes, source: str) -> HostKeyMatch:
    """Find the key slot of the host key with the hash ``phkh``."""
    return HostKeyMatch(source, phkh, next((n for n, slot in enumerate(header.slots) if slot.phkh == phkh), None))


def info_json(view: HeaderView, *, now: datetime | None = None, host: str | None = None) -> dict[str, object]:
    """Return the document that ``pvimg info --format json`` prints, keys in the same order.

    ``now`` and ``host`` default to the clock's time and this computer's name. Without ``show_secrets`` in ``view`` it
    contains no key.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    return {
        "meta": {
            "api_level": API_LEVEL,
            "version": __version__,
            "host": (socket.gethostname() if host is None else host) or "unknown",
            "time_epoch": int(now.timestamp()),
            "time": now.strftime("%Y-%m-%d %H:%M:%S+0000"),
        },
        "data": _data(view),
    }


def _word(value: int) -> str:
    return f"{value:016x}"


def _data(view: HeaderView) -> dict[str, object]:
    header, fixed, area = view.header, view.header.fixed, view.shown
    data: dict[str, object] = {
        "kind": "se_hdr" if area is None else "decrypted_se_hdr",
        "verified": view.verified,
        "magic_hex": MAGIC.hex(),
        "version": f"V{header.version >> 8}",
        "sehs": header.size,
        "iv_hex": fixed.iv.hex(),
        "nks": len(header.slots),
        "sea": fixed.sea,
        "nep": fixed.nep,
        "pcf_hex": _word(fixed.pcf),
        "cust_pub_key": {"coord_hex": fixed.customer_key.hex()},
        "pld_hex": fixed.pld.hex(),
        "ald_hex": fixed.ald.hex(),
        "tld_hex": fixed.tld.hex(),
        "keyslots": [
            {"phkh_hex": slot.phkh.hex(), "wrpk_hex": slot.wrpk.hex(), "kst_hex": slot.kst.hex()}
            for slot in header.slots
        ],
    }
    if area is None:
        data["cipher_data_b64"] = base64.b64encode(header.encrypted).decode()
    else:
        data["cck_hex"] = area.cck.reveal().hex()
        data["xts_hex"] = area.image_key.reveal().hex()
        data["psw"] = {"mask_hex": _word(area.psw_mask), "addr_hex": _word(area.psw_address)}
        data["scf_hex"] = _word(area.scf)
    data["tag_hex"] = header.tag.hex()
    return data


def image_json(
    image: Image, matches: Sequence[HostKeyMatch] = (), digests_match: bool | None = None
) -> dict[str, object]:
    """Return what ``pvimg info`` does not show: places, components, who built the image, and which keys open it."""
    return {
        "file_size": image.file_size,
        "image_offset": image.base,
        "header_offset": image.header_offset,
        "ipib_offset": image.ipib_offset if image.ipib else None,
        "dialect": image.dialect.value if image.dialect else None,
        "bootloader": image.stage3a.owner if image.stage3a else None,
        "stage3a_size": image.stage3a.size if image.stage3a else None,
        "stage3a_sha256": image.stage3a.sha256.hex() if image.stage3a else None,
        "missing_bytes": image.missing_bytes(),
        "components": [
            {
                "kind": part.kind.value if part.kind else None,
                "address": part.address,
                "size": part.size,
                "tweak_prefix_hex": _word(part.tweak_prefix),
            }
            for part in image.components
        ],
        "digests_match": digests_match,
        "host_keys": [
            {"source": match.source, "phkh_hex": match.phkh.hex(), "opens": match.slot is not None, "slot": match.slot}
            for match in matches
        ],
    }


def flag_lines(value: int, names: dict[PlainFlags, str] | dict[SecretFlags, str]) -> list[str]:
    """Return a line for each flag that is on in ``value``; unknown flags appear as bit numbers (0 is the leftmost)."""
    known: dict[int, str] = {int(flag): text for flag, text in names.items()}
    lines = []
    for bit in range(64):
        mask = 1 << (63 - bit)
        if value & mask:
            lines.append(f"{known.get(mask, 'unknown')} (bit {bit})")
    return lines


def info_text(
    view: HeaderView,
    image: Image,
    matches: Sequence[HostKeyMatch] = (),
    *,
    full: bool = False,
    digests_match: bool | None = None,
) -> str:
    """Return the description for people; not a stable interface. ``full`` adds digests, keys and encrypted data."""
    header, fixed, area = view.header, view.header.fixed, view.shown
    state = "decrypted and verified" if area else "verified" if view.verified else "not verified"
    lines = [f"Secure Execution header ({state})", f"  version: {header.version:#x}"]
    if full:
        lines += [f"  size: {header.size} bytes", f"  key slots: {len(header.slots)}"]
        lines.append(f"  customer public key: {base64.b64encode(fixed.customer_key).decode()}")
        lines.append(f"  component pages: {fixed.nep}")
        lines += [f"  {name}: {digest.hex()}" for name, digest in _digest_names(header)]
    lines.append("  host keys that can open it (hashes):")
    lines += [f"    {slot.phkh.hex()}" for slot in header.slots]
    lines += _flag_section("plaintext control flags", flag_lines(fixed.pcf, PLAIN_FLAG_NAMES))
    if area:
        lines += _flag_section("secret control flags", flag_lines(area.scf, SECRET_FLAG_NAMES))
    if full and area:
        lines += [
            f"  customer communication key: {area.cck.reveal().hex()}",
            f"  image key: {area.image_key.reveal().hex()}",
            f"  start PSW: mask {area.psw_mask:#018x} address {area.psw_address:#x}",
        ]
    elif full:
        lines.append(f"  encrypted data: {base64.b64encode(header.encrypted).decode()}")
    if full:
        lines.append(f"  authentication tag: {header.tag.hex()}")
    lines += _image_section(image, digests_match)
    lines += [
        f"{match.source}: {'no' if match.slot is None else f'yes, key slot {match.slot}'} ({match.phkh.hex()})"
        for match in matches
    ]
    return "\n".join(lines)


def _digest_names(header: SeHeader) -> list[tuple[str, bytes]]:
    return [
        ("page list digest", header.fixed.pld),
        ("address list digest", header.fixed.ald),
        ("tweak list digest", header.fixed.tld),
    ]


def _flag_section(title: str, lines: list[str]) -> list[str]:
    return [f"  {title}:", *(f"    - {line}" for line in lines or ["none"])]


def _image_section(image: Image, digests_match: bool | None) -> list[str]:
    if image.ipib is None:
        return ["no component list found: this is a bare header, or the rest of the image is damaged"]
    layout = f"{image.dialect.value} layout" if image.dialect else "unknown layout"
    at = f" at offset {image.base:#x}" if image.base else ""
    lines = [f"Image{at} ({layout}, bootloader: {image.stage3a or 'not found'})"]
    lines += [
        f"  {part.name:<9} {part.address:#012x} {part.size:>12} bytes {part.size // 4096:>8} pages"
        for part in image.components
    ]
    if missing := image.missing_bytes():
        lines.append(f"  cut off: {missing} bytes are missing at the end")
    if digests_match is not None:
        lines.append(f"  the components {'match' if digests_match else 'do NOT match'} the header's digests")
    return lines
