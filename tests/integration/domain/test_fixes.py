"""A repair never makes a domain worse: what real libvirt defines before, it defines after every single repair.

Every finding of every sample is repaired alone, and the result goes to libvirt; then each rule's example is repaired as
a whole and started. What this computer lacks (KVM, launchSecurity, files) is taken out of both, never out of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.domain.test_accepted import started
from tests.unit.domain.s390x import PROBES
from tests.unit.domain.samples import SAMPLES
from tests.unit.domain.test_platform import GENERATED, PC
from zseal.domain.document import Document, NotWellFormedError
from zseal.domain.edits import apply, remove_element, set_attributes
from zseal.domain.examples import example_domain
from zseal.domain.fix import fix_bytes
from zseal.domain.launch.translate import translate
from zseal.domain.lint import LintSettings, lint_bytes
from zseal.domain.rules import RULES
from zseal.domain.rules.interface import Safety, Severity
from zseal.domain.versions import Target
from zseal.engine.qemu.process import find_program, program_version
from zseal.errors import InputError, ZsealError
from zseal.libvirt.connection import Connection

UUID = "0d6a0f4e-6a43-4c0e-9b0e-6d3f0c8f7a21"
NOT_LINTS = re.compile(r"Memory size must be specified|missing source information|spice|unexpected feature|'vhostvdpa'")
"""Objections to what lint does not judge: incomplete domains, and what this computer's libvirt lacks."""
GROUPS = ("samples", "examples", "probes")


def _texts(group: str) -> Iterator[tuple[str, bytes]]:
    if group == "samples":
        yield from ((sample.name, sample.raw) for sample in SAMPLES)
        yield "generated", GENERATED.encode()
        yield "ported", fix_bytes("x", PC, port_from="x86_64").after
    elif group == "examples":
        yield from ((rule.id, example_domain(rule).encode()) for rule in RULES.values() if rule.example)
    else:
        yield from ((f"{probe.place} {probe.fragment}", probe.domain().encode()) for probe in PROBES)


def _adapted(raw: bytes) -> str | None:
    """The domain as this computer's libvirt can define it; None if it is not XML or not a domain."""
    try:
        document = Document("x", raw)
    except (NotWellFormedError, ZsealError):
        return None
    root = document.root
    if root.tag != "domain":
        return None
    changes = [set_attributes(root, type="qemu")]
    changes += [remove_element(e) for e in root.all("launchSecurity") if e.get("type") == "s390-pv"]
    text = apply(document.data, changes)[0].decode()
    text = re.sub(r"<uuid>.*?</uuid>", "", text)
    named = f"<name>repaired</name><uuid>{UUID}</uuid>"
    return re.sub(r"<name>[^<]*</name>", named, text, count=1) if "<name>" in text else None


def _settings(connection: Connection, only: str = "") -> LintSettings:
    """Lint for this computer's libvirt and QEMU."""
    number = connection.libvirt.getVersion()
    libvirt = (number // 1_000_000, number // 1000 % 1000, number % 1000)
    qemu = program_version(find_program())
    assert qemu is not None
    select = frozenset({only}) if only else frozenset[str]()
    return LintSettings(target=Target(libvirt, (*qemu, 0)), select=select, local_files=False, schema=False)


def _defines(connection: Connection, text: str) -> str:
    """Let libvirt define the domain; return its objection, empty if there is none."""
    try:
        domain = connection.handle.defineXML(text)  # type: ignore[attr-defined]
    except connection.libvirt.libvirtError as error:
        return str(error)
    domain.undefineFlags(connection.libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
    return ""


@pytest.mark.parametrize("group", GROUPS)
def test_what_libvirt_defines_it_defines_after_every_single_repair(group: str, connection: Connection) -> None:
    worse, repairs = [], 0
    for name, raw in _texts(group):
        before = _adapted(raw)
        if before is None or _defines(connection, before):
            continue
        findings = lint_bytes("x", raw, _settings(connection)).findings
        for rule_id in dict.fromkeys(finding.rule.id for finding in findings if finding.fixable):
            after = _adapted(fix_bytes("x", raw, _settings(connection, rule_id), unsafe=True).after)
            assert after is not None
            repairs += 1
            objection = _defines(connection, after)
            if objection:
                worse.append((name, rule_id, objection))
    assert not worse, "\n".join(map(str, worse))
    assert repairs > 50


@pytest.mark.parametrize("group", GROUPS)
def test_libvirt_defines_what_all_repairs_together_leave(group: str, connection: Connection) -> None:
    """Domains in which nothing is left to find are accepted, unless libvirt's reason is this computer."""
    refused, repaired, settings = [], 0, _settings(connection)
    for name, raw in _texts(group):
        try:
            after = fix_bytes("x", raw, settings, unsafe=True).after
        except InputError:
            continue  # XML that only a person can repair
        text = _adapted(after)
        errors = [f for f in lint_bytes("x", after, settings).findings if f.severity is Severity.ERROR]
        if text is None or errors or any(p.note.startswith("not here") and p.fragment in name for p in PROBES):
            continue
        repaired += 1
        objection = _defines(connection, text)
        if objection and not NOT_LINTS.search(objection):
            refused.append((name, objection))
    assert not refused, "\n".join(map(str, refused))
    assert repaired > 50


# passed-through devices and virtiofsd are not on every computer, nor is the memory that PV308 is about
NOT_HERE = re.compile(r"hostdev|virtiofs|>256</memory>")
STARTED = [
    rule
    for rule in RULES.values()
    if rule.example and rule.safety is not Safety.NONE and not NOT_HERE.search(rule.example)
]


@pytest.mark.qemu
@pytest.mark.parametrize("part", range(6))
def test_a_repaired_example_starts(part: int, connection: Connection, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(0x20000))
    settings = _settings(connection)
    started_rules = []
    for rule in STARTED[part::6]:
        fixed = fix_bytes("x", example_domain(rule).encode(), settings, unsafe=True).after
        errors = [f for f in lint_bytes("x", fixed, settings).findings if f.severity is Severity.ERROR]
        if errors or b"<memory" not in fixed or b"<disk" not in fixed:
            continue  # what is left is for a person, or the example is no whole domain
        text = _at_home(fixed, tmp_path).replace(b"<name>example<", f"<name>{rule.id}<".encode())
        document = translate(Document(rule.id, text), image=image, user_network=True).document
        assert started(connection, document)
        started_rules.append(rule.id)
    assert len(started_rules) > 5


@pytest.mark.qemu
def test_a_ported_domain_starts(connection: Connection, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(0x20000))
    ported = fix_bytes("x", PC, _settings(connection), port_from="x86_64").after
    text = _at_home(ported, tmp_path).replace(b" id='3'", b"")
    document = translate(Document("ported", text), image=image, user_network=True).document
    assert started(connection, document)


def _at_home(raw: bytes, folder: Path) -> bytes:
    """The domain with little memory, and with files of this computer."""

    def here(match: re.Match[bytes]) -> bytes:
        path = folder if match[1] == b"dir" else folder / f"{match[2].decode()}.img"
        if match[1] != b"dir":
            path.write_bytes(bytes(1 << 20))
        return match[1] + b"='" + str(path).encode() + b"'"

    raw = re.sub(rb"(file|dir)='/(?:images|srv)/(\w+)[^']*'", here, raw)
    raw = re.sub(rb"<(m|currentM)emory[^>]*>\d+<", rb"<\1emory unit='MiB'>128<", raw)
    return raw.replace(b"qcow2", b"raw").replace(b"<locked/>", b"")
