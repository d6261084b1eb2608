"""Rules about the kernel parameters in the image: PV901 to PV910."""

from __future__ import annotations

import re
from collections.abc import Iterator

from zseal.domain.edits import Change
from zseal.domain.guest import ParameterFile
from zseal.domain.rules.interface import FIX_PARAMETERS, Context, Hit, Input, Safety, Severity, Table
from zseal.domain.rules.memory import show_size, usable_memory
from zseal.linux.cmdline import KernelParameter
from zseal.linux.swiotlb import DEFAULT_SLOTS, LARGEST_SLOTS, RECOMMENDED_SLOTS, SLOT_SIZE, Swiotlb, parse_swiotlb
from zseal.messages import guest_kernel

TABLE = Table(__name__)

_SIZES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parameter_hit(
    file: ParameterFile,
    parameter: KernelParameter | None,
    message: str,
    change: Change = Change(),  # noqa: B008 - immutable
) -> Hit:
    """A hit at a parameter, or at the beginning of the file for None."""
    return Hit(None, message, change, place=(file.name, file.position(parameter)))


def parameter_file(ctx: Context) -> ParameterFile | None:
    """The parameters, or None if they are not given."""
    return ctx.guest.parameters if ctx.guest is not None else None


def swiotlbs(file: ParameterFile | None) -> Iterator[Swiotlb]:
    """Every ``swiotlb=`` parameter; the last one decides."""
    for parameter in file.parameters if file is not None else ():
        if parameter.name == "swiotlb" and parameter.value is not None:
            yield parse_swiotlb(parameter)


def _resized(file: ParameterFile, swiotlb: Swiotlb, slots: int | None) -> Change:
    """The change that sets the pool to ``slots`` without force and noforce; None removes the parameter."""
    if slots is None:
        return file.remove(swiotlb.parameter)
    areas = f",{swiotlb.areas}" if swiotlb.areas is not None else ""
    return file.replace(swiotlb.parameter, f"swiotlb={slots}{areas}")


@TABLE.rule(
    "PV901", Severity.WARNING, "no swiotlb parameter",
    why="Without it the bounce-buffer pool, through which all I/O goes, has 64 MiB.",
    effect=f"With several disks or queues I/O is slow or fails, and the guest logs '{guest_kernel.SWIOTLB_FULL.text}'.",
    remedy=f"Add swiotlb={RECOMMENDED_SLOTS} (512 MiB) to the parameters in the image.",
    safety=Safety.ASK, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _absent(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    if file is not None and not any(s.slots is not None or s.noforce for s in swiotlbs(file)):
        yield parameter_hit(
            file, None, "no swiotlb size: the default pool is 64 MiB", file.append(f"swiotlb={RECOMMENDED_SLOTS}")
        )


@TABLE.rule(
    "PV902", Severity.ERROR, "swiotlb=noforce",
    why="noforce turns the bounce buffers off, and a protected guest cannot do I/O without them.",
    effect="The guest does not have disks or a network.",
    remedy="Remove noforce.",
    safety=Safety.SAFE, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _noforce(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    for swiotlb in swiotlbs(file):
        if swiotlb.noforce and file is not None:
            change = _resized(file, swiotlb, swiotlb.slots)
            yield parameter_hit(file, swiotlb.parameter, "swiotlb=noforce leaves a protected guest without I/O", change)


@TABLE.rule(
    "PV903", Severity.ERROR, "a swiotlb value that the kernel does not understand",
    why="The kernel reads a number of slots of 2 KiB and does not know units: it reads swiotlb=512M as 512 slots, 1 "
    "MiB.",
    effect="The pool is hundreds of times too small, and I/O fails under load.",
    remedy="Write the number of slots: MiB × 512.",
    safety=Safety.SAFE, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _junk(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    for swiotlb in swiotlbs(file):
        if not swiotlb.junk or file is None:
            continue
        change = Change()
        if swiotlb.slots is None:
            read = "ignored"
        else:
            read = f"read as {swiotlb.slots} slots = {show_size(swiotlb.slots * SLOT_SIZE)}"
            unit = _SIZES.get(swiotlb.junk[:1].lower())
            if unit:
                meant = swiotlb.slots * unit // SLOT_SIZE
                read += f"; write {meant}"
                change = _resized(file, swiotlb, meant)
        yield parameter_hit(file, swiotlb.parameter, f"{swiotlb.parameter.text} is {read}", change)


@TABLE.rule(
    "PV904", Severity.WARNING, "a pool smaller than the default",
    why="Even the default of 64 MiB is small for a busy guest.",
    effect=f"I/O is slow or fails, and the guest logs '{guest_kernel.SWIOTLB_FULL.text}'.",
    remedy=f"Use swiotlb={RECOMMENDED_SLOTS}, or at least {DEFAULT_SLOTS}.",
    safety=Safety.ASK, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _small(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    last = file.swiotlb if file is not None else None
    if file is None or last is None or last.slots is None or last.junk:
        return
    if last.effective_slots() < DEFAULT_SLOTS:
        size = show_size(last.effective_slots() * SLOT_SIZE)
        message = f"the pool of {size} is smaller than the default of 64 MiB"
        yield parameter_hit(file, last.parameter, message, _resized(file, last, RECOMMENDED_SLOTS))


@TABLE.rule(
    "PV905", Severity.WARNING, "a very large pool",
    why="The pool must be one piece below 2 GiB, and it is taken from the guest's memory.",
    effect=f"The kernel shrinks the pool ('{guest_kernel.SWIOTLB_SHRUNK.text}'), or the guest has too little memory "
    "left.",
    remedy=f"Use at most {LARGEST_SLOTS} slots (1 GiB), and at most half of the guest's memory.",
    safety=Safety.ASK, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _large(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    last = file.swiotlb if file is not None else None
    if file is None or last is None or last.slots is None or last.junk:
        return
    size = last.effective_slots() * SLOT_SIZE
    memory = usable_memory(ctx)
    if last.slots > LARGEST_SLOTS:
        asked = show_size(last.slots * SLOT_SIZE)
        message = f"a pool of {asked} does not fit below 2 GiB; the kernel shrinks it"
        yield parameter_hit(file, last.parameter, message, _resized(file, last, LARGEST_SLOTS))
    elif memory is not None and size > memory.size // 2:
        message = f"the pool of {show_size(size)} is more than half of the guest's {memory}"
        half = 1 << (memory.size // 2 // SLOT_SIZE).bit_length() >> 1
        yield parameter_hit(file, last.parameter, message, _resized(file, last, half) if half else Change())


@TABLE.rule(
    "PV906", Severity.ADVICE, "a number of slots that the kernel rounds up",
    why="The kernel rounds up to a multiple of 128, and since Linux 6.0 to a power of two.",
    effect="The pool is larger than the parameter says.",
    remedy="Write the rounded number.",
    safety=Safety.SAFE, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _rounded(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    for swiotlb in swiotlbs(file):
        if file is not None and swiotlb.slots and not swiotlb.junk and swiotlb.slots <= LARGEST_SLOTS:
            effective = swiotlb.effective_slots()
            if effective != swiotlb.slots:
                message = f"{swiotlb.slots} slots are rounded up to {effective} ({show_size(effective * SLOT_SIZE)})"
                change = _resized(file, swiotlb, effective)
                yield parameter_hit(file, swiotlb.parameter, message, change)


@TABLE.rule(
    "PV907", Severity.ADVICE, "swiotlb=force",
    why="A protected guest always uses bounce buffers for all I/O.",
    effect="None.",
    remedy="Remove force.",
    safety=Safety.SAFE, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _force(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    for swiotlb in swiotlbs(file):
        if swiotlb.force and file is not None:
            change = _resized(file, swiotlb, swiotlb.slots)
            yield parameter_hit(
                file, swiotlb.parameter, "force is not needed: protected guests always use bounce buffers", change
            )


@TABLE.rule(
    "PV908", Severity.WARNING, "a host's parameter in the guest",
    why="prot_virt=1 is a parameter of the host's kernel. A protected guest cannot host protected guests.",
    effect="None in the guest; the host may lack the parameter.",
    remedy="Remove it, and check that the host's kernel has it.",
    safety=Safety.SAFE, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _host_parameter(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    for parameter in file.parameters if file is not None else ():
        if parameter.name in ("prot_virt", "prot-virt") and file is not None:
            message = f"{parameter.text} belongs to the host's kernel parameters"
            yield parameter_hit(file, parameter, message, file.remove(parameter))


_SHELLS = re.compile(r"(?:/usr)?/bin/(?:ba|da|k|z|a)?sh$")
_CONSOLE = re.compile(r"(ttyS\d|ttysclp\d|sclp_line\d|hvc\d)(?:,|$)")
_NO_GETTY = {"systemd.getty_auto": ("0", "no", "off", "false")}


def _opens_shell(parameter: KernelParameter) -> str:
    value = parameter.value or ""
    if parameter.name in ("init", "rdinit") and _SHELLS.match(value):
        return "starts a shell instead of the system"
    if parameter.name == "rd.break" or (parameter.name == "rd.shell" and value not in ("0", "no")):
        return "opens a shell in the ramdisk"
    return ""


@TABLE.rule(
    "PV909", Severity.WARNING, "a shell or a login on the host's console",
    why="The console is a device of the host. Its users can type into the program that the parameter starts.",
    effect="The host's administrator gets a shell inside the protected guest.",
    remedy="Remove the parameter; with console= also give systemd.getty_auto=0.",
    safety=Safety.ASK, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _shell(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    if file is None:
        return
    no_getty = any(p.value in _NO_GETTY.get(p.name, ()) for p in file.parameters)
    for parameter in file.parameters:
        reason = _opens_shell(parameter)
        change = file.remove(parameter)
        if not reason and parameter.name == "console" and _CONSOLE.match(parameter.value or "") and not no_getty:
            reason = "makes systemd start a login on the console"
            change = file.append("systemd.getty_auto=0")
        if reason:
            yield parameter_hit(file, parameter, f"{parameter.text} {reason}, into which the host can type", change)


@TABLE.rule(
    "PV910", Severity.WARNING, "the emergency shell is not disabled",
    why="If a ramdisk cannot find or open the root disk, it starts a shell on the console, and the host can cause "
    "that by removing the disk.",
    effect="Users of the host's console can read the secrets in the ramdisk.",
    remedy="Add rd.shell=0 rd.emergency=halt (dracut) or panic=0 (initramfs-tools).",
    safety=Safety.ASK, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _emergency(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    if file is None:
        return
    for parameter in file.parameters:
        value = parameter.value or ""
        if parameter.name == "panic" or (parameter.name == "rd.shell" and value in ("0", "no")):
            return
        if parameter.name == "rd.emergency" and value in ("halt", "poweroff", "reboot"):
            return
    message = "no panic=0, rd.shell=0 or rd.emergency=halt: the ramdisk's emergency shell is enabled"
    yield parameter_hit(file, None, message, file.append("rd.shell=0 rd.emergency=halt"))
