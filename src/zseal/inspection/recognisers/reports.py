"""Reports and descriptions in JSON."""

from __future__ import annotations

import dataclasses
import json

from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value

_MAX_JSON = 1 << 20


@dataclasses.dataclass(frozen=True)
class _JsonKind:
    """JSON that zseal or pvimg writes: recognised by ``keys`` that it always has, described by its values ``shown``."""

    kind: str
    title: str
    keys: tuple[str, ...]
    shown: tuple[str, ...] = ()


# the first match counts
_JSON_KINDS = (
    _JsonKind("machine-description", "description of a software machine", ("format", "kind", "name", "created")),
    _JsonKind("image-information", "output of image info, as in pvimg's JSON schema", ("meta", "data")),
    _JsonKind(
        "image-comparison",
        "output of zseal image diff",
        ("same", "rebuilt", "opened", "differences"),
        ("same", "rebuilt"),
    ),
    _JsonKind("host-key-report", "output of zseal hostkey verify", ("accepted", "documents"), ("accepted",)),
    _JsonKind(
        "run-report",
        "report of a guest that zseal ran",
        ("format", "image", "machine", "result", "ultravisor"),
        ("image", "machine", "protected", "boots", "result.outcome", "result.exit_code", "result.message"),
    ),
    _JsonKind(
        "demo-report",
        "report of zseal demo",
        ("booted", "prot_virt_guest", "marker_in_host_view"),
        ("booted", "prot_virt_guest", "marker_in_guest", "marker_in_host_view", "marker_after_share", "kernel"),
    ),
    _JsonKind("host-report", "report of zseal host check", ("version", "verdict", "checks"), ("verdict",)),
    _JsonKind("lint-report", "output of zseal domain lint", ("version", "files", "counts", "failed"), ("failed",)),
    _JsonKind("explanations", "output of zseal explain", ("version", "explanations")),
    _JsonKind("descriptions", "output of zseal inspect", ("version", "files")),
    _JsonKind("description", "description of something that zseal keeps in this directory", ("format",)),
)


def _json_value(content: dict[str, object], path: str) -> Value:
    """Return the value at ``path``, keys joined by dots; None if there is no simple value."""
    value: object = content
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str | int | bool) else None


class JsonText(Recogniser):
    """JSON that zseal or pvimg wrote, recognised by its keys."""

    def recognise(self, sample: Sample) -> Description | None:
        """Parse it, within limits."""
        if sample.head.lstrip()[:1] != b"{" or sample.size > _MAX_JSON:
            return None
        try:
            content = json.loads(sample.whole or b"")
        except (ValueError, RecursionError):
            return None
        if not isinstance(content, dict):
            return None
        for known in _JSON_KINDS:
            if content.keys() >= set(known.keys):
                fields: dict[str, Value] = {"size": sample.size}
                fields |= {path.rpartition(".")[2]: _json_value(content, path) for path in known.shown}
                return Description(known.kind, known.title, fields)
        return Description("json", "JSON document", {"size": sample.size, "keys": tuple(map(str, list(content)[:20]))})


RECOGNISERS: tuple[Recogniser, ...] = (JsonText(),)
