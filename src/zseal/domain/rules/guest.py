"""Rules about what is inside the guest: PV901 to PV916. They need the parameters, the image, the kernel or a key."""

from __future__ import annotations

import re
from collections.abc import Iterator

from zseal.domain.guest import ParameterFile
from zseal.domain.parameters import (
    DEFAULT_SLOTS,
    LARGEST_SLOTS,
    RECOMMENDED_SLOTS,
    SEGMENT_SLOTS,
    SLOT_SIZE,
    Parameter,
    Swiotlb,
    parse_swiotlb,
)
from zseal.domain.rules.interface import Context, Hit, Safety, Severity, Table
from zseal.domain.rules.memory import GIB, MIB, show_size

TABLE = Table()

_PARMFILE = "the image's kernel parameters (--parmfile)"
_SIZES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

# Most that a queue can have in flight at once: 128 mappings of the largest segment for a disk; for a network queue
# pair 256 sent packets of 64 KiB and 256 received buffers of 4 KiB; a page or a few for all others.
BLOCK_QUEUE = 128 * SEGMENT_SLOTS * SLOT_SIZE
NETWORK_QUEUES = 256 * (64 << 10) + 256 * (4 << 10)
OTHER_DEVICE = MIB
KERNEL_RESERVE = 128 * MIB


def _hit(file: ParameterFile, parameter: Parameter | None, message: str) -> Hit:
    return Hit(None, message, place=(file.name, file.position(parameter)))


def _file(ctx: Context) -> ParameterFile | None:
    return ctx.guest.parameters if ctx.guest is not None else None


def _swiotlbs(file: ParameterFile | None) -> Iterator[Swiotlb]:
    for parameter in file.parameters if file is not None else ():
        if parameter.name == "swiotlb" and parameter.value is not None:
            yield parse_swiotlb(parameter)


@TABLE.rule(
    "PV901", Severity.WARNING, "no swiotlb parameter",
    why="Without it the pool of bounce buffers, through which all I/O goes, has 64 MiB.",
    effect="With several disks or queues: 'swiotlb buffer is full' in the guest's log, slow or failing I/O.",
    remedy=f"Add swiotlb={RECOMMENDED_SLOTS} (512 MiB) to the parameters in the image.",
    safety=Safety.ASK, needs=_PARMFILE,
)  # fmt: skip
def _absent(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    if file is not None and not any(s.slots is not None or s.noforce for s in _swiotlbs(file)):
        yield _hit(file, None, "no swiotlb size: the default pool is 64 MiB")


@TABLE.rule(
    "PV902", Severity.ERROR, "swiotlb=noforce",
    why="It turns the bounce buffers off, and a protected guest has no other way to do I/O.",
    effect="No disk, no network.",
    remedy="Remove noforce.",
    safety=Safety.SAFE, needs=_PARMFILE,
)  # fmt: skip
def _noforce(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    for swiotlb in _swiotlbs(file):
        if swiotlb.noforce and file is not None:
            yield _hit(file, swiotlb.parameter, "swiotlb=noforce leaves a protected guest without I/O")


@TABLE.rule(
    "PV903", Severity.ERROR, "a swiotlb value that is not understood",
    why="The kernel reads a number of slots of 2 KiB. It knows no units: in swiotlb=512M it sees 512 slots, 1 MiB.",
    effect="A pool hundreds of times too small: I/O errors as soon as there is load.",
    remedy="Write the number of slots: MiB × 512.",
    safety=Safety.SAFE, needs=_PARMFILE,
)  # fmt: skip
def _junk(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    for swiotlb in _swiotlbs(file):
        if swiotlb.junk and file is not None:
            if swiotlb.slots is None:
                read = "understood as nothing at all"
            else:
                read = f"read as {swiotlb.slots} slots = {show_size(swiotlb.slots * SLOT_SIZE)}"
                unit = _SIZES.get(swiotlb.junk[:1].lower())
                if unit:
                    read += f"; write {swiotlb.slots * unit // SLOT_SIZE}"
            yield _hit(file, swiotlb.parameter, f"{swiotlb.parameter.text} is {read}")


@TABLE.rule(
    "PV904", Severity.WARNING, "a pool smaller than the default",
    why="Even the default of 64 MiB is little for a guest with load.",
    effect="'swiotlb buffer is full' in the guest's log, slow or failing I/O.",
    remedy=f"Use swiotlb={RECOMMENDED_SLOTS}, or at least {DEFAULT_SLOTS}.",
    safety=Safety.ASK, needs=_PARMFILE,
)  # fmt: skip
def _small(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    last = file.swiotlb if file is not None else None
    if file is None or last is None or last.slots is None or last.junk:
        return
    if last.effective_slots() < DEFAULT_SLOTS:
        size = show_size(last.effective_slots() * SLOT_SIZE)
        yield _hit(file, last.parameter, f"the pool of {size} is smaller than the default of 64 MiB")


@TABLE.rule(
    "PV905", Severity.WARNING, "a very large pool",
    why="The pool must lie below 2 GiB in one piece, and it is taken from the guest's memory.",
    effect="The kernel shrinks it ('SWIOTLB bounce buffer size adjusted'), or the guest has too little left.",
    remedy=f"Use at most {LARGEST_SLOTS} slots (1 GiB), and at most half of the guest's memory.",
    safety=Safety.ASK, needs=_PARMFILE,
)  # fmt: skip
def _large(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    last = file.swiotlb if file is not None else None
    if file is None or last is None or last.slots is None or last.junk:
        return
    size = last.effective_slots() * SLOT_SIZE
    if last.slots > LARGEST_SLOTS:
        asked = show_size(last.slots * SLOT_SIZE)
        yield _hit(file, last.parameter, f"a pool of {asked} does not fit below 2 GiB and will be shrunk")
    elif ctx.domain.memory is not None and size > ctx.domain.memory // 2:
        message = f"the pool of {show_size(size)} is more than half of the guest's {show_size(ctx.domain.memory)}"
        yield _hit(file, last.parameter, message)


@TABLE.rule(
    "PV906", Severity.ADVICE, "a number of slots that is rounded up",
    why="The kernel rounds to a multiple of 128, and from Linux 6.0 on to a power of two.",
    effect="The pool takes more memory than was asked for.",
    remedy="Write the number that it is rounded to.",
    safety=Safety.SAFE, needs=_PARMFILE,
)  # fmt: skip
def _rounded(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    for swiotlb in _swiotlbs(file):
        if file is not None and swiotlb.slots and not swiotlb.junk and swiotlb.slots <= LARGEST_SLOTS:
            effective = swiotlb.effective_slots()
            if effective != swiotlb.slots:
                message = f"{swiotlb.slots} slots are rounded up to {effective} ({show_size(effective * SLOT_SIZE)})"
                yield _hit(file, swiotlb.parameter, message)


@TABLE.rule(
    "PV907", Severity.ADVICE, "swiotlb=force",
    why="A protected guest bounces all I/O by itself.",
    effect="None.",
    remedy="Leave force out.",
    safety=Safety.SAFE, needs=_PARMFILE,
)  # fmt: skip
def _force(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    for swiotlb in _swiotlbs(file):
        if swiotlb.force and file is not None:
            yield _hit(file, swiotlb.parameter, "force is not needed: protected guests always bounce")


@TABLE.rule(
    "PV908", Severity.WARNING, "a host's parameter in the guest",
    why="prot_virt=1 is for the kernel of the host. There is no nesting.",
    effect="None in the guest; perhaps it is missing on the host.",
    remedy="Remove it here, and see that the host has it.",
    safety=Safety.SAFE, needs=_PARMFILE,
)  # fmt: skip
def _host_parameter(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    for parameter in file.parameters if file is not None else ():
        if parameter.name in ("prot_virt", "prot-virt") and file is not None:
            yield _hit(file, parameter, f"{parameter.text} belongs on the host's kernel command line")


_SHELLS = re.compile(r"(?:/usr)?/bin/(?:ba|da|k|z|a)?sh$")
_CONSOLE = re.compile(r"(ttyS\d|ttysclp\d|sclp_line\d|hvc\d)(?:,|$)")
_NO_GETTY = {"systemd.getty_auto": ("0", "no", "off", "false")}


def _opens_shell(parameter: Parameter) -> str:
    value = parameter.value or ""
    if parameter.name in ("init", "rdinit") and _SHELLS.match(value):
        return "starts a shell instead of the system"
    if parameter.name == "rd.break" or (parameter.name == "rd.shell" and value not in ("0", "no")):
        return "opens a shell in the ramdisk"
    return ""


@TABLE.rule(
    "PV909", Severity.WARNING, "a shell or a login on the host's console",
    why="The console is a device of the host. Whoever is there types into what the parameter starts.",
    effect="A shell inside the protected guest for the host's administrator.",
    remedy="Remove the parameter; with console= also give systemd.getty_auto=0.",
    safety=Safety.ASK, needs=_PARMFILE,
)  # fmt: skip
def _shell(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    if file is None:
        return
    no_getty = any(p.value in _NO_GETTY.get(p.name, ()) for p in file.parameters)
    for parameter in file.parameters:
        reason = _opens_shell(parameter)
        if not reason and parameter.name == "console" and _CONSOLE.match(parameter.value or "") and not no_getty:
            reason = "makes systemd start a login there"
        if reason:
            yield _hit(file, parameter, f"{parameter.text} {reason}, where the host can type")


@TABLE.rule(
    "PV910", Severity.WARNING, "the emergency shell is not disabled",
    why="When the root disk can't be found or opened, ramdisks offer a shell on the console, and the host causes "
    "that at "
    "will: it takes the disk away.",
    effect="Whoever is at the host's console reads the secrets in the ramdisk.",
    remedy="Add rd.shell=0 rd.emergency=halt (dracut) or panic=0 (initramfs-tools).",
    safety=Safety.ASK, needs=_PARMFILE,
)  # fmt: skip
def _emergency(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    if file is None:
        return
    for parameter in file.parameters:
        value = parameter.value or ""
        if parameter.name == "panic" or (parameter.name == "rd.shell" and value in ("0", "no")):
            return
        if parameter.name == "rd.emergency" and value in ("halt", "poweroff", "reboot"):
            return
    yield _hit(file, None, "no panic=0, rd.shell=0 or rd.emergency=halt: the ramdisk's emergency shell stays open")


@TABLE.rule(
    "PV911", Severity.ERROR, "the image does not fit the guest's memory",
    why="The image is loaded at address 0 and lies in memory beside the unpacked kernel and the pool.",
    effect="QEMU refuses to load it, or the kernel stops early for want of memory.",
    remedy="Give the guest more memory.",
    needs="the image (--image)",
)  # fmt: skip
def _fits(ctx: Context) -> Iterator[Hit]:
    image = ctx.guest.image if ctx.guest is not None else None
    if image is None or ctx.domain.memory is None or ctx.guest is None:
        return
    memory = show_size(ctx.domain.memory)
    pool = ctx.guest.pool or DEFAULT_SLOTS * SLOT_SIZE
    needed = image.end + pool + KERNEL_RESERVE
    if image.end > ctx.domain.memory:
        yield Hit(ctx.root.find("memory"), f"{image.name} needs {show_size(image.end)}, the guest has {memory}")
    elif needed > ctx.domain.memory:
        message = f"{image.name}, its pool and {show_size(KERNEL_RESERVE)} for the kernel take {show_size(needed)}"
        yield Hit(ctx.root.find("memory"), f"{message}, the guest has {memory}", severity=Severity.WARNING)


@TABLE.rule(
    "PV912", Severity.ERROR, "the image is not for this machine",
    why="An image has a key slot for each machine it was built for, named by the hash of the machine's host key.",
    effect="'KVM_PV_SET_SEC_PARMS failed: header rc 108 rrc 5' in QEMU's log, 'Protected boot has failed: 0xa02'.",
    remedy="Build the image with the machine's host-key document (zseal image create --host-key-document).",
    needs="the image and a host-key document (--image, --host-key-document)",
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
    "PV913", Severity.ERROR, "the kernel can't run as a protected guest",
    why="The kernel must share its bounce buffers with the host. Up to Linux 6.9 that needs the option "
    "CONFIG_PROTECTED_VIRTUALIZATION_GUEST; since 6.10 it is always there.",
    effect="The kernel boots protected, never shares a page, and sees no devices.",
    remedy="Use a kernel with the support; most distributions have it.",
    needs="the kernel (--kernel)",
)  # fmt: skip
def _kernel(ctx: Context) -> Iterator[Hit]:
    kernel = ctx.guest.kernel if ctx.guest is not None else None
    if kernel is None or kernel.supported:
        return
    release = f" ({kernel.release})" if kernel.release else ""
    if kernel.supported is None:
        message = f"it can't be told whether {kernel.name}{release} can run protected: {kernel.basis}"
        yield Hit(ctx.domain.kernel or ctx.root, message, severity=Severity.WARNING)
    else:
        message = f"{kernel.name}{release} has no support for running protected: {kernel.basis}"
        yield Hit(ctx.domain.kernel or ctx.root, message)


def _queues(ctx: Context) -> tuple[int, int, int]:
    """The numbers of disk queues, network queue pairs and other virtio devices the domain has."""
    disks = networks = others = 0
    for device in ctx.domain.virtio:
        number = device.driver.get("queues") if device.driver is not None else ""
        queues = min(max(int(number), 1), 1024) if number.isdecimal() and len(number) < 6 else 1
        if device.kind.rule in ("PV201", "PV203"):
            disks += queues
        elif device.kind.rule == "PV202":
            networks += queues
        else:
            others += 1
    return disks + sum(device.rule == "PV204" for device in ctx.domain.implicit), networks, others


@TABLE.rule(
    "PV914", Severity.WARNING, "the pool may be too small for the devices",
    why="An estimate of the most that can be in flight: 32 MiB for each disk queue, 17 MiB for each network queue "
    "pair, "
    "1 MiB for each other device.",
    effect="Under full load: 'swiotlb buffer is full' in the guest's log, slow or failing I/O.",
    remedy="Enlarge the pool, or use fewer queues.",
    needs=_PARMFILE,
)  # fmt: skip
def _sizing(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    if file is None or ctx.guest is None or any(s.junk or s.noforce for s in _swiotlbs(file)):
        return
    disks, networks, others = _queues(ctx)
    wanted = disks * BLOCK_QUEUE + networks * NETWORK_QUEUES + others * OTHER_DEVICE
    pool = ctx.guest.pool or 0
    if pool < wanted and pool < GIB:
        slots = min(1 << (wanted // SLOT_SIZE - 1).bit_length(), LARGEST_SLOTS)
        message = (
            f"{disks} disk queues, {networks} network queues and {others} other devices can have "
            f"{show_size(wanted)} in flight, the pool has {show_size(pool)}; swiotlb={slots} would hold it"
        )
        yield _hit(file, file.swiotlb.parameter if file.swiotlb else None, message)


_CONSOLE_TARGETS = {"ttyS0": "sclplm", "sclp_line0": "sclplm", "ttyS1": "sclp", "ttysclp0": "sclp", "hvc0": "virtio"}


@TABLE.rule(
    "PV915", Severity.WARNING, "the kernel's console is not in the domain",
    why="console=ttysclp0 (ttyS1) is the SCLP console, ttyS0 (sclp_line0) the line-mode one, hvc0 a virtio console.",
    effect="No messages of the guest on virsh console.",
    remedy="Add <console type='pty'><target type='sclp'/></console>, or change console=.",
    needs=_PARMFILE,
)  # fmt: skip
def _console_device(ctx: Context) -> Iterator[Hit]:
    file = _file(ctx)
    targets = set()
    for device in ctx.domain.devices.all("console", "serial"):
        target = device.find("target")
        kind = target.get("type") if target is not None else ""
        targets.add({"serial": "sclp", "": "sclp", "sclp-serial": "sclp"}.get(kind, kind))
    for parameter in file.parameters if file is not None else ():
        name = (parameter.value or "").partition(",")[0]
        wanted = _CONSOLE_TARGETS.get(name)
        if parameter.name == "console" and wanted and wanted not in targets and file is not None:
            yield _hit(file, parameter, f"{parameter.text} needs a console with target type {wanted} in the domain")
