"""libvirt domains of protected guests: check, repair, convert, create and export their XML.

Every function takes the path of an XML file or its content as bytes, and changes no file. The names below are the
interface; they are imported when first used. Example::

    from zseal.domain import Severity, fix_domain, lint_domain

    report = lint_domain("guest.xml")
    print([finding.message for finding in report.findings if finding.severity is Severity.ERROR])
    repaired = fix_domain("guest.xml").after
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.domain.convert import Converted, convert_domain
    from zseal.domain.create import NewDisk, NewDomain, create_domain
    from zseal.domain.explain import explain_rule
    from zseal.domain.export import Exported, export_domain
    from zseal.domain.facts import TargetHost, from_host
    from zseal.domain.fix import FixResult, fix_domain
    from zseal.domain.guest import GuestInputs, read_guest_inputs
    from zseal.domain.lint import LintFinding, LintReport, LintSettings, lint_domain
    from zseal.domain.model import Style
    from zseal.domain.rules import RULES
    from zseal.domain.rules.interface import LintRule, Safety, Severity
    from zseal.domain.versions import Target

__all__ = [
    "RULES",
    "Converted",
    "Exported",
    "FixResult",
    "GuestInputs",
    "LintFinding",
    "LintReport",
    "LintRule",
    "LintSettings",
    "NewDisk",
    "NewDomain",
    "Safety",
    "Severity",
    "Style",
    "Target",
    "TargetHost",
    "convert_domain",
    "create_domain",
    "explain_rule",
    "export_domain",
    "fix_domain",
    "from_host",
    "lint_domain",
    "read_guest_inputs",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        convert=("Converted", "convert_domain"),
        create=("NewDisk", "NewDomain", "create_domain"),
        explain=("explain_rule",),
        export=("Exported", "export_domain"),
        facts=("TargetHost", "from_host"),
        fix=("FixResult", "fix_domain"),
        guest=("GuestInputs", "read_guest_inputs"),
        lint=("LintFinding", "LintReport", "LintSettings", "lint_domain"),
        model=("Style",),
        rules=("RULES",),
        versions=("Target",),
        **{"rules.interface": ("LintRule", "Safety", "Severity")},
    )
