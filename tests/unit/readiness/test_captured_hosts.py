"""Every captured host is judged as its description says, and what is wrong is told with a remedy."""

from __future__ import annotations

import json

import pytest

from tests.paths import DOCS, VECTORS
from zseal.readiness import CapturedHost, CheckStatus, check_host, to_json, to_text

HOSTS = VECTORS / "hosts"
EXPECTED: dict[str, dict[str, object]] = json.loads((HOSTS / "expected.json").read_text())


def test_there_are_captures_of_at_least_a_dozen_hosts_and_each_is_expected() -> None:
    directories = {path.name for path in HOSTS.iterdir() if path.is_dir()}
    assert directories == set(EXPECTED)
    assert len(directories) >= 12


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_captured_host_gets_the_verdict_it_deserves(name: str) -> None:
    report = check_host(CapturedHost(HOSTS / name))
    assert {
        "verdict": report.verdict.value,
        "fail": [r.id for r in report.results if r.status is CheckStatus.FAIL],
        "warn": [r.id for r in report.results if r.status is CheckStatus.WARN],
    } == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_failure_says_what_to_do_and_every_check_what_it_means(name: str) -> None:
    report = check_host(CapturedHost(HOSTS / name))
    for result in report.results:
        assert result.found
        assert result.meaning
        assert result.fix or result.status is not CheckStatus.FAIL


def test_a_stale_cache_is_told_from_a_host_that_is_not_ready() -> None:
    stale = check_host(CapturedHost(HOSTS / "z16-stale-cache"))
    assert stale.find("prot-virt-host").status is CheckStatus.PASS
    assert "refresh-libvirt-cache" in (stale.find("unpack").fix or "")
    unready = check_host(CapturedHost(HOSTS / "z16-no-parameter"))
    assert unready.find("capabilities-cache").status is CheckStatus.PASS


def test_a_z15_runs_guests_but_does_not_attest_them() -> None:
    report = check_host(CapturedHost(HOSTS / "z15-ready"))
    assert report.ready
    assert [report.find(i).status for i in ("attestation", "guest-dump", "guest-secrets")] == [
        CheckStatus.NOT_APPLICABLE
    ] * 3
    newer = check_host(CapturedHost(HOSTS / "z16-ready"))
    assert [newer.find(i).status for i in ("attestation", "guest-dump", "guest-secrets")] == [CheckStatus.PASS] * 3


def test_a_pc_is_told_kindly_what_it_can_do() -> None:
    text = to_text(check_host(CapturedHost(HOSTS / "x86")), verbose=False, width=200)
    assert "nothing is wrong with it" in " ".join(text.split())
    assert "zseal run" in text


def test_the_text_leaves_out_what_is_not_applicable_unless_asked() -> None:
    report = check_host(CapturedHost(HOSTS / "z15-ready"))
    assert "attestation" not in to_text(report, verbose=False, width=100)
    assert "n/a   attestation" in to_text(report, verbose=True, width=100)


def test_the_json_report_has_the_documented_fields() -> None:
    content = json.loads(to_json(check_host(CapturedHost(HOSTS / "z16-ready"))))
    assert content["version"] == 1
    assert content["verdict"] == "ready"
    assert content["host"]["architecture"] == "s390x"
    assert content["host"]["machine_type"] == "3931"
    assert set(content["counts"]) == {"pass", "warn", "fail", "not-applicable"}
    assert set(content["checks"][0]) == {"id", "title", "status", "found", "meaning", "fix", "document"}
    assert sum(content["counts"].values()) == len(content["checks"])


def test_every_check_is_described_in_the_guide() -> None:
    guide = (DOCS / "hosts.md").read_text()
    for result in check_host(CapturedHost(HOSTS / "z16-ready")).results:
        assert f"\n### {result.id}\n" in guide


def test_the_guide_shows_what_is_really_printed() -> None:
    guide = (DOCS / "hosts.md").read_text()
    shown = guide.split("$ zseal host check --root z16-stale-cache\n")[1].split("\n```")[0]
    assert shown == to_text(check_host(CapturedHost(HOSTS / "z16-stale-cache")), verbose=False, width=110)
