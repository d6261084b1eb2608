"""Reads QEMU's virtio devices: QMP's x-query-virtio family, in QEMU 7.2 and newer.

QEMU 11.1 itself fails while it answers x-query-virtio-status, so there what a device offers stands for what it and its
driver agreed on.
"""

from __future__ import annotations

import dataclasses
import re

from zseal.engine.errors import EngineError, EngineLostError
from zseal.engine.qemu.qmp import Qmp
from zseal.engine.virtio import VirtioDevice, VirtioQueue
from zseal.formats.virtqueue import MAX_QUEUE_SIZE, QueueLayout
from zseal.jsonvalue import Json

_MAX_QUEUES = 1024  # VIRTIO_QUEUE_MAX of QEMU
_STATUS_IS_FATAL = (11, 0, 0)
_BACKEND = "/virtio-backend"
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


@dataclasses.dataclass(frozen=True)
class _Agreed:
    """What a device and its driver agreed on, and the number of queues that the device has."""

    queues: int
    access_platform: bool
    packed: bool
    big_endian: bool


class VirtioView:
    """Asks QEMU over ``qmp``, and for what never changes of a device only once."""

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        self._devices: dict[str, VirtioDevice] = {}
        self._offers: dict[str, _Agreed] = {}

    def queues(self) -> list[VirtioQueue]:
        """Return all queues that are set up; raises EngineError if QEMU is too old or does not answer."""
        found: list[VirtioQueue] = []
        for path, kind in self._backends():
            agreed = self._agreed(path)
            for number in range(agreed.queues):
                queue = self._qmp.execute("x-query-virtio-queue-status", path=path, queue=number)
                layout = QueueLayout(
                    size=_number(queue, "vring-num"),
                    descriptors=_number(queue, "vring-desc"),
                    available=_number(queue, "vring-avail"),
                    used=_number(queue, "vring-used"),
                    big_endian=agreed.big_endian,
                )
                if not layout.descriptors or not 0 < layout.size <= MAX_QUEUE_SIZE:
                    continue  # not set up
                found.append(
                    VirtioQueue(
                        device=self._device(path, kind),
                        number=number,
                        layout=layout,
                        taken=_number(queue, "last-avail-idx") & 0xFFFF,
                        used=_number(queue, "used-idx") & 0xFFFF,
                        packed=agreed.packed,
                        bounced=agreed.access_platform,
                    )
                )
        return found

    def unused_without_iommu(self) -> list[VirtioDevice]:
        """Return the devices that do not offer VIRTIO_F_ACCESS_PLATFORM and have no driver; raises as ``queues``."""
        idle = self._idle_by_queues if self._status_is_fatal() else self._idle_by_status
        return [self._device(path, kind) for path, kind in self._backends() if idle(path)]

    def _backends(self) -> list[tuple[str, str]]:
        """Return the path and the kind of each device."""
        return [(_text(entry, "path"), _text(entry, "name")) for entry in _list(self._qmp.execute("x-query-virtio"))]

    def _status_is_fatal(self) -> bool:
        """Whether x-query-virtio-status ends QEMU in a failed assertion, as in 11.1."""
        return self._qmp.version >= _STATUS_IS_FATAL

    def _agreed(self, path: str) -> _Agreed:
        return self._offered(path) if self._status_is_fatal() else self._negotiated(path)

    def _negotiated(self, path: str) -> _Agreed:
        status = self._qmp.execute("x-query-virtio-status", path=path)
        features = _features(status, "guest-features")
        return _Agreed(
            queues=min(_number(status, "num-vqs"), _MAX_QUEUES),
            access_platform=_ACCESS_PLATFORM in features,
            packed=_RING_PACKED in features,
            # a legacy device takes the byte order of its guest
            big_endian=_VERSION_1 not in features and _text(status, "device-endian") == "big",
        )

    def _offered(self, path: str) -> _Agreed:
        """Return what the device offers, which does not change: a driver for s390x accepts all of it.

        A driver must accept VIRTIO_F_ACCESS_PLATFORM, or the device refuses to work. Packed rings count as agreed on,
        because nothing in them could be checked. Only a device that is limited to revision 0 is taken for a legacy one.
        """
        if path not in self._offers:
            self._offers[path] = _Agreed(
                queues=self._count_queues(path),
                access_platform=self._property(path, "iommu_platform") is True,
                packed=self._property(path, "packed") is True,
                big_endian=self._property(path.removesuffix(_BACKEND), "max_revision") == 0,
            )
        return self._offers[path]

    def _count_queues(self, path: str) -> int:
        for number in range(_MAX_QUEUES):
            try:
                self._qmp.execute("x-query-virtio-queue-status", path=path, queue=number)
            except EngineLostError:
                raise
            except EngineError:
                return number  # there is no such queue
        return _MAX_QUEUES

    def _idle_by_status(self, path: str) -> bool:
        answer = self._qmp.execute("x-query-virtio-status", path=path)
        return _ACCESS_PLATFORM not in _features(answer, "host-features") and not _in_use(answer)

    def _idle_by_queues(self, path: str) -> bool:
        offered = self._offered(path)
        if offered.access_platform:
            return False
        queues = (
            self._qmp.execute("x-query-virtio-queue-status", path=path, queue=number)
            for number in range(offered.queues)
        )
        return not any(_number(queue, "vring-desc") for queue in queues)

    def _property(self, path: str, name: str) -> Json:
        """Return a property of an object of QEMU's; None if it has none of this name."""
        try:
            return self._qmp.execute("qom-get", path=path, property=name)
        except EngineLostError:
            raise
        except EngineError:
            return None

    def _device(self, path: str, kind: str) -> VirtioDevice:
        device = self._devices.get(path)
        if device is None:
            owner = path.removesuffix(_BACKEND)
            match = _PATH.fullmatch(owner)
            name = match["id"] if match and match["id"] else ""
            device = self._devices[path] = VirtioDevice(owner, kind, self._bus_id(owner), name)
        return device

    def _bus_id(self, path: str) -> str:
        """Return the device number as the guest sees it; QEMU's begins with the channel subsystem (fe.0.0001)."""
        value = self._property(path, "dev_id")  # a device on another bus has none
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
