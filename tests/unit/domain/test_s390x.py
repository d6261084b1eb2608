"""Lint says of each element what real libvirt and QEMU say: an error for what they refuse, none for what they start."""

from __future__ import annotations

import pytest

from zseal.domain import s390x
from zseal.domain.lint import LintSettings, lint_bytes
from zseal.domain.rules.interface import Severity
from zseal.domain.versions import Target

from .s390x import PROBES, RELEASES, Probe

KINDS = sorted({probe.place for probe in PROBES})


def _errors(probe: Probe, libvirt: tuple[int, ...], qemu: tuple[int, ...]) -> list[str]:
    settings = LintSettings(target=Target(libvirt, qemu), schema=False, local_files=False)
    findings = lint_bytes("probe", probe.domain().encode(), settings).findings
    return [finding.rule.id for finding in findings if finding.severity is Severity.ERROR]


@pytest.mark.parametrize("release", RELEASES, ids=["libvirt 9.0, QEMU 7.2", "libvirt 11.3, QEMU 10.0"])
@pytest.mark.parametrize("place", KINDS)
def test_an_element_is_an_error_if_and_only_if_it_is_refused(
    place: str, release: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    wrong = []
    for probe in PROBES:
        starts = probe.starts[RELEASES.index(release)]
        if probe.place == place and starts is not None and not probe.note:
            errors = _errors(probe, *release)
            if starts is bool(errors):
                wrong.append((probe.fragment, "starts" if starts else "refused", errors))
    assert wrong == []


@pytest.mark.parametrize("probe", [p for p in PROBES if p.note], ids=lambda probe: probe.fragment[:60])
def test_the_exceptions_are_exceptions(probe: Probe) -> None:
    answers = [(starts, bool(_errors(probe, *release))) for starts, release in zip(probe.starts, RELEASES, strict=True)]
    if probe.note.startswith("but: "):
        assert (True, True) in answers
    else:
        assert probe.note.startswith("not here: ")
        assert (False, False) in answers


def test_most_of_what_was_asked_is_judged_as_it_was_answered() -> None:
    assert len(PROBES) >= 680
    refused = [probe for probe in PROBES if probe.starts[1] is False]
    assert len(refused) >= 280
    assert len([probe for probe in refused if not probe.note]) >= 0.9 * len(refused)


def test_every_name_of_the_table_was_asked() -> None:
    """A name that libvirt was not asked about is a guess."""
    text = "\n".join(probe.fragment for probe in PROBES)
    missing = []
    for setting, value in vars(s390x).items():
        if isinstance(value, s390x.Names):
            missing += [(setting, n) for n in value.has | (value.others or frozenset()) if n not in text]
    missing += [("FEATURES", n) for n in s390x.FEATURES if f"<{n}" not in text]
    missing += [("KVM_FEATURES", n) for n in s390x.KVM_FEATURES if f"<{n}" not in text]
    missing += [("TIMERS", n) for n in s390x.TIMERS if f"'{n}'" not in text]
    missing += [("ABSENT", n) for n in s390x.ABSENT if f"<{n}" not in text]
    assert missing == []


@pytest.mark.parametrize(
    ("machine", "release"),
    [
        ("s390-ccw-virtio-10.0", (10, 0)), ("s390-ccw-virtio-2.4", (2, 4)), ("s390-ccw-virtio-2.12", (2, 12)),
        ("s390-ccw-virtio-3.1", (3, 1)), ("s390-ccw-virtio-99.2", (99, 2)), ("s390-ccw-virtio-2.3", None),
        ("s390-ccw-virtio-2.13", None), ("s390-ccw-virtio-3.2", None), ("s390-ccw-virtio-9.3", None),
        ("s390-ccw-virtio", None), ("s390-ccw-virtio-", None), ("s390-ccw-virtio-noble", None), ("", None),
        ("s390-ccw-virtio-10.0\n", None), ("s390-ccw-virtio-1000000.0", None),
    ],
)  # fmt: skip
def test_the_release_in_the_name_of_a_machine(machine: str, release: tuple[int, int] | None) -> None:
    assert s390x.machine_release(machine) == release


@pytest.mark.parametrize(
    ("machine", "target", "found"),
    [
        ("s390-ccw-virtio", "", ""),
        ("s390-ccw-virtio-10.0", "", ""),
        ("s390-ccw-virtio-10.0", "7.2.0", "error PV009"),
        ("s390-ccw-virtio-7.2", "7.2.0", ""),
        ("s390-ccw-virtio-2.4", "10.0.0", "error PV009"),
        ("s390-ccw-virtio-rhel9.6.0", "", "advice PV009"),
        ("s390-ccw-virtio-noble", "7.2.0", "advice PV009"),
        ("s390-ccw-virtio-jammy-v2", "", "advice PV009"),
        ("s390-ccw-virtio-9.9", "", "error PV006"),
        ("s390-ccw-virtiox", "", "error PV006"),
        ("s390-ccw", "", "error PV006"),
        ("pc-q35-9.0", "", "error PV006"),
    ],
)
def test_machine_types_of_releases_and_distributions(machine: str, target: str, found: str) -> None:
    qemu = tuple(map(int, target.split("."))) if target else None
    text = Probe("machine", machine, (None, None), "").domain()
    settings = LintSettings(target=Target(qemu=qemu), schema=False, local_files=False)
    findings = lint_bytes("x", text.encode(), settings).findings
    about = [f"{f.severity.value} {f.rule.id}" for f in findings if f.rule.id in ("PV006", "PV009")]
    assert about == ([found] if found else [])
