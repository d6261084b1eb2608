"""Saves what the checks read of a host, so that ``zseal host check --root`` can check it on another computer.

A capture contains no secrets: only kernel parameters known to be harmless keep their values, only lines about protected
virtualization are kept of the kernel's log, and serial numbers are masked.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from zseal.errors import OutputError
from zseal.files import write_atomic
from zseal.linux.cmdline import split_command_line
from zseal.readiness.commands import ALL_COMMANDS
from zseal.readiness.cpuinfo import MASKED
from zseal.readiness.facts import KVM_PARAMETERS, MAX_CACHE_FILES, UV
from zseal.readiness.source import DEVICE_TEXT, LIBVIRT_CACHE, HostSource

# parameters whose values matter for protected guests and reveal nothing about the site
_HARMLESS = re.compile(
    r"prot[-_]?virt|swiotlb|vmalloc|mem|elfcorehdr|crashkernel|cmma|nohugepages|(default_)?hugepagesz|hugepages"
    r"|transparent_hugepage|kvm\..*|facilities|nosmt|nr_cpus|possible_cpus|maxcpus",
    re.IGNORECASE,
)


def _masked_command_line(text: str) -> str:
    words = []
    for parameter in split_command_line(text):
        if parameter.value is None or _HARMLESS.fullmatch(parameter.name):
            # a word without a value could still be anything after the -- that ends the kernel's parameters
            words.append(parameter.text if _HARMLESS.fullmatch(parameter.name) else "...")
        else:
            words.append(f"{parameter.name}=...")
    return " ".join(words) + "\n"


def _masked_cpuinfo(text: str) -> str:
    return re.sub(r"(identification\s*[=:]\s*)[0-9A-Fa-f]+", r"\g<1>000000", text)


def _masked_sysinfo(text: str) -> str:
    text = re.sub(r"(?m)^((?:Permanent |Temporary )?(?:Sequence Code|Plant):\s*).*$", rf"\g<1>{MASKED}", text)
    return re.sub(r"(?m)^((?:LPAR|VM\d\d) (?:Extended )?(?:Name|UUID):\s*).*$", rf"\g<1>{MASKED}", text)


def _masked_uname(text: str) -> str:
    # some builders put their own name into the kernel's version
    return re.sub(r"\([^)]*@[^)]*\)", f"({MASKED})", text)


_FILES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("/proc/cmdline", _masked_command_line),
    ("/proc/cpuinfo", _masked_cpuinfo),
    ("/proc/sysinfo", _masked_sysinfo),
)
_DIRECTORIES = (UV, f"{UV}/query", f"{UV}/keys", KVM_PARAMETERS)
_DEVICES = ("/dev/kvm",)


@dataclasses.dataclass(frozen=True)
class _Item:
    path: str
    text: str


def _processes(source: HostSource) -> Iterator[_Item]:
    for path, mask in _FILES:
        text = source.text(path)
        if text is not None:
            yield _Item(path, mask(text))


def _firmware(source: HostSource) -> Iterator[_Item]:
    # containers show an empty directory, so a directory with other content must not be captured as empty
    names = source.names("/sys/firmware")
    if names is None:
        return
    yield _Item("/sys/firmware/.keep", "")
    for name in names:
        if name != "uv" and source.names(f"/sys/firmware/{name}") is not None:
            yield _Item(f"/sys/firmware/{name}/.keep", "")


def _directories(source: HostSource) -> Iterator[_Item]:
    for directory in _DIRECTORIES:
        names = source.names(directory)
        if names is not None:
            yield _Item(f"{directory}/.keep", "")
        for name in names or ():
            text = source.text(f"{directory}/{name}")
            if text is not None:
                yield _Item(f"{directory}/{name}", text)


def _cache(source: HostSource) -> Iterator[_Item]:
    names = source.names(LIBVIRT_CACHE)
    if names is None:
        return
    yield _Item(f"{LIBVIRT_CACHE}/.keep", "")
    for name in [name for name in names if name.endswith(".xml")][:MAX_CACHE_FILES]:
        text = source.text(f"{LIBVIRT_CACHE}/{name}")
        if text is not None and "<arch>s390x</arch>" in text:
            yield _Item(f"{LIBVIRT_CACHE}/{name}", text)


def _devices(source: HostSource) -> Iterator[_Item]:
    for device in _DEVICES:
        state = source.device(device)
        if state is not None:
            yield _Item(device, DEVICE_TEXT.get(state, "missing\n"))


def _commands(source: HostSource) -> Iterator[_Item]:
    for command in ALL_COMMANDS:
        answer = source.run(command)
        if answer is None:
            continue
        stem = f"/commands/{command.name}"
        mask_output = _masked_uname if command.name == "uname" else str
        yield _Item(f"{stem}.status", f"{answer.status}\n")
        for suffix, text in (("out", answer.stdout), ("err", answer.stderr)):
            if text:
                yield _Item(f"{stem}.{suffix}", mask_output(text))


_PARTS = (_processes, _firmware, _directories, _cache, _devices, _commands)


def capture_host(source: HostSource, directory: Path) -> tuple[Path, ...]:
    """Save the answers of ``source`` in the new or empty ``directory`` and return the files, sorted.

    Raises OutputError if the directory is not empty or cannot be written.
    """
    try:
        if directory.exists() and any(directory.iterdir()):
            raise OutputError("the directory is not empty", where=str(directory), hint="give a new directory")
        written = []
        for item in itertools.chain.from_iterable(part(source) for part in _PARTS):
            path = directory / item.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, item.text.encode(), overwrite=False, mode=0o644)
            written.append(path)
    except OSError as error:
        raise OutputError(f"cannot write the capture: {error.strerror or error}", where=str(directory)) from error
    return tuple(sorted(written))
