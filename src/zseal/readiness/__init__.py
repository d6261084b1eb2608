"""Is this host ready to run protected guests? Facts from a live host or a captured tree, checks, and a report.

Example::

    from pathlib import Path
    from zseal.readiness import CapturedHost, check_host

    report = check_host(CapturedHost(Path("capture")))
    print(report.ready, [result.id for result in report.results if result.status == "fail"])
"""

from zseal.readiness.checks import CheckStatus
from zseal.readiness.facts import HostFacts, gather
from zseal.readiness.report import CheckResult, HostReport, Verdict, check_host, to_json, to_text
from zseal.readiness.source import CapturedHost, HostSource, LiveHost

__all__ = [
    "CapturedHost",
    "CheckResult",
    "CheckStatus",
    "HostFacts",
    "HostReport",
    "HostSource",
    "LiveHost",
    "Verdict",
    "check_host",
    "gather",
    "to_json",
    "to_text",
]
