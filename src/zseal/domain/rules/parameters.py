"""Rules about the kernel parameters in the image: PV901 to PV910."""

from __future__ import annotations

import re
from collections.abc import Iterator

from zseal.domain.edits import Change
from zseal.domain.guest import ParameterFile
from zseal.domain.rules.interface import FIX_PARAMETERS, Context, Hit, Input, Safety, Severity, Table
from zseal.domain.rules.memory import show_size
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
    """The parameters, where they are given."""
    return ctx.guest.parameters if ctx.guest is not None else None


def swiotlbs(file: ParameterFile | None) -> Iterator[Swiotlb]:
    """Every ``swiotlb=`` parameter; the last one decides."""
    for parameter in file.parameters if file is not None else ():
        if parameter.name == "swiotlb" and parameter.value is not None:
            yield parse_swiotlb(parameter)


def _resized(file: ParameterFile, swiotlb: Swiotlb, slots: int | None) -> Change:
    """The change that gives the pool ``slots`` and leaves force and noforce out; without any, the parameter goes."""
    if slots is None:
        return file.remove(swiotlb.parameter)
    areas = f",{swiotlb.areas}" if swiotlb.areas is not None else ""
    return file.replace(swiotlb.parameter, f"swiotlb={slots}{areas}")


@TABLE.rule(
    "PV901", Severity.WARNING, "no swiotlb parameter",
    why="Without it the pool of bounce buffers, through which all I/O goes, has 64 MiB.",
    effect=f"With several disks or queues: '{guest_kernel.SWIOTLB_FULL.text}' in the guest's log, slow or failing I/O.",
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
    why="It turns the bounce buffers off, and a protected guest has no other way to do I/O.",
    effect="No disk, no network.",
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
    "PV903", Severity.ERROR, "a swiotlb value that is not understood",
    why="The kernel reads a number of slots of 2 KiB. It knows no units: in swiotlb=512M it sees 512 slots, 1 MiB.",
    effect="A pool hundreds of times too small: I/O errors as soon as there is load.",
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
            read = "understood as nothing at all"
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
    why="Even the default of 64 MiB is little for a guest with load.",
    effect=f"'{guest_kernel.SWIOTLB_FULL.text}' in the guest's log, slow or failing I/O.",
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
    why="The pool must lie below 2 GiB in one piece, and it is taken from the guest's memory.",
    effect=f"The kernel shrinks it ('{guest_kernel.SWIOTLB_ADJUSTED.text}'), or the guest has too little left.",
    remedy=f"Use at most {LARGEST_SLOTS} slots (1 GiB), and at most half of the guest's memory.",
    safety=Safety.ASK, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _large(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    last = file.swiotlb if file is not None else None
    if file is None or last is None or last.slots is None or last.junk:
        return
    size = last.effective_slots() * SLOT_SIZE
    if last.slots > LARGEST_SLOTS:
        asked = show_size(last.slots * SLOT_SIZE)
        message = f"a pool of {asked} does not fit below 2 GiB and will be shrunk"
        yield parameter_hit(file, last.parameter, message, _resized(file, last, LARGEST_SLOTS))
    elif ctx.domain.memory is not None and size > ctx.domain.memory // 2:
        message = f"the pool of {show_size(size)} is more than half of the guest's {show_size(ctx.domain.memory)}"
        half = 1 << (ctx.domain.memory // 2 // SLOT_SIZE).bit_length() >> 1
        yield parameter_hit(file, last.parameter, message, _resized(file, last, half) if half else Change())


@TABLE.rule(
    "PV906", Severity.ADVICE, "a number of slots that is rounded up",
    why="The kernel rounds to a multiple of 128, and from Linux 6.0 on to a power of two.",
    effect="The pool takes more memory than was asked for.",
    remedy="Write the number that it is rounded to.",
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
    why="A protected guest bounces all I/O by itself.",
    effect="None.",
    remedy="Leave force out.",
    safety=Safety.SAFE, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _force(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    for swiotlb in swiotlbs(file):
        if swiotlb.force and file is not None:
            change = _resized(file, swiotlb, swiotlb.slots)
            yield parameter_hit(file, swiotlb.parameter, "force is not needed: protected guests always bounce", change)


@TABLE.rule(
    "PV908", Severity.WARNING, "a host's parameter in the guest",
    why="prot_virt=1 is for the kernel of the host. There is no nesting.",
    effect="None in the guest; perhaps it is missing on the host.",
    remedy="Remove it here, and see that the host has it.",
    safety=Safety.SAFE, needs=[Input.PARAMETERS], command=FIX_PARAMETERS,
)  # fmt: skip
def _host_parameter(ctx: Context) -> Iterator[Hit]:
    file = parameter_file(ctx)
    for parameter in file.parameters if file is not None else ():
        if parameter.name in ("prot_virt", "prot-virt") and file is not None:
            message = f"{parameter.text} belongs on the host's kernel command line"
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
    why="The console is a device of the host. Whoever is there types into what the parameter starts.",
    effect="A shell inside the protected guest for the host's administrator.",
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
            reason = "makes systemd start a login there"
            change = file.append("systemd.getty_auto=0")
        if reason:
            yield parameter_hit(file, parameter, f"{parameter.text} {reason}, where the host can type", change)


@TABLE.rule(
    "PV910", Severity.WARNING, "the emergency shell is not disabled",
    why="When the root disk can't be found or opened, ramdisks offer a shell on the console, and the host causes "
    "that at "
    "will: it takes the disk away.",
    effect="Whoever is at the host's console reads the secrets in the ramdisk.",
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
    message = "no panic=0, rd.shell=0 or rd.emergency=halt: the ramdisk's emergency shell stays open"
    yield parameter_hit(file, None, message, file.append("rd.shell=0 rd.emergency=halt"))
