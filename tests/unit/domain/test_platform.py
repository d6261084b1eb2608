"""Domains that come from PCs: what s390x does not have is an error, and the repair leaves what it has."""

from __future__ import annotations

import pytest

from zseal.domain.document import Document
from zseal.domain.examples import base_domain
from zseal.domain.fix import fix_bytes
from zseal.domain.lint import LintFinding, LintSettings, lint_bytes
from zseal.domain.model import Style
from zseal.domain.rules.interface import Severity
from zseal.domain.versions import Target
from zseal.errors import InputError, UsageError

from .samples import read

SCLP = "<console type='pty'><target type='sclp'/></console>"
SETTINGS = LintSettings(local_files=False, schema=False)


def _with(section: str, *, style: Style = Style.LAUNCH_SECURITY, devices: str = "") -> bytes:
    """The base domain with more elements before and in its devices."""
    text = base_domain(style).replace("  <devices>\n", f"  {section}\n  <devices>\n{devices}")
    return text.encode()


def _serious(raw: bytes, target: Target = Target()) -> list[LintFinding]:  # noqa: B008 - frozen
    settings = LintSettings(target=target, local_files=False, schema=False)
    return [f for f in lint_bytes("x", raw, settings).findings if f.severity is not Severity.ADVICE]


def _ids(raw: bytes, target: Target = Target()) -> list[str]:  # noqa: B008 - frozen
    return [finding.rule.id for finding in _serious(raw, target)]


@pytest.mark.parametrize(
    ("libvirt", "severity"),
    [
        (None, Severity.ERROR),
        ((9, 2, 0), Severity.ERROR),
        ((11, 3, 0), Severity.ERROR),
        ((9, 1, 0), Severity.WARNING),
        ((8, 0, 0), Severity.WARNING),
    ],
)
@pytest.mark.parametrize("style", [Style.LAUNCH_SECURITY, Style.IOMMU])
def test_acpi_is_an_error_from_libvirt_9_2_on_and_pae_and_apic_are_none(
    libvirt: tuple[int, ...] | None, severity: Severity, style: Style
) -> None:
    raw = _with("<features>\n    <pae/>\n    <acpi/>\n    <apic/>\n  </features>", style=style)
    (finding,) = _serious(raw, Target(libvirt=libvirt))
    assert (finding.rule.id, finding.severity) == ("PV008", severity)
    fixed = fix_bytes("x", raw, SETTINGS).after
    assert b"acpi" not in fixed
    assert b"<pae/>" in fixed
    assert b"<apic/>" in fixed
    assert _ids(fixed) == []


@pytest.mark.parametrize("enabled", ["yes", "no"])
def test_the_repair_of_suspend_settings_removes_them_whatever_their_value(enabled: str) -> None:
    """libvirt refuses the element with either value, so writing another value repairs nothing."""
    raw = _with(f"<pm>\n    <suspend-to-mem enabled='{enabled}'/>\n    <suspend-to-disk enabled='{enabled}'/>\n  </pm>")
    assert _ids(raw) == ["PV705"]
    fixed = fix_bytes("x", raw, SETTINGS).after
    assert b"<pm" not in fixed
    assert _ids(fixed) == []
    assert _ids(_with("<pm/>")) == []


@pytest.mark.parametrize(
    "loader",
    [
        "<loader type='rom'>/usr/share/qemu/s390-ccw.img</loader>",
        "<loader>/usr/share/qemu-kvm/s390-ccw.img</loader>",
        "<loader type='rom' readonly='yes' secure='no'>/usr/share/qemu/s390-netboot.img</loader>",
    ],
)
def test_the_firmware_of_s390x_by_name_is_no_uefi(loader: str) -> None:
    raw = base_domain(Style.LAUNCH_SECURITY).replace("</type>", f"</type>\n    {loader}").encode()
    assert _ids(raw) == []
    assert b"<loader" in fix_bytes("x", raw, SETTINGS, unsafe=True).after


@pytest.mark.parametrize(
    "loader",
    [
        "<loader readonly='yes' type='pflash'>/usr/share/qemu/s390-ccw.img</loader>",
        "<loader type='rom'>/usr/share/ovmf/OVMF.fd</loader>",
        "<loader secure='yes' type='rom'>/usr/share/qemu/s390-ccw.img</loader>",
        "<loader type='rom'>/usr/share/qemu/s390-ccw.img.d/OVMF.fd</loader>",
    ],
)
def test_other_firmware_is_an_error(loader: str) -> None:
    raw = base_domain(Style.LAUNCH_SECURITY).replace("</type>", f"</type>\n    {loader}").encode()
    assert _ids(raw) == ["PV503"]
    assert b"<loader" not in fix_bytes("x", raw, SETTINGS).after


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        (f"{SCLP}{SCLP}", True),
        ("<serial type='pty'/><console type='pty'><target type='sclp'/></console>", True),
        ("<console type='pty'/><console type='pty'><target type='sclp'/></console>", True),
        ("<serial type='pty'/><console type='pty'/>", False),
        ("<serial type='pty'/><console type='pty'><target type='serial'/></console>", False),
        ("<serial type='pty'/><console type='pty'><target type='virtio'/></console>", False),
        (f"{SCLP}<console type='pty'><target type='sclplm'/></console>", False),
        ("<serial type='pty'/><serial type='pty'/>", True),
    ],
)  # fmt: skip
def test_a_guest_has_one_operator_console_of_each_kind(devices: str, found: bool) -> None:
    raw = _with("", devices=devices)
    assert _ids(raw) == (["PV623"] if found else [])
    assert _ids(fix_bytes("x", raw, SETTINGS, unsafe=True).after) == []


def test_a_second_console_becomes_a_virtio_one() -> None:
    raw = _with("", devices=SCLP * 2)
    fixed = fix_bytes("x", raw, SETTINGS, unsafe=True)
    assert fixed.repaired == ("PV623 a guest has one SCLP console, and this is the second: now type='virtio'",)
    assert b"<target type='virtio'/>" in fixed.after


@pytest.mark.parametrize(
    ("device", "rule", "left"),
    [
        ("<watchdog model='i6300esb' action='dump'/>", "PV618", "<watchdog model='diag288'"),
        ("<controller type='scsi' index='0' model='lsilogic'/>", "PV619", "model='virtio-scsi'"),
        ("<interface type='user'><model type='rtl8139'/></interface>", "PV621", "<model type='virtio'/>"),
        ("<video><model type='qxl' ram='65536' vgamem='16384'/></video>", "PV616", "<model type='virtio'/>"),
        ("<panic model='hyperv'/>", "PV625", "<panic model='s390'/>"),
        ("<panic><address type='isa' iobase='0x505'/></panic>", "PV625", "<panic model='s390'/>"),
        ("<serial type='pty'><target type='pci-serial' port='0'/></serial>", "PV622", "type='sclp-serial'"),
        ("<disk device='cdrom'><target dev='vdc' bus='virtio'/></disk>", "PV624", "<target dev='sda' bus='scsi'/>"),
        ("<disk device='lun' type='block'><driver name='qemu' iommu='on' queues='2'/><target dev='vdc' bus='virtio'/>"
         "</disk>", "PV624", "<driver name='qemu'/><target dev='sda' bus='scsi'/>"),
        ("<disk type='file'><target dev='sda' bus='sata'/><address type='drive'/></disk>", "PV607",
         "<target dev='vdb' bus='virtio'/>"),
        ("<input type='tablet' bus='usb'><address type='usb' bus='0' port='1'/></input>", "PV607",
         "<input type='tablet' bus='virtio'>"),
        ("<disk device='cdrom'><target dev='hdc' bus='ide'/></disk>", "PV608", "<target dev='sda' bus='scsi'/>"),
        ("<controller type='pci' index='0' model='pcie-root'/><vsock model='virtio'><cid auto='yes'/>"
         "<address type='pci' bus='0x05'/></vsock>", "PV620", "<vsock model='virtio'><cid auto='yes'/></vsock>"),
    ],
)  # fmt: skip
def test_a_device_of_a_pc_becomes_what_s390x_has(device: str, rule: str, left: str) -> None:
    raw = _with("", devices=device)
    findings = {finding.rule.id: finding for finding in _serious(raw)}
    assert rule in findings
    assert findings[rule].becomes
    fixed = fix_bytes("x", raw, SETTINGS, unsafe=True)
    assert any(line.startswith(rule) and line.endswith(findings[rule].becomes) for line in fixed.repaired)
    text = fixed.after.decode()
    # the safe repairs keep the screen, and the unsafe ones remove it because the host sees it
    assert left in text or (rule == "PV616" and "<video" not in text)
    assert rule not in _ids(fixed.after)


@pytest.mark.parametrize(
    "section",
    [
        "<memoryBacking><locked/></memoryBacking>",
        "<memoryBacking><source type='memfd'/></memoryBacking>",
        "<memoryBacking><access mode='private'/></memoryBacking>",
        "<memoryBacking><source type='file'/><access mode='private'/></memoryBacking>",
        "",
    ],
)
def test_virtiofs_gets_the_shared_memory_it_needs(section: str) -> None:
    share = "<filesystem type='mount'><driver type='virtiofs'/><source dir='/a'/><target dir='b'/></filesystem>"
    raw = _with(section, devices=share)
    assert "PV310" in _ids(raw)
    fixed = fix_bytes("x", raw, SETTINGS).after
    assert _ids(fixed) == ["PV606"]
    backing = Document("x", fixed).root.find("memoryBacking")
    assert backing is not None
    (access,), (source,) = list(backing.all("access")), list(backing.all("source"))
    assert access.get("mode") == "shared"
    assert source.get("type") == ("file" if "'file'" in section else "memfd")


def test_a_bare_usb_controller_is_nothing_to_say() -> None:
    assert _ids(_with("", devices="<controller type='usb' index='0'/>")) == []
    assert _ids(_with("", devices="<controller type='usb' index='0' model='none'/>")) == []


def test_a_tsc_frequency_is_a_setting_of_x86() -> None:
    assert _ids(_with("<clock offset='utc'><timer name='tsc' frequency='1000000000'/></clock>")) == ["PV010"]
    assert _ids(_with("<clock offset='utc'><timer name='tsc' present='no'/></clock>")) == []


def test_features_of_a_newer_qemu_than_the_list_are_only_a_warning() -> None:
    text = base_domain(Style.LAUNCH_SECURITY)
    cpu = "<cpu mode='host-model'>\n    <feature policy='require' name='newone'/>\n  </cpu>"
    raw = text.replace("<cpu mode='host-model'/>", cpu).encode()
    for qemu, severity in (((10, 0, 0), Severity.ERROR), (None, Severity.ERROR), ((11, 0, 0), Severity.WARNING)):
        (finding,) = _serious(raw, Target(qemu=qemu))
        assert (finding.rule.id, finding.severity) == ("PV408", severity)


GENERATED = """\
<domain type='kvm'>
  <name>generated</name>
  <memory unit='MiB'>3072</memory>
  <os>
    <type arch='s390x' machine='s390-ccw-virtio'>hvm</type>
    <smbios mode='sysinfo'/>
  </os>
  <sysinfo type='smbios'>
    <system>
      <entry name='manufacturer'>Example</entry>
    </system>
  </sysinfo>
  <features>
    <acpi/>
    <smm state='off'/>
    <kvm>
      <hidden state='on'/>
    </kvm>
    <hyperv>
      <relaxed state='on'/>
    </hyperv>
    <vmport state='off'/>
  </features>
  <cpu mode='host-model'/>
  <clock offset='utc'>
    <timer name='rtc' tickpolicy='catchup'/>
    <timer name='kvmclock' present='yes'/>
  </clock>
  <pm>
    <suspend-to-disk enabled='no'/>
  </pm>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/images/root.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/images/seed.iso'/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
    </disk>
    <interface type='bridge'>
      <source bridge='br0'/>
      <model type='virtio-non-transitional'/>
    </interface>
    <watchdog model='i6300esb' action='reset'/>
    <memballoon model='none'/>
  </devices>
  <launchSecurity type='s390-pv'/>
</domain>
"""


def test_a_domain_generated_as_for_a_pc_is_repaired_as_a_whole() -> None:
    raw = GENERATED.encode()
    assert _ids(raw) == [
        "PV011", "PV008", "PV008", "PV008", "PV008", "PV008", "PV010", "PV705", "PV624", "PV223", "PV618",
    ]  # fmt: skip
    fixed = fix_bytes("x", raw, SETTINGS, unsafe=True)
    assert _ids(fixed.after) == []
    assert fix_bytes("x", fixed.after, SETTINGS, unsafe=True).after == fixed.after
    assert b"<timer name='rtc' tickpolicy='catchup'/>" in fixed.after


PC = read("pc-x86_64.xml")


def test_a_domain_of_a_pc_is_ported_with_all_that_s390x_has() -> None:
    ported = fix_bytes("pc.xml", PC, SETTINGS, port_from="x86_64")
    assert _ids(ported.after) == ["PV611"]  # the guest agent stays: it is a risk and not a PC's device
    devices = Document("x", ported.after).root.find("devices")
    assert devices is not None
    assert [device.tag for device in devices.children] == [
        "disk", "disk", "disk", "controller", "interface", "serial", "console", "channel", "input", "input", "input",
        "watchdog", "memballoon", "rng",
    ]  # fmt: skip
    targets = [disk.find("target") for disk in devices.all("disk")]
    assert [(t.get("dev"), t.get("bus")) for t in targets if t is not None] == [
        ("vdb", "virtio"), ("vda", "virtio"), ("sdb", "scsi"),
    ]  # fmt: skip
    text = ported.after.decode()
    for gone in ("pci", "usb", "x86", "spice", "acpi", "kvmclock", "firmware", "hugepages", "migratable", "threads"):
        assert gone not in text, gone
    for kept in ("<metadata>", "tickpolicy='catchup'", "<apic/>", "52:54:00:aa:bb:cc", "discard='unmap'"):
        assert kept in text, kept


def test_porting_says_what_goes_and_what_takes_its_place() -> None:
    lines = fix_bytes("pc.xml", PC, SETTINGS, port_from="x86_64").repaired
    for line in (
        "PV607 s390x does not have a sata disk: now bus='virtio'",
        "PV608 s390x does not have a sata bus; use scsi: now bus='scsi'",
        "PV618 s390x does not have the watchdog itco: now model='diag288'",
        "PV607 s390x does not have a TPM: removed",
        "PV610 the host sees what the guest shows on its screen: removed",
    ):
        assert line in lines


def test_a_ported_domain_is_not_ported_again() -> None:
    once = fix_bytes("pc.xml", PC, SETTINGS, port_from="x86_64").after
    assert fix_bytes("pc.xml", once, SETTINGS, port_from="x86_64").after == once


def test_without_being_asked_nothing_is_removed_that_the_guest_has() -> None:
    text = fix_bytes("pc.xml", PC, SETTINGS).after.decode()
    for kept in ("<tpm", "<sound", "bus='sata'", "<graphics"):
        assert kept in text


def test_what_a_domain_is_ported_from_has_to_be_so() -> None:
    with pytest.raises(UsageError, match="cannot be ported from 'vax'; use x86_64"):
        fix_bytes("pc.xml", PC, SETTINGS, port_from="vax")
    arm = PC.replace(b"x86_64", b"aarch64")
    with pytest.raises(InputError, match=r"pc.xml: the domain is for aarch64, not for x86_64"):
        fix_bytes("pc.xml", arm, SETTINGS, port_from="x86_64")


def test_spice_graphics_go_with_all_that_libvirt_refuses_without_them() -> None:
    spice = (
        "<graphics type='spice'/><channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>"
        "<audio id='1' type='spice'/>"
    )
    fixed = fix_bytes("x", _with("", devices=spice), SETTINGS, unsafe=True).after
    assert b"spice" not in fixed
