"""The facts about one host, gathered once from a host source, that the checks judge."""

from __future__ import annotations

import dataclasses
import re

from zseal.errors import FormatError
from zseal.libvirt.capabilities import (
    CachedEmulator,
    DomainCapabilities,
    parse_cached_emulator,
    parse_domain_capabilities,
)
from zseal.readiness import commands
from zseal.readiness.cpuinfo import CpuInfo, SysInfo, parse_cpuinfo, parse_sysinfo
from zseal.readiness.source import LIBVIRT_CACHE, CommandResult, DeviceState, HostSource

UV = "/sys/firmware/uv"
KVM_PARAMETERS = "/sys/module/kvm/parameters"
# more than any host has emulators
MAX_CACHE_FILES = 64


@dataclasses.dataclass(frozen=True, order=True)
class Version:
    """A program's version, compared number by number."""

    major: int
    minor: int = 0
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def find_version(text: str) -> Version | None:
    """Return the first ``N.N`` or ``N.N.N`` in ``text``."""
    match = re.search(r"(?<![\d.])(\d{1,5})\.(\d{1,5})(?:\.(\d{1,5}))?", text)
    return Version(int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


@dataclasses.dataclass(frozen=True)
class HostFacts:
    """Everything known about a host; None always means "not known", never "no"."""

    architecture: str | None
    kernel: Version | None
    kernel_identity: str | None
    cpu: CpuInfo | None
    system: SysInfo | None
    command_line: str | None
    uv_directory: bool | None
    firmware_masked: bool
    prot_virt_host: bool | None
    prot_virt_guest: bool | None
    kernel_log: str | None
    kvm_device: DeviceState | None
    kvm_parameters: dict[str, str]
    qemu: CommandResult | None
    qemu_objects: CommandResult | None
    libvirt: CommandResult | None
    domain_capabilities_answer: CommandResult | None
    domain_capabilities: DomainCapabilities | None
    domain_capabilities_problem: str | None
    cache: tuple[CachedEmulator, ...] | None
    host_validate: CommandResult | None
    pvimg: CommandResult | None
    genprotimg: CommandResult | None
    key_hashes: tuple[str, ...] | None
    attestation_versions: int | None
    dump_lengths: int | None
    secret_versions: int | None

    @property
    def is_s390x(self) -> bool:
        """Whether this is a z/Architecture Linux, or a capture that does not state it but looks like one."""
        if self.architecture is not None:
            return self.architecture == "s390x"
        described = self.cpu is not None and (self.cpu.facilities is not None or self.cpu.machine is not None)
        machine = self.system is not None and self.system.machine is not None
        return described or machine or self.uv_directory is True  # no other architecture has an ultravisor directory

    @property
    def machine(self) -> str | None:
        """The four-digit machine type."""
        return (self.cpu.machine if self.cpu else None) or (self.system.machine if self.system else None)


def _boolean(text: str | None) -> bool | None:
    return {"1": True, "0": False}.get((text or "").strip())


def _hexadecimal(text: str | None) -> int | None:
    digits = (text or "").strip().removeprefix("0x")
    return int(digits, 16) if re.fullmatch(r"[0-9A-Fa-f]{1,16}", digits) else None


def _uname(source: HostSource) -> tuple[str | None, str | None]:
    """Return the architecture and the kernel's "RELEASE VERSION"."""
    answer = source.run(commands.UNAME)
    # the answer is "Linux RELEASE VERSION ARCHITECTURE", VERSION being several words
    words = answer.stdout.split() if answer is not None and answer.ok else []
    if len(words) < 4:
        return None, None
    return words[-1], " ".join(words[1:-1])


def _kernel_log(source: HostSource) -> str | None:
    texts = []
    for command in (commands.KERNEL_LOG, commands.KERNEL_JOURNAL):
        answer = source.run(command)
        if answer is not None and answer.ok:
            texts.append(answer.stdout)
    return "".join(texts) if texts else None


def read_cache(source: HostSource, directory: str = LIBVIRT_CACHE) -> tuple[CachedEmulator, ...] | None:
    """Return libvirt's cached descriptions of s390x emulators, or None if the directory cannot be read.

    Other files are skipped.
    """
    names = source.names(directory)
    if names is None:
        return None
    entries = []
    for name in [n for n in names if n.endswith(".xml")][:MAX_CACHE_FILES]:
        text = source.text(f"{directory}/{name}")
        if text is None:
            continue
        try:
            entry = parse_cached_emulator(name, text.encode())
        except FormatError:
            continue
        if entry.arch == "s390x":
            entries.append(entry)
    return tuple(entries)


def _domain_capabilities(answer: CommandResult | None) -> tuple[DomainCapabilities | None, str | None]:
    if answer is None:
        return None, None
    if not answer.installed:
        return None, "virsh is not installed"
    if not answer.ok:
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        return None, lines[-1].strip() if lines else f"virsh ended with status {answer.status}"
    try:
        return parse_domain_capabilities(answer.stdout.encode()), None
    except FormatError as error:
        return None, str(error)


def _key_hashes(source: HostSource) -> tuple[str, ...] | None:
    text = source.text(f"{UV}/keys/all")
    if text is None:
        return None
    return tuple(line.strip() for line in text.splitlines() if re.fullmatch(r"[0-9A-Fa-f]{64}", line.strip()))


def gather(source: HostSource) -> HostFacts:
    """Ask ``source`` everything once."""
    architecture, kernel_identity = _uname(source)
    cpuinfo = source.text("/proc/cpuinfo")
    sysinfo = source.text("/proc/sysinfo")
    command_line = source.text("/proc/cmdline")
    capabilities_answer = source.run(commands.DOMAIN_CAPABILITIES)
    capabilities, problem = _domain_capabilities(capabilities_answer)
    parameters = {
        name: (source.text(f"{KVM_PARAMETERS}/{name}") or "").strip() for name in source.names(KVM_PARAMETERS) or ()
    }
    return HostFacts(
        architecture=architecture,
        kernel=find_version(kernel_identity or ""),
        kernel_identity=kernel_identity,
        cpu=None if cpuinfo is None else parse_cpuinfo(cpuinfo),
        system=None if sysinfo is None else parse_sysinfo(sysinfo),
        command_line=None if command_line is None else command_line.strip(),
        # a capture without /sys says nothing about a directory in it
        uv_directory=None if source.names("/sys") is None else source.names(UV) is not None,
        firmware_masked=source.names("/sys/firmware") == (),
        prot_virt_host=_boolean(source.text(f"{UV}/prot_virt_host")),
        prot_virt_guest=_boolean(source.text(f"{UV}/prot_virt_guest")),
        kernel_log=_kernel_log(source),
        kvm_device=source.device("/dev/kvm"),
        kvm_parameters=parameters,
        qemu=source.run(commands.QEMU_VERSION),
        qemu_objects=source.run(commands.QEMU_OBJECTS),
        libvirt=source.run(commands.LIBVIRT_VERSION),
        domain_capabilities_answer=capabilities_answer,
        domain_capabilities=capabilities,
        domain_capabilities_problem=problem,
        cache=read_cache(source),
        host_validate=source.run(commands.HOST_VALIDATE),
        pvimg=source.run(commands.PVIMG_VERSION),
        genprotimg=source.run(commands.GENPROTIMG_VERSION),
        key_hashes=_key_hashes(source),
        attestation_versions=_hexadecimal(source.text(f"{UV}/query/supp_att_req_hdr_ver")),
        dump_lengths=_hexadecimal(source.text(f"{UV}/query/dump_storage_state_len")),
        secret_versions=_hexadecimal(source.text(f"{UV}/query/supp_add_secret_req_ver")),
    )
