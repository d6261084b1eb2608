"""Domains made from a number: devices in all kinds of shapes, in both styles, with the mistakes people make."""

from __future__ import annotations

import random
from collections.abc import Callable

_IOMMU = ("", "", " iommu='on'", " iommu='off'", " iommu='yes'")


def _driver(rng: random.Random, attributes: str = "") -> str:
    iommu = rng.choice(_IOMMU)
    if rng.random() < 0.3 and not attributes:
        return ""
    if rng.random() < 0.1:
        attributes += " ats='on'"
    return f"<driver{attributes}{iommu}/>"


class Generator:
    """Builds one domain; ``disk`` is a file that exists where libvirt has to open it."""

    def __init__(self, seed: int, disk: str) -> None:
        self.rng = random.Random(seed)
        self.disk = disk
        self.seed = seed
        self.names = {"vd": iter("bcdefgh"), "sd": iter("abcdefgh")}

    def _disk(self, first: bool = False) -> str:
        scsi = not first and self.rng.random() < 0.4
        name = "vda" if first else f"sd{next(self.names['sd'])}" if scsi else f"vd{next(self.names['vd'])}"
        bus = self.rng.choice(["", f" bus='{'scsi' if scsi else 'virtio'}'"])
        driver = "<driver name='qemu' type='raw'/>" if scsi else _driver(self.rng, " name='qemu' type='raw'")
        double = "<driver iommu='on'/>" if not scsi and self.rng.random() < 0.1 else ""
        misplaced = " iommu='on'" if self.rng.random() < 0.05 else ""
        boot = "<boot order='1'/>" if first else ""
        return (
            f"<disk type='file' device='disk'{misplaced}>{driver}{double}<source file='{self.disk}'/>"
            f"<target dev='{name}'{bus}/>{'<shareable/>'}{boot}</disk>"
        )

    def _interface(self) -> str:
        model = self.rng.choice(["", "<model type='virtio'/>", "<model type='virtio-transitional'/>"])
        return f"<interface type='user'>{model}{_driver(self.rng)}</interface>"

    def _controller(self) -> str:
        index = self.rng.randrange(2)
        if self.rng.random() < 0.5:
            model = self.rng.choice(["", " model='virtio-scsi'", " model='virtio-non-transitional'"])
            return f"<controller type='scsi' index='{index}'{model}>{_driver(self.rng)}</controller>"
        return f"<controller type='virtio-serial' index='{index}'>{_driver(self.rng)}</controller>"

    def _devices(self) -> list[str]:
        kinds: list[Callable[[], str]] = [
            self._disk,
            self._interface,
            self._interface,
            lambda: f"<rng model='virtio'><backend model='random'>/dev/urandom</backend>{_driver(self.rng)}</rng>",
            lambda: (
                f"<input type='{self.rng.choice(['keyboard', 'mouse', 'tablet'])}' bus='virtio'>"
                f"{_driver(self.rng)}</input>"
            ),
            lambda: (
                f"<filesystem type='mount' accessmode='mapped'>{_driver(self.rng, ' type=' + repr('path'))}"
                f"<source dir='/tmp'/><target dir='share{self.rng.randrange(10**6)}'/></filesystem>"
            ),
            lambda: (
                f"<channel type='pty'><target type='virtio' name='org.example.{self.rng.randrange(10**6)}'/></channel>"
            ),
        ]
        devices = [self._disk(first=True)]
        devices += [self.rng.choice(kinds)() for _ in range(self.rng.randrange(7))]
        controllers = {self._controller() for _ in range(self.rng.randrange(3))}
        seen: set[str] = set()
        for controller in sorted(controllers):
            key = controller[: controller.index("index=") + 9]
            if key not in seen:
                seen.add(key)
                devices.append(controller)
        if self.rng.random() < 0.7:
            target = self.rng.choice(["<target type='sclp' port='0'/>", "<target type='virtio' port='0'/>", ""])
            devices.append(f"<console type='pty'>{target}</console>")
        if self.rng.random() < 0.3:
            devices.append("<watchdog model='diag288' action='reset'/>")
        balloon = ["", "<memballoon model='none'/>", f"<memballoon model='virtio'>{_driver(self.rng)}</memballoon>"]
        devices.append(self.rng.choice(balloon))
        self.rng.shuffle(devices)
        return devices

    def build(self) -> str:
        """Return the XML, laid out in one of several ways."""
        rng = self.rng
        security = [
            "",
            "<launchSecurity type='s390-pv'/>",
            "<launchSecurity type='s390-pv'/>",
            "<launchSecurity type='s390_pv'/>",
            "<launchSecurity type='s390-pv'><policy>0x1</policy></launchSecurity>",
        ]
        cpu = [
            "",
            "<cpu mode='host-model'/>",
            "<cpu mode='host-model'><feature policy='disable' name='unpack'/></cpu>",
            "<cpu mode='custom' match='exact'><model fallback='allow'>gen15a-base</model></cpu>",
        ]
        memory = rng.choice([1600, 2048, 4096])
        parts = [
            f"<name>generated-{self.seed}</name>",
            f"<memory unit='MiB'>{memory}</memory>",
            rng.choice(
                ["", f"<currentMemory unit='MiB'>{memory}</currentMemory>", "<currentMemory>1048576</currentMemory>"]
            ),
            rng.choice(["", "<memoryBacking><hugepages/></memoryBacking>", "<memoryBacking><locked/></memoryBacking>"]),
            f"<vcpu>{rng.randrange(1, 5)}</vcpu>",
            f"<os{rng.choice(['', '', ' firmware=' + repr('efi')])}>"
            f"<type arch='s390x' machine='s390-ccw-virtio'>hvm</type></os>",
            rng.choice(cpu),
            "<devices>" + "".join(self._devices()) + "</devices>",
            rng.choice(security),
        ]
        text = f"<domain type='{rng.choice(['kvm', 'kvm', 'qemu'])}'>" + "".join(parts) + "</domain>\n"
        return text if rng.random() < 0.2 else _spread(text, rng.choice(["\n", "\r\n"]), rng.choice(["  ", "\t"]))


def _spread(text: str, newline: str, unit: str) -> str:
    """One tag a line; texts stay beside their tags."""
    import re

    lines: list[str] = []
    depth = 0
    for token in re.findall(r"<[^>]*>[^<]*(?=<)|<[^>]*>", text):
        if token.startswith("</"):
            depth -= 1
            # an end tag behind a text belongs to the line of its start tag
            if lines and not lines[-1].endswith(">"):
                lines[-1] += token
                continue
        lines.append(unit * depth + token)
        if not token.startswith("</") and "/>" not in token:
            depth += 1
    return newline.join(lines) + newline


def generate(seed: int, disk: str = "/tmp/zseal-generated.img") -> str:
    """Return the domain number ``seed``."""
    return Generator(seed, disk).build()
