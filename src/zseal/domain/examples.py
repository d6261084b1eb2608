"""Each rule's example as a whole domain, for the rule pages and the tests."""

from __future__ import annotations

import re

from zseal.domain.document import Document
from zseal.domain.edits import apply, insert_child, replace_element
from zseal.domain.model import Style
from zseal.domain.rules.interface import LintRule

_BASE = """\
<domain type='kvm'>
  <name>example</name>
  <memory unit='GiB'>4</memory>
  <currentMemory unit='GiB'>4</currentMemory>
  <vcpu>2</vcpu>
  <os>
    <type arch='s390x' machine='s390-ccw-virtio'>hvm</type>
  </os>
  <cpu mode='host-model'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'{iommu}/>
      <source file='/images/a.qcow2'/>
      <target dev='vda' bus='virtio'/>
      <boot order='1'/>
    </disk>
    <memballoon model='none'/>
  </devices>{security}
</domain>
"""
_REPLACED = frozenset({"memory", "currentMemory", "vcpu", "os", "cpu", "launchSecurity", "devices", "on_crash"})
_SECTIONS = _REPLACED | {"memoryBacking", "maxMemory", "features", "pm", "clock", "sysinfo", "qemu:commandline"}


def base_domain(style: Style) -> str:
    """A minimal domain that breaks no rule but advice."""
    security = "\n  <launchSecurity type='s390-pv'/>" if style is Style.LAUNCH_SECURITY else ""
    return _BASE.format(iommu=" iommu='on'" if style is Style.IOMMU else "", security=security)


def _style(rule: LintRule) -> Style:
    """The style to show the rule's example in."""
    return rule.style or (Style.IOMMU if "iommu=" in rule.example else Style.LAUNCH_SECURITY)


def example_domain(rule: LintRule) -> str:
    """The rule's example put into a minimal domain of the style it is about; it breaks the rule."""
    fragment = rule.example
    match = re.match(r"<([\w:]+)", fragment)
    tag = match[1] if match else ""
    if tag in ("domain", "network"):
        return fragment + "\n"
    document = Document("example", base_domain(_style(rule)).encode())
    if tag == "disk" and "</driver>" not in fragment and "<driver" in fragment and "/>" not in fragment.split("\n")[1]:
        # not well-formed: can only be put in as text
        lines = "".join(f"    {line}\n" for line in fragment.split("\n"))
        return document.data.decode().replace("    <memballoon", lines + "    <memballoon")
    in_section = tag in _SECTIONS and not fragment.startswith("<memory model")
    parent = document.root if in_section else document.root.find("devices")
    old = document.root.find(tag) if in_section else document.root.find("devices", tag)
    if parent is None:
        return fragment
    replaced = old is not None and (tag in _REPLACED or tag == "memballoon")
    if tag == "disk" and old is not None and ("dev='vda'" in fragment or "order='1'" in fragment):
        replaced = True  # there is one disk of a name, and one that boots first
    if replaced and old is not None:
        change = replace_element(document, old, fragment)
    else:
        change = insert_child(document, parent, fragment)
    return apply(document.data, [change])[0].decode()
