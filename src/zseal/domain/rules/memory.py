"""Rules about memory: PV301 to PV310."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from zseal.domain.document import Element
from zseal.domain.edits import Change, remove_element, remove_elements, replace_element, set_attributes
from zseal.domain.model import Style, size_in_bytes
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Input, Safety, Severity, Table
from zseal.domain.versions import ASYNC_TEARDOWN
from zseal.linux.cmdline import KernelParameter, size_of
from zseal.messages import qemu

TABLE = Table(__name__)

NO_BALLOON = "<memballoon model='none'/>"
GIB = 1 << 30
MIB = 1 << 20
LARGE_GUEST = 64 * GIB
ASSUMED_POOL = 512 * MIB
WORKING_MEMORY = GIB


def show_size(size: int) -> str:
    """A number of bytes as text, in the largest binary unit that fits."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} bytes"


def block_after(ctx: Context) -> Element | None:
    """The child of the domain after which memory elements belong."""
    return next((e for tag in ("currentMemory", "memory", "name") if (e := ctx.root.find(tag)) is not None), None)


@TABLE.rule(
    "PV301", Severity.ERROR, "no memballoon element",
    why="libvirt adds a virtio memory balloon to every domain that does not contain a memballoon element. QEMU "
    "disables the discarding of memory at the switch to protected mode, so a balloon cannot work.",
    effect="An inflated balloon takes memory from the guest and does not give it to the host.",
    remedy=f"Add {NO_BALLOON} to the devices.",
    safety=Safety.SAFE, example="<devices/>",
)  # fmt: skip
def _no_balloon_element(ctx: Context) -> Iterator[Hit]:
    devices = ctx.root.find("devices")
    if devices is None:
        change = ctx.insert(ctx.root, f"<devices>\n  {NO_BALLOON}\n</devices>", after=ctx.domain.os)
        yield Hit(ctx.root, "there are no devices, and libvirt adds a memory balloon", change)
    elif devices.find("memballoon") is None:
        yield Hit(devices, "libvirt adds a memory balloon unless the domain has one", ctx.insert(devices, NO_BALLOON))


@TABLE.rule(
    "PV302", Severity.ERROR, "a memory balloon",
    why="The host cannot take single pages back from a protected guest: QEMU disables the discarding of memory at "
    "the switch to protected mode.",
    effect="An inflated balloon takes memory from the guest and does not give it to the host.",
    remedy=f"Write {NO_BALLOON}.",
    safety=Safety.SAFE, example="<memballoon model='virtio'>\n  <driver iommu='on'/>\n</memballoon>",
)  # fmt: skip
def _balloon(ctx: Context) -> Iterator[Hit]:
    for element in ctx.domain.devices.all("memballoon"):
        if element.get("model") != "none":
            yield Hit(
                element, "ballooning does not work with protected guests",
                replace_element(ctx.document, element, NO_BALLOON),
            )  # fmt: skip


@TABLE.rule(
    "PV303", Severity.ERROR, "huge pages",
    why="The ultravisor secures memory in pages of 4 KiB. KVM refuses the switch if huge pages back the memory.",
    effect=f"The guest stops at the switch: '{qemu.HUGE_PAGES.text}' in QEMU's log, 'Protected boot has failed: "
    "0xa02' on the console.",
    remedy="Remove <hugepages>.",
    safety=Safety.SAFE, example="<memoryBacking>\n  <hugepages/>\n</memoryBacking>",
)  # fmt: skip
def _huge_pages(ctx: Context) -> Iterator[Hit]:
    element = ctx.root.find("memoryBacking", "hugepages")
    if element is not None:
        parent = element.parent
        alone = parent is not None and len(parent.children) == 1
        change = remove_element(parent if alone and parent is not None else element)
        yield Hit(element, "KVM refuses the switch to protected mode with huge pages", change)


@TABLE.rule(
    "PV304", Severity.ERROR, "memory hotplug",
    why="Protected guests keep the memory that they start with.",
    effect=f"The switch fails, and QEMU logs 'protected VMs: {qemu.RAM_DISCARD.text}'.",
    remedy="Remove maxMemory and the memory devices, and write the full size in <memory>.",
    safety=Safety.ASK, example="<maxMemory slots='1' unit='GiB'>8</maxMemory>",
)  # fmt: skip
def _hotplug(ctx: Context) -> Iterator[Hit]:
    elements = [*ctx.root.all("maxMemory"), *ctx.domain.devices.all("memory")]
    if elements:
        what = " and ".join(sorted({"maxMemory" if e.tag == "maxMemory" else "memory devices" for e in elements}))
        yield Hit(elements[0], f"memory hotplug is not available: {what}", remove_elements(elements))


@TABLE.rule(
    "PV305", Severity.WARNING, "currentMemory differs from memory",
    why="Only a balloon can change a guest's memory to less than its maximum, and protected guests cannot use one.",
    effect="The guest has all of its memory from the start and ignores currentMemory.",
    remedy="Write the same size in both.",
    safety=Safety.SAFE, example="<currentMemory unit='GiB'>2</currentMemory>",
)  # fmt: skip
def _current(ctx: Context) -> Iterator[Hit]:
    current, memory = ctx.root.find("currentMemory"), ctx.root.find("memory")
    size = size_in_bytes(current)
    if (
        current is not None
        and memory is not None
        and None not in (size, ctx.domain.memory)
        and size != ctx.domain.memory
    ):
        unit = f" unit='{memory.get('unit')}'" if memory.get("unit") else ""
        change = replace_element(ctx.document, current, f"<currentMemory{unit}>{memory.value}</currentMemory>")
        message = f"{show_size(size or 0)} instead of {show_size(ctx.domain.memory or 0)} needs a balloon"
        yield Hit(current, message, change)


@dataclasses.dataclass(frozen=True)
class UsableMemory:
    """The memory in bytes that the guest's kernel uses, and what says so: the domain, or ``mem=`` in the parameters."""

    size: int
    limit: KernelParameter | None = None

    def __str__(self) -> str:
        """Return the size for a message."""
        return f"{show_size(self.size)} ({self.limit.text})" if self.limit is not None else show_size(self.size)


def usable_memory(ctx: Context) -> UsableMemory | None:
    """The memory that counts for the guest: what the domain gives, unless the parameters limit it further."""
    given = ctx.domain.memory
    file = ctx.guest.parameters if ctx.guest is not None else None
    if file is not None and file.memory_limit is not None:
        limit = size_of(file.memory_limit)
        if given is None or limit < given:
            return UsableMemory(limit, file.memory_limit)
    return None if given is None else UsableMemory(given)


def memory_hit(ctx: Context, memory: UsableMemory, message: str, severity: Severity | None = None) -> Hit:
    """A hit where the memory is written: in the parameters if they limit it, otherwise in the domain."""
    file = ctx.guest.parameters if ctx.guest is not None else None
    if memory.limit is not None and file is not None:
        return Hit(None, message, severity=severity, place=(file.name, file.position(memory.limit)))
    return Hit(ctx.root.find("memory"), message, severity=severity)


@TABLE.rule(
    "PV306", Severity.WARNING, "little memory for the guest",
    why="All I/O of a protected guest goes through bounce buffers. The usual swiotlb=262144 takes 512 MiB of its "
    "memory.",
    effect="The guest runs out of memory, or its kernel shrinks the buffers and I/O becomes slow.",
    remedy="Give the guest at least 1.5 GiB, or a smaller swiotlb in the image's parameters.",
    example="<memory unit='MiB'>512</memory>",
)  # fmt: skip
def _little(ctx: Context) -> Iterator[Hit]:
    pool = ASSUMED_POOL
    basis = f"an assumed pool of {show_size(pool)}"
    if ctx.guest is not None and ctx.guest.pool is not None:
        pool = ctx.guest.pool
        basis = f"the image's pool of {show_size(pool)}"
    memory = usable_memory(ctx)
    if memory is not None and memory.size < pool + WORKING_MEMORY:
        yield memory_hit(ctx, memory, f"{memory} is little memory with bounce buffers ({basis})")


@TABLE.rule(
    "PV307", Severity.ADVICE, "page merging is not off",
    why="The host sees the pages of a protected guest encrypted, so no two are the same. launchSecurity turns page "
    "merging off, the iommu style does not.",
    effect="The host's KSM spends time on memory that it can never merge.",
    remedy="Add <memoryBacking><nosharepages/></memoryBacking>.",
    style=Style.IOMMU, safety=Safety.SAFE, example="<memoryBacking/>",
)  # fmt: skip
def _sharing(ctx: Context) -> Iterator[Hit]:
    backing = ctx.root.find("memoryBacking")
    if backing is None or backing.find("nosharepages") is None:
        if backing is not None:
            change = ctx.insert(backing, "<nosharepages/>")
        else:
            fragment = "<memoryBacking>\n  <nosharepages/>\n</memoryBacking>"
            change = ctx.insert(ctx.root, fragment, after=block_after(ctx), first=block_after(ctx) is None)
        yield Hit(backing if backing is not None else ctx.root, "page merging costs time and never succeeds", change)


@TABLE.rule(
    "PV308", Severity.ADVICE, "a large guest without async-teardown",
    why="The host clears the memory of a protected guest page by page when the guest ends.",
    effect="Shutdown and reboot take minutes.",
    remedy="Add <async-teardown enabled='yes'/> to the features. libvirt before 9.6.0 refuses it, so the repair "
    "needs a "
    "newer release as target.",
    safety=Safety.ASK, example="<memory unit='GiB'>256</memory>",
)  # fmt: skip
def _teardown(ctx: Context) -> Iterator[Hit]:
    large = ctx.domain.memory is not None and ctx.domain.memory >= LARGE_GUEST
    feature = ctx.root.find("features", "async-teardown")
    if large and ctx.target.libvirt_has(ASYNC_TEARDOWN) and (feature is None or feature.get("enabled") == "no"):
        features = ctx.root.find("features")
        fragment = "<async-teardown enabled='yes'/>"
        if feature is not None:
            change = set_attributes(feature, enabled="yes")
        elif features is not None:
            change = ctx.insert(features, fragment)
        else:
            change = ctx.insert(ctx.root, f"<features>\n  {fragment}\n</features>", after=ctx.domain.os)
        if ctx.target.libvirt is None:
            change = Change()
        yield Hit(ctx.root.find("memory"), "the shutdown is slow without async-teardown", change)


@TABLE.rule(
    "PV309", Severity.ERROR, "more memory than the ultravisor allows",
    why="The ultravisor supports guest addresses up to the limit in /sys/firmware/uv/query/max_address.",
    effect="The switch to protected mode fails.",
    remedy="Give the guest less memory.",
    needs=[Input.HOST],
)  # fmt: skip
def _limit(ctx: Context) -> Iterator[Hit]:
    limit = ctx.host.max_address if ctx.host is not None else None
    if limit is not None and ctx.domain.memory is not None and ctx.domain.memory - 1 > limit:
        message = f"{show_size(ctx.domain.memory)} ends above the ultravisor's highest guest address {limit:#x}"
        yield Hit(ctx.root.find("memory"), message)


@TABLE.rule(
    "PV310", Severity.ERROR, "a device outside QEMU without shared memory",
    why="virtiofs, vhost-user devices and vDPA disks work on the guest's memory, which QEMU has to share for that.",
    effect="libvirt refuses the domain: 'requires shared memory'.",
    remedy="Add <source type='memfd'/> and <access mode='shared'/> to <memoryBacking>.",
    safety=Safety.SAFE, caught_by=CaughtBy.LIBVIRT,
    example="<filesystem type='mount'>\n  <driver type='virtiofs'/>\n  <source dir='/srv/share'/>\n"
    "  <target dir='share'/>\n</filesystem>",
)  # fmt: skip
def _shared(ctx: Context) -> Iterator[Hit]:
    backing = ctx.root.find("memoryBacking")
    access = backing.find("access") if backing is not None else None
    if access is not None and access.get("mode") == "shared":
        return
    for device in ctx.domain.devices.all("filesystem", "interface", "disk"):
        driver = device.find("driver")
        virtiofs = device.tag == "filesystem" and driver is not None and driver.get("type") == "virtiofs"
        kind = device.get("type") if device.tag != "filesystem" else ""
        if virtiofs or kind == "vhostuser" or (kind == "vhostvdpa" and device.tag == "disk"):
            name = "virtiofs" if virtiofs else f"a {kind} {device.tag}"
            yield Hit(device, f"{name} needs shared memory, and the domain does not share it", _share(ctx))


def _share(ctx: Context) -> Change:
    backing = ctx.root.find("memoryBacking")
    if backing is None:
        fragment = "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>"
        return ctx.insert(ctx.root, fragment, after=block_after(ctx), first=block_after(ctx) is None)
    access, source = backing.find("access"), backing.find("source")
    change = [*(set_attributes(access, mode="shared") if access is not None else ())]
    missing = [] if source is not None else ["<source type='memfd'/>"]
    missing += [] if access is not None else ["<access mode='shared'/>"]
    if missing:
        change += ctx.insert(backing, "\n".join(missing), first=access is not None)
    return Change(change)
