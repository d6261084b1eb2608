"""Reads QEMU's virtio devices: QMP's x-query-virtio family, in QEMU 7.2 and newer."""

from __future__ import annotations

import re

from zseal.engine.errors import EngineError, EngineLostError
from zseal.engine.qemu.qmp import Qmp
from zseal.engine.virtio import VirtioDevice, VirtioQueue
from zseal.formats.virtqueue import MAX_QUEUE_SIZE, QueueLayout
from zseal.jsonvalue import Json

_MAX_QUEUES = 1024  # VIRTIO_QUEUE_MAX of QEMU
_VERSION_1 = 32
_ACCESS_PLATFORM = 33
_RING_PACKED = 34
_FEATURE_NAMES = {
    "VIRTIO_F_VERSION_1": _VERSION_1,
    "VIRTIO_F_ACCESS_PLATFORM": _ACCESS_PLATFORM,
    "VIRTIO_F_IOMMU_PLATFORM": _ACCESS_PLATFORM,
    "VIRTIO_F_RING_PACKED": _RING_PACKED,
}
_IN_USE = "VIRTIO_CONFIG_S_DRIVER_OK"
_PATH = re.compile(r"/machine/(?:peripheral/(?P<id>[^/]+)|.+)")


class VirtioView:
    """Asks QEMU over ``qmp``, and for the names of devices only once."""

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        self._devices: dict[str, VirtioDevice] = {}

    def queues(self) -> list[VirtioQueue]:
        """Return all queues that are set up; raises EngineError if QEMU is too old or does not answer."""
        found: list[VirtioQueue] = []
        for entry in _list(self._qmp.execute("x-query-virtio")):
            path = _text(entry, "path")
            status = self._qmp.execute("x-query-virtio-status", path=path)
            features = _features(status, "guest-features")
            for number in range(min(_number(status, "num-vqs"), _MAX_QUEUES)):
                queue = self._qmp.execute("x-query-virtio-queue-status", path=path, queue=number)
                layout = QueueLayout(
                    size=_number(queue, "vring-num"),
                    descriptors=_number(queue, "vring-desc"),
                    available=_number(queue, "vring-avail"),
                    used=_number(queue, "vring-used"),
                    # a legacy device takes the byte order of its guest
                    big_endian=_VERSION_1 not in features and _text(status, "device-endian") == "big",
                )
                if not layout.descriptors or not 0 < layout.size <= MAX_QUEUE_SIZE:
                    continue  # not set up
                found.append(
                    VirtioQueue(
                        device=self._device(path, _text(entry, "name")),
                        number=number,
                        layout=layout,
                        taken=_number(queue, "last-avail-idx") & 0xFFFF,
                        used=_number(queue, "used-idx") & 0xFFFF,
                        packed=_RING_PACKED in features,
                        bounced=_ACCESS_PLATFORM in features,
                    )
                )
        return found

    def unused_without_iommu(self) -> list[VirtioDevice]:
        """Return the devices that do not offer VIRTIO_F_ACCESS_PLATFORM and have no driver; raises as ``queues``."""
        found: list[VirtioDevice] = []
        for entry in _list(self._qmp.execute("x-query-virtio")):
            path = _text(entry, "path")
            answer = self._qmp.execute("x-query-virtio-status", path=path)
            if _ACCESS_PLATFORM not in _features(answer, "host-features") and not _in_use(answer):
                found.append(self._device(path, _text(entry, "name")))
        return found

    def _device(self, path: str, kind: str) -> VirtioDevice:
        device = self._devices.get(path)
        if device is None:
            owner = path.removesuffix("/virtio-backend")
            match = _PATH.fullmatch(owner)
            name = match["id"] if match and match["id"] else ""
            device = self._devices[path] = VirtioDevice(owner, kind, self._bus_id(owner), name)
        return device

    def _bus_id(self, path: str) -> str:
        """Return the device number as the guest sees it; QEMU's begins with the channel subsystem (fe.0.0001)."""
        try:
            value = self._qmp.execute("qom-get", path=path, property="dev_id")
        except EngineLostError:
            raise
        except EngineError:
            return ""  # a device on another bus
        match = re.fullmatch(r"[0-9a-f]+\.([0-9a-f])\.([0-9a-f]{4})", value) if isinstance(value, str) else None
        return f"0.{match[1]}.{match[2]}" if match else ""


def _features(status: Json, whose: str) -> set[int]:
    """Return the numbers of known features: those of "host-features", or those agreed in "guest-features"."""
    features = status.get(whose) if isinstance(status, dict) else None
    if not isinstance(features, dict):
        raise EngineError("QEMU does not report a virtio device's features")
    found = {
        _FEATURE_NAMES[name]
        for text in _list(features.get("transports"))
        if isinstance(text, str) and (name := text.partition(":")[0]) in _FEATURE_NAMES
    }
    unknown = features.get("unknown-dev-features", 0)
    if isinstance(unknown, int):
        found |= {bit for bit in _FEATURE_NAMES.values() if unknown >> bit & 1}
    return found


def _in_use(answer: Json) -> bool:
    """Whether a driver has set up the device's queues and not released it since."""
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, dict):
        raise EngineError("QEMU does not report a virtio device's status")
    return any(isinstance(text, str) and text.startswith(_IN_USE) for text in _list(status.get("statuses")))


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise EngineError("QEMU's answer about virtio devices is not a list")
    return value


def _number(value: Json, key: str) -> int:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, int):
        raise EngineError(f"QEMU's answer about a virtio device has no number {key}")
    return found


def _text(value: Json, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, str):
        raise EngineError(f"QEMU's answer about a virtio device has no text {key}")
    return found
