"""Rules about what is inside the guest: PV911 to PV915. They need the image, the kernel, its parameters or a key."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.devices import DISK, INTERFACE, SCSI_CONTROLLER
from zseal.domain.rules.interface import Context, Hit, Input, Severity, Table
from zseal.domain.rules.memory import GIB, MIB, memory_hit, show_size, usable_memory
from zseal.domain.rules.parameters import parameter_file, parameter_hit, swiotlbs
from zseal.linux.swiotlb import DEFAULT_SLOTS, LARGEST_SLOTS, SEGMENT_SLOTS, SLOT_SIZE
from zseal.messages import guest_kernel

TABLE = Table(__name__)

# The most that a queue can have in flight: 128 mappings of the largest segment for a disk; 256 sent packets of 64 KiB
# and 256 received buffers of 4 KiB for a network queue pair; a few pages for all others.
BLOCK_QUEUE = 128 * SEGMENT_SLOTS * SLOT_SIZE
NETWORK_QUEUES = 256 * (64 << 10) + 256 * (4 << 10)
OTHER_DEVICE = MIB
KERNEL_RESERVE = 128 * MIB


@TABLE.rule(
    "PV911", Severity.ERROR, "the image does not fit the guest's memory",
    why="The image is loaded at address 0, and the unpacked kernel and the bounce-buffer pool need memory too.",
    effect="QEMU refuses to load the image, or the kernel stops early because memory is too small.",
    remedy="Give the guest more memory.",
    needs=[Input.IMAGE],
)  # fmt: skip
def _fits(ctx: Context) -> Iterator[Hit]:
    image = ctx.guest.image if ctx.guest is not None else None
    memory = usable_memory(ctx)
    if image is None or memory is None or ctx.guest is None:
        return
    pool = ctx.guest.pool or DEFAULT_SLOTS * SLOT_SIZE
    needed = image.end + pool + KERNEL_RESERVE
    if image.end > memory.size:
        yield memory_hit(ctx, memory, f"{image.name} needs {show_size(image.end)}, but the guest has {memory}")
    elif needed > memory.size:
        message = f"{image.name}, its pool and {show_size(KERNEL_RESERVE)} for the kernel need {show_size(needed)}"
        yield memory_hit(ctx, memory, f"{message}, but the guest has {memory}", Severity.WARNING)


@TABLE.rule(
    "PV912", Severity.ERROR, "the image is not for this machine",
    why="An image has a key slot for each machine it was built for, identified by the hash of the machine's host key.",
    effect="'KVM_PV_SET_SEC_PARMS failed: header rc 108 rrc 5' in QEMU's log, 'Protected boot has failed: 0xa02'.",
    remedy="Build the image with the machine's host-key document (zseal image create --host-key-document).",
    needs=[Input.IMAGE, Input.HOST_KEYS],
)  # fmt: skip
def _machine(ctx: Context) -> Iterator[Hit]:
    image = ctx.guest.image if ctx.guest is not None else None
    if image is None or not image.sealed or ctx.guest is None:
        return
    for key in ctx.guest.host_keys:
        if key.digest not in image.key_hashes:
            message = f"{image.name} has no key slot for {key.name} (hash {key.digest.hex()[:16]}…)"
            yield Hit(ctx.domain.kernel or ctx.root, message)


@TABLE.rule(
    "PV913", Severity.ERROR, "the kernel cannot run as a protected guest",
    why="The kernel must share its bounce buffers with the host. Until Linux 6.9 this needs the option "
    "CONFIG_PROTECTED_VIRTUALIZATION_GUEST; since 6.10 it is always built in.",
    effect="The kernel boots protected but never shares a page, so none of its devices works.",
    remedy="Use a kernel with this support; the kernels of most distributions have it.",
    needs=[Input.KERNEL],
)  # fmt: skip
def _kernel(ctx: Context) -> Iterator[Hit]:
    kernel = ctx.guest.kernel if ctx.guest is not None else None
    if kernel is None or kernel.supported:
        return
    release = f" ({kernel.release})" if kernel.release else ""
    if kernel.supported is None:
        message = f"unknown whether {kernel.name}{release} can run protected: {kernel.basis}"
        message += "; give --kernel-config"
        yield Hit(ctx.domain.kernel or ctx.root, message, severity=Severity.WARNING)
    else:
        message = f"{kernel.name}{release} cannot run protected: {kernel.basis}"
        yield Hit(ctx.domain.kernel or ctx.root, message)


def _queues(ctx: Context) -> tuple[int, int, int]:
    """The numbers of disk queues, network queue pairs and other virtio devices the domain has."""
    disks = networks = others = 0
    for device in ctx.domain.virtio:
        number = device.driver.get("queues") if device.driver is not None else ""
        queues = min(max(int(number), 1), 1024) if number.isdecimal() and len(number) < 6 else 1
        if device.kind in (DISK, SCSI_CONTROLLER):
            disks += queues
        elif device.kind is INTERFACE:
            networks += queues
        else:
            others += 1
    return disks + sum(device.kind is SCSI_CONTROLLER for device in ctx.domain.implicit), networks, others


@TABLE.rule(
    "PV914", Severity.WARNING, "the pool may be too small for the devices",
    why="zseal estimates the most that can be in flight: 32 MiB for each disk queue, 17 MiB for each network queue "
    "pair, 1 MiB for each other device.",
    effect=f"Under full load I/O is slow or fails, and the guest logs '{guest_kernel.SWIOTLB_FULL.text}'.",
    remedy="Enlarge the pool, or use fewer queues.",
    needs=[Input.PARAMETERS],
)  # fmt: skip
def _sizing(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    if file is None or ctx.guest is None or any(s.junk or s.noforce for s in swiotlbs(file)):
        return
    disks, networks, others = _queues(ctx)
    wanted = disks * BLOCK_QUEUE + networks * NETWORK_QUEUES + others * OTHER_DEVICE
    pool = ctx.guest.pool or 0
    if pool < wanted and pool < GIB:
        slots = min(1 << (wanted // SLOT_SIZE - 1).bit_length(), LARGEST_SLOTS)
        message = (
            f"{disks} disk queues, {networks} network queues and {others} other devices can have "
            f"{show_size(wanted)} in flight, but the pool has {show_size(pool)}; use swiotlb={slots}"
        )
        yield parameter_hit(file, file.swiotlb.parameter if file.swiotlb else None, message)


_CONSOLE_TARGETS = {"ttyS0": "sclplm", "sclp_line0": "sclplm", "ttyS1": "sclp", "ttysclp0": "sclp", "hvc0": "virtio"}


@TABLE.rule(
    "PV915", Severity.WARNING, "the kernel's console is not in the domain",
    why="console=ttysclp0 (ttyS1) is the SCLP console, ttyS0 (sclp_line0) the line-mode console, hvc0 a virtio "
    "console.",
    effect="virsh console does not show the guest's messages.",
    remedy="Add <console type='pty'><target type='sclp'/></console>, or change console=.",
    needs=[Input.PARAMETERS],
)  # fmt: skip
def _console_device(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    targets = set()
    for device in ctx.domain.devices.all("console", "serial"):
        target = device.find("target")
        kind = target.get("type") if target is not None else ""
        targets.add({"serial": "sclp", "": "sclp", "sclp-serial": "sclp"}.get(kind, kind))
    for parameter in file.parameters if file is not None else ():
        name = (parameter.value or "").partition(",")[0]
        wanted = _CONSOLE_TARGETS.get(name)
        if parameter.name == "console" and wanted and wanted not in targets and file is not None:
            yield parameter_hit(
                file, parameter, f"{parameter.text} needs a console with target type {wanted} in the domain"
            )
