"""Export a domain for another program: QEMU, virt-install, KubeVirt, Kata Containers."""

from __future__ import annotations

from zseal.domain.document import Document, DomainSource, load_document
from zseal.domain.export.interface import Exported, Exporter
from zseal.domain.export.kata import KataExporter
from zseal.domain.export.kubevirt import KubeVirtExporter
from zseal.domain.export.qemu import QemuExporter
from zseal.domain.export.virt_install import VirtInstallExporter
from zseal.domain.lint import LintSettings, lint_document
from zseal.domain.model import Domain
from zseal.domain.rules.interface import Severity
from zseal.errors import InputError

EXPORTERS: dict[str, type[Exporter]] = {
    "qemu": QemuExporter,
    "virt-install": VirtInstallExporter,
    "kubevirt": KubeVirtExporter,
    "kata": KataExporter,
}


def export_domain(source: DomainSource, to: str) -> Exported:
    """Export the domain XML in ``source``, a path or the content, as :func:`export_document` does."""
    return export_document(load_document(source), to)


def export_document(document: Document, to: str) -> Exported:
    """Export the domain for the program ``to``, a key of EXPORTERS.

    Raises InputError if lint finds errors in the domain (other programs would only hide them), and if the other program
    cannot start such a guest.
    """
    report = lint_document(document, LintSettings(schema=False, local_files=False))
    first = next((finding for finding in report.findings if finding.severity is Severity.ERROR), None)
    if first is not None:
        where = f"{document.name}:{first.position.line}:{first.position.column}"
        hint = "`fix_domain()` repairs it" if first.fixable else first.rule.remedy
        raise InputError(f"{first.rule.id}: {first.message}", where=where, hint=hint)
    return EXPORTERS[to]().export(Domain(document))


__all__ = ["EXPORTERS", "Exported", "Exporter", "export_document", "export_domain"]
