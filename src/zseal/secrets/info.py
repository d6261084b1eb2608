"""The text that describes a secret: pvsecret writes it next to a request, and retrieves by it. It holds no secret."""

from __future__ import annotations

import dataclasses
import re

from zseal.errors import FormatError
from zseal.formats.add_secret_request import SECRET_ID_SIZE, SecretType
from zseal.yamltext import read_texts

_KIND = re.compile(r"(\d{1,5})(?: \(.*\))?")


@dataclasses.dataclass(frozen=True)
class SecretInfo:
    """Name, type and ID of a secret."""

    type: SecretType
    name: str
    secret_id: bytes

    @property
    def file_name(self) -> str:
        """The name of the file: that of the secret with white space replaced by underscores."""
        return re.sub(r"\s", "_", self.name).replace("/", "_") + ".yaml"

    def text(self) -> str:
        """Return the YAML text."""
        association = self.type is SecretType.ASSOCIATION
        lines = ["!Association" if association else "!Retrievable"]
        if not association:
            lines.append(f"kind: {int(self.type)} ({self.type.text})")
        return "\n".join([*lines, f"name: {self.name}", f"id: 0x{self.secret_id.hex()}"]) + "\n"

    @classmethod
    def parse(cls, text: str) -> SecretInfo:
        """Read such a text; raises FormatError."""
        values = read_texts(text)
        name, identifier, kind = (values.get(key, "") for key in ("name", "id", "kind"))
        if not isinstance(identifier, str) or not re.fullmatch(r"0x[0-9a-fA-F]{64}", identifier):
            raise FormatError("the description of a secret has no id of 0x and 64 hexadecimal digits")
        found = SecretType.ASSOCIATION
        if kind:
            match = _KIND.fullmatch(kind) if isinstance(kind, str) else None
            try:
                found = SecretType(int(match[1])) if match else SecretType(0)
            except ValueError:
                raise FormatError(f"the description of a secret has the unknown kind {kind!r}") from None
        secret_id = bytes.fromhex(identifier[2:])
        if len(secret_id) != SECRET_ID_SIZE:
            raise FormatError(f"the id has {len(secret_id)} bytes, not {SECRET_ID_SIZE}")
        return cls(found, name if isinstance(name, str) else "", secret_id)
