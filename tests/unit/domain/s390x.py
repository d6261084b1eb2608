"""The domains of tests/vectors/domains/S390X.tsv: one element each, and what two releases of libvirt and QEMU say.

The elements were put into a domain of type qemu, and libvirt was told to define and start it. ``note`` says why lint
decides otherwise: ``but`` it has an error for what starts, or it does ``not`` judge ``here`` what is refused.
"""

from __future__ import annotations

import csv
import dataclasses

from .samples import VECTORS

RELEASES = (((9, 0, 0), (7, 2, 0)), ((11, 3, 0), (10, 0, 0)))

_DOMAIN = """\
<domain type='{type}'>
  <name>probe</name>{first}
  <memory unit='MiB'>2048</memory>
  {vcpu}
  <os {firmware}><type arch='s390x' machine='{machine}'>hvm</type>{os}</os>
  {features}
  {cpu}
  {root}
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{disk}0'/><target dev='vda' bus='virtio'/>
    </disk>
    <interface type='user'><model type='virtio'/></interface>
    {console}
    {balloon}
    {devices}
  </devices>
  {security}
</domain>
"""


@dataclasses.dataclass(frozen=True)
class Probe:
    """One element in its place, and whether libvirt and QEMU start a domain with it, by release (None: not known)."""

    place: str
    fragment: str
    starts: tuple[bool | None, bool | None]
    note: str

    def domain(self, *, protected: bool = True, disk: str = "/images/disk") -> str:
        """The whole domain; not ``protected`` as this computer's libvirt can define it."""
        parts = {
            "type": "kvm" if protected else "qemu",
            "security": "<launchSecurity type='s390-pv'/>" if protected else "",
            "cpu": "<cpu mode='host-model'/>" if protected else "<cpu mode='maximum'/>",
            "machine": "s390-ccw-virtio",
            "vcpu": "<vcpu>2</vcpu>",
            "console": "<console type='pty'><target type='sclp' port='0'/></console>",
            "balloon": "<memballoon model='none'/>",
            **dict.fromkeys(("first", "firmware", "os", "features", "root", "devices"), ""),
        }
        fragment = self.fragment.replace("@DISK@", disk)
        if self.place == "rootdev":
            parts["root"], parts["devices"] = fragment.split("|")
        else:
            parts[_PLACES.get(self.place, self.place)] = (
                f"<features>{fragment}</features>" if self.place == "features" else fragment
            )
        if self.place == "devmm":
            parts["first"] = "<maxMemory slots='4' unit='GiB'>4</maxMemory>"
        return _DOMAIN.format(disk=disk, **parts)


_PLACES = {
    "clock": "root", "osattr": "firmware", "dev": "devices", "devmm": "devices", "devnc": "console", "devnb": "balloon",
}  # fmt: skip
_ANSWERS = {"starts": True, "refused": False, "": None}


def _probes() -> list[Probe]:
    with (VECTORS / "S390X.tsv").open(newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [Probe(row[0], row[1], (_ANSWERS[row[2]], _ANSWERS[row[3]]), row[4]) for row in rows]


PROBES = _probes()
