"""Certificates, revocation lists and keys. Of private keys and secrets only the kind is shown, never the content."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from zseal.errors import FormatError, ZsealError
from zseal.formats.key_hashes import MAX_SIZE, parse_key_hashes
from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value

if TYPE_CHECKING:
    from zseal.hostkeys.certificates import Certificate, Crl
    from zseal.hostkeys.loading import Objects

_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 .]{1,40})-----")
_MAX_LABELS = 1000
_PUBLIC = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CRL")
_RETRIEVED = {"IBM PROTECTED KEY": "protected key", "PLAINTEXT SECRET": "plaintext secret"}
# raw key files of s390-tools, recognised by their size, because they have no other mark
_RAW_KEYS = {
    32: "32 random-looking bytes: perhaps a customer communication key, a header key or an attestation protection key",
    64: "64 random-looking bytes: perhaps an image key",
}
_KINDS = {
    "host-key document": "host-key-document",
    "signing key": "signing-key-certificate",
    "intermediate CA": "ca-certificate",
    "root CA": "ca-certificate",
    "certificate": "certificate",
    "CRL": "crl",
}


def exposure(mode: int) -> tuple[str, ...]:
    """Return a problem if a secret file with permission bits ``mode`` is open to others."""
    return (f"others may read it (mode {mode:04o}): chmod 600",) if mode & 0o077 else ()


def _labels(data: bytes) -> list[str]:
    found = []
    for match in _LABEL.finditer(data):
        found.append(match[1].decode())
        if len(found) == _MAX_LABELS:
            break
    return found


class Secrets(Recogniser):
    """Private keys, and secrets that pvsecret retrieved."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check the PEM labels, or try the content as a DER key."""
        labels = _labels(sample.head)
        if retrieved := next((label for label in labels if label in _RETRIEVED), None):
            return Description(
                "retrieved-secret",
                f"{_RETRIEVED[retrieved]} retrieved from the ultravisor; its content is not shown",
                {"size": sample.size},
                exposure(sample.mode),
            )
        keys = [label for label in labels if label.endswith("PRIVATE KEY")]
        if keys and not any(label in _PUBLIC for label in labels):
            return self._key(
                sample, encrypted="ENCRYPTED PRIVATE KEY" in keys or b"Proc-Type: 4,ENCRYPTED" in sample.head
            )
        if not labels and sample.head.startswith(b"\x30") and sample.size < (64 << 10):
            return self._key(sample, encrypted=False, certain=False)
        return None

    @staticmethod
    def _key(sample: Sample, *, encrypted: bool, certain: bool = True) -> Description | None:
        fields: dict[str, Value] = {"size": sample.size, "encrypted": encrypted}
        title = "private key; it is not shown"
        steps: tuple[str, ...] = ()
        problems = exposure(sample.mode)
        if not encrypted:
            from zseal.crypto.keyexchange import key_hash
            from zseal.hostkeys.keyfile import load_private_key

            try:
                key = load_private_key(sample.path)
            except ZsealError as error:
                if not certain and error.message.startswith("not a private key"):
                    return None
                fields["key"] = error.message
            else:
                title = "private key on P-521, such as a host key of a software machine; it is not shown"
                fields["host_key_hash"] = key_hash(key.public_key()).hex()
                steps = (sample.command("zseal machine create DIR --host-key {file}"),)
        return Description("private-key", title, fields, problems, steps)


class Certificates(Recogniser):
    """Host-key documents, the certificates of their chain, and revocation lists."""

    def recognise(self, sample: Sample) -> Description | None:
        """Parse everything in the file, PEM or DER."""
        pem = any(label in _PUBLIC for label in _labels(sample.head))
        if not pem and not sample.head.startswith(b"\x30"):
            return None
        data = sample.whole
        if data is None:
            return None
        # imported late: it brings cryptography
        from zseal.hostkeys.loading import parse_objects

        try:
            objects = parse_objects(data, str(sample.path))
        except ZsealError as error:
            if not pem:
                return None
            return Description("certificate", "certificate or list, damaged", {"size": sample.size}, (error.message,))
        if not objects.certificates and not objects.crls:
            return None
        return self._describe(sample, objects)

    @staticmethod
    def _describe(sample: Sample, objects: Objects) -> Description:
        from zseal.hostkeys.describe import State, describe, role_of, validity_of

        items: list[Certificate | Crl] = [*objects.certificates, *objects.crls]
        first = items[0]
        facts = describe(first)
        role = role_of(first)
        software = ", of a software machine" if facts.get("software") else ""
        fields: dict[str, Value] = {
            name: value
            for name, value in facts.items()
            if name not in ("kind", "source") and isinstance(value, str | int | bool)
        }
        if len(items) > 1:
            fields["objects"] = tuple(f"{role_of(item).value}: {item.label}" for item in items)
        state = validity_of(first, days=0, now=datetime.now(UTC)).state
        fields["state"] = state.value
        problems = [] if state in (State.VALID, State.EXPIRING) else [f"it is {state.value}"]
        if any(label.endswith("PRIVATE KEY") for label in _labels(sample.head)):
            problems += ["it also contains a private key", *exposure(sample.mode)]
        steps = {
            "host-key document": (
                "zseal hostkey verify -k {file} -C SIGNING-KEY",
                "zseal image create -k {file} -C SIGNING-KEY -i KERNEL -o IMAGE",
                "zseal image test IMAGE -k {file}",
            ),
            "signing key": ("zseal hostkey verify -k DOCUMENT -C {file}",),
            "root CA": ("zseal hostkey verify -k DOCUMENT -C SIGNING-KEY --root-ca {file}",),
            "CRL": ("zseal hostkey verify -k DOCUMENT -C SIGNING-KEY --crl {file}",),
        }.get(role.value, ("zseal hostkey show {file}",))
        article = {"host-key document": "host-key document", "CRL": "certificate revocation list"}.get(
            role.value, f"certificate: {role.value}" if role.value != "certificate" else "certificate"
        )
        return Description(
            _KINDS[role.value], f"{article}{software}", fields, tuple(problems), tuple(map(sample.command, steps))
        )


class RawKey(Recogniser):
    """A file of random-looking bytes that has the size of a key."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check the size, and that the bytes are not text."""
        title = _RAW_KEYS.get(sample.size)
        data = sample.head
        if title is None or all(32 <= byte < 127 or byte in b"\t\r\n" for byte in data) or len(set(data)) < 16:
            return None
        return Description("raw-key", f"{title}; they are not shown", {"size": sample.size}, exposure(sample.mode))


class KeyHashes(Recogniser):
    """The content of /sys/firmware/uv/keys/all."""

    def recognise(self, sample: Sample) -> Description | None:
        """Read it as Linux writes it."""
        if sample.size > MAX_SIZE:
            return None
        try:
            listed = parse_key_hashes(sample.head.decode("ascii", "replace"), str(sample.path))
        except FormatError:
            return None
        hashes = {item.line: item.phkh.hex() for item in listed}
        return Description(
            "key-hashes",
            "hashes of a host's keys, as /sys/firmware/uv/keys/all shows them",
            {
                "host_key": hashes.get(1),
                "backup_host_key": hashes.get(2),
                "others": tuple(value for line, value in hashes.items() if line > 2),
            },
            (),
            (sample.command("zseal image test --key-hashes={file} IMAGE"),),
        )


RECOGNISERS: tuple[Recogniser, ...] = (Secrets(), Certificates(), KeyHashes(), RawKey())
