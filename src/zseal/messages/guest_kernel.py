"""What the kernel of a protected guest prints."""

from __future__ import annotations

import re

from zseal.arch.storage import MIB
from zseal.linux.swiotlb import DEFAULT_SLOTS, LARGEST_SLOTS, SEGMENT_SLOTS, SLOT_SIZE
from zseal.messages.message import Meaning, Message, Role

GUEST = "guest kernel"


def _refused_device(match: re.Match[str]) -> Meaning:
    driver, device = match["driver"] or "virtio", match["device"] or "a device"
    return Meaning(
        f"the guest refused the {driver} device {device}: it comes without iommu_platform, so a protected guest cannot "
        "send its data through shared memory",
        NO_ACCESS_PLATFORM.meaning.cause,
        NO_ACCESS_PLATFORM.meaning.remedy,
    )


def _size(slots: int) -> str:
    size = slots * SLOT_SIZE
    return f"{size // MIB} MiB" if size % MIB == 0 else f"{size // 1024} KiB"


_NO_POOL = "the guest has no bounce buffers (SWIOTLB), so none of its devices can move data"
_WHY_NO_POOL = "swiotlb=noforce in the kernel parameters, or no memory for the pool below 2 GiB"
_MAKE_A_POOL = "remove noforce from swiotlb= in the parameters and build the image again, or give the guest more memory"


def _pool_shrunk(match: re.Match[str]) -> Meaning:
    wanted, got = int(match["wanted"]), int(match["got"])
    return Meaning(
        f"the guest's kernel made its pool of bounce buffers smaller than asked for: {got} slots ({_size(got)}) "
        f"instead of {wanted} ({_size(wanted)})",
        SWIOTLB_SHRUNK.meaning.cause,
        f"give the guest more memory (and no mem= that takes it away), or ask for swiotlb={got}",
    )


def _pool_full(match: re.Match[str]) -> Meaning:
    wanted = int(match["size"])
    meaning = f"the guest's bounce buffers (SWIOTLB) ran full: a transfer of {wanted} bytes needs "
    meaning += f"{-(-wanted // SLOT_SIZE)} slots of 2 KiB in a row"
    cause = SWIOTLB_FULL.meaning.cause
    if match["total"] is None:
        return Meaning(meaning, cause, "seal the image with a larger swiotlb=SLOTS in its kernel parameters")
    total, used = int(match["total"]), int(match["used"])
    if not total:
        return SWIOTLB_NONE.meaning
    meaning += f", and {used} of {total} slots ({_size(used)} of {_size(total)}) were in use"
    if wanted > SEGMENT_SLOTS * SLOT_SIZE:
        remedy = f"no pool can take it in one piece: more than {_size(SEGMENT_SLOTS)} never fit"
        return Meaning(meaning, cause, remedy)
    if total >= LARGEST_SLOTS:
        remedy = f"let fewer requests be under way at a time: {_size(LARGEST_SLOTS)} is the largest pool"
        return Meaning(meaning, cause, remedy)
    # The message reports only one of the waiting transfers: the size is Linux's default, or twice the pool.
    more = min(max(1 << (2 * total - 1).bit_length(), DEFAULT_SLOTS), LARGEST_SLOTS)
    return Meaning(
        meaning,
        cause,
        f"seal the image with swiotlb={more} in its kernel parameters ({more} slots x 2 KiB = {_size(more)} "
        "of guest memory; the guest does not say how much more was waiting, so it may take still more), or let fewer "
        "requests be under way at a time",
    )


def _missing_facilities(match: re.Match[str]) -> Meaning:
    vectors = "129" in re.split("[,-]", match["list"])
    return Meaning(
        f"the guest's kernel needs facilities that its CPU does not have: {match['list']}",
        MISSING_FACILITIES.meaning.cause,
        "vector instructions (129) are off because QEMU before 10.0 computes wrong checksums with them: "
        "give -- -cpu max, or use a newer QEMU"
        if vectors
        else MISSING_FACILITIES.meaning.remedy,
    )


SECURITY_PANIC = Message(
    "SECURITY_PANIC",
    GUEST,
    "System security cannot be guaranteed",
    Meaning(
        "the guest stopped itself: the ultravisor refused to share or unshare a page",
        "an error of the hypervisor, or memory the guest does not have",
        "explain the line with the failed UVC before it; update QEMU and the host's kernel",
    ),
)
NO_ACCESS_PLATFORM = Message(
    "NO_ACCESS_PLATFORM",
    GUEST,
    "device must provide VIRTIO_F_ACCESS_PLATFORM",
    Meaning(
        "the guest refuses a virtio device that would bypass its shared bounce buffers; its probe fails (-ENODEV)",
        "the device has no iommu='on', and the domain no <launchSecurity>; or iommu='off' is written",
        "zseal domain lint names the device, zseal domain fix cures it",
    ),
    values=re.compile(
        r"(?:(?P<driver>[\w-]{1,40}) (?P<device>virtio\d{1,5}): )?device must provide VIRTIO_F_ACCESS_PLATFORM"
    ),
    refine=_refused_device,
)
SWIOTLB_FULL = Message(
    "SWIOTLB_FULL",
    GUEST,
    "swiotlb buffer is full",
    Meaning(
        "the pool of shared bounce buffers has no room for a transfer: I/O is slow or fails",
        "the default of 64 MiB (32768 slots of 2 KiB) is small for busy disks and networks",
        "seal swiotlb=262144 (512 MiB) into the image's kernel parameters; a number of slots, no unit",
    ),
    values=re.compile(
        r"swiotlb buffer is full \(sz: (?P<size>\d{1,18}) bytes\)"
        r"(?:, total (?P<total>\d{1,12}) \(slots\), used (?P<used>\d{1,12}) \(slots\))?"
    ),
    refine=_pool_full,
)
SWIOTLB_SHRUNK = Message(
    "SWIOTLB_SHRUNK",
    GUEST,
    "SWIOTLB bounce buffer size adjusted … -> …",
    Meaning(
        "the pool of bounce buffers did not fit and was made smaller",
        "more was asked for than lies free below 2 GiB in one piece",
        "ask for at most 524288 slots (1 GiB), and less than half of the guest's memory",
    ),
    values=re.compile(
        r"SWIOTLB bounce buffer size adjusted (?P<wanted>\d{1,12}) -> (?P<got>\d{1,12}) sl(?:ab|ot)s", re.IGNORECASE
    ),
    refine=_pool_shrunk,
)
SWIOTLB_NONE = Message(
    "SWIOTLB_NONE",
    GUEST,
    "Can not allocate SWIOTLB buffer earlier",
    Meaning(_NO_POOL, _WHY_NO_POOL, _MAKE_A_POOL),
)
EMPTY_POOL = re.compile(r"swiotlb buffer is full \(.{0,60}total 0 \(slots\)")
"""The message of a full pool, of a pool that was never made."""
MISSING_FACILITIES = Message(
    "MISSING_FACILITIES",
    GUEST,
    "Missing facilities: ",
    Meaning(
        "the guest's kernel needs facilities that its CPU does not have",
        "the kernel is built for a newer machine than the CPU model of the guest",
        "use a newer QEMU, or a kernel for older machines",
    ),
    values=re.compile(r"Missing facilities: (?P<list>\d{1,4}(?:[,-]\d{1,4}){0,40})"),
    refine=_missing_facilities,
)

MESSAGES = (
    MISSING_FACILITIES,
    SECURITY_PANIC,
    NO_ACCESS_PLATFORM,
    Message(
        "NO_VERSION_1",
        GUEST,
        "device must provide VIRTIO_F_VERSION_1",
        Meaning(
            "the guest refuses a virtio device of the old kind; its probe fails (-ENODEV)",
            "a legacy device model or machine version",
            "use model='virtio' and a current s390-ccw-virtio machine",
        ),
    ),
    SWIOTLB_FULL,
    SWIOTLB_SHRUNK,
    SWIOTLB_NONE,
    Message(
        "SWIOTLB_NO_ROOM",
        GUEST,
        "Failed to allocate … bytes tlb structure",
        Meaning(
            "the kernel found no room for the pool of bounce buffers and tries a smaller one",
            "more was asked for than lies free below 2 GiB in one piece",
            "ask for fewer slots with swiotlb=, or give the guest more memory",
        ),
    ),
    Message(
        "SWIOTLB_SIZED",
        GUEST,
        "SWIOTLB bounce buffer size adjusted to",
        Meaning(
            "the kernel chose a size for its pool of bounce buffers by itself",
            "swiotlb= is not in the kernel parameters",
            "nothing to do",
        ),
        Role.NORMAL,
    ),
    Message(
        "SWIOTLB_MAPPED",
        GUEST,
        "software IO TLB: mapped",
        Meaning(
            "the guest made its pool of shared bounce buffers: a normal line of a protected guest",
            "protected guests reach their devices through shared memory only",
            "nothing to do",
        ),
        Role.NORMAL,
    ),
)
