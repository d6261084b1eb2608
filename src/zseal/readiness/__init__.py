"""Checks whether a host is ready for protected guests: facts of a live host or a capture, checks, and a report.

Example::

    from pathlib import Path
    from zseal.readiness import CapturedHost, check_host

    report = check_host(CapturedHost(Path("capture")))
    print(report.ready, [result.id for result in report.results if result.status == "fail"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.readiness.capabilities_cache import (
        RefreshPlan,
        Systemd,
        plan_session_refresh,
        plan_system_refresh,
        refresh,
    )
    from zseal.readiness.capture import capture_host
    from zseal.readiness.checks import CheckStatus
    from zseal.readiness.facts import HostFacts, gather
    from zseal.readiness.report import CheckResult, HostReport, Verdict, check_host, to_json, to_text
    from zseal.readiness.source import CapturedHost, HostSource, LiveHost
    from zseal.readiness.uv_info import HostInfo, read_host_info

__all__ = [
    "CapturedHost",
    "CheckResult",
    "CheckStatus",
    "HostFacts",
    "HostInfo",
    "HostReport",
    "HostSource",
    "LiveHost",
    "RefreshPlan",
    "Systemd",
    "Verdict",
    "capture_host",
    "check_host",
    "gather",
    "plan_session_refresh",
    "plan_system_refresh",
    "read_host_info",
    "refresh",
    "to_json",
    "to_text",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        capabilities_cache=("RefreshPlan", "Systemd", "plan_session_refresh", "plan_system_refresh", "refresh"),
        capture=("capture_host",),
        checks=("CheckStatus",),
        facts=("HostFacts", "gather"),
        report=("CheckResult", "HostReport", "Verdict", "check_host", "to_json", "to_text"),
        source=("CapturedHost", "HostSource", "LiveHost"),
        uv_info=("HostInfo", "read_host_info"),
    )
