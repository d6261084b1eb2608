"""What this host offers in addition to running protected guests, and the tools found on it."""

from __future__ import annotations

from zseal.readiness.checks.interface import Check, Judgement, not_applicable, passed, warned
from zseal.readiness.facts import HostFacts, find_version
from zseal.readiness.source import CommandResult

_NEWER = "the firmware does not offer it (it came with z16), or the kernel does not show it"


class HostKey(Check):
    """Whether the host shows its key hashes."""

    id = "host-key"
    title = "Host key hash"
    meaning = (
        "Newer kernels show the hashes of the installed host keys: with them, zseal image test shows whether this host "
        "can open an image."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge ``/sys/firmware/uv/keys/all``."""
        if not facts.key_hashes:
            return not_applicable("this kernel or firmware does not show the hashes")
        used = [h for h in facts.key_hashes[:2] if h.strip("0")]
        if not used:
            return warned("all hashes are zero: no host key is installed", "ask IBM support: a host always has one")
        backup = ", and a backup key" if len(used) > 1 else ""
        return passed(f"{used[0][:16]}…{backup}; zseal image test --key-hashes IMAGE compares an image with it")


class _Offered(Check):
    """An ability that the ultravisor announces by a non-zero value."""

    def value(self, facts: HostFacts) -> int | None:
        """Return the announced value."""
        raise NotImplementedError

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge whether the value exists and is not zero."""
        return passed("offered") if self.value(facts) else not_applicable(_NEWER)


class Attestation(_Offered):
    """Explicit attestation of guests."""

    id = "attestation"
    title = "Attestation"
    meaning = "Guests can prove to their owner which image they run and that they run protected."

    def value(self, facts: HostFacts) -> int | None:
        """Return the supported attestation request versions."""
        return facts.attestation_versions


class GuestDump(_Offered):
    """Encrypted dumps of guests."""

    id = "guest-dump"
    title = "Encrypted guest dumps"
    meaning = "virsh dump --memory-only of images that permit it gives a dump that only their owner can read."

    def value(self, facts: HostFacts) -> int | None:
        """Return the size of the storage state."""
        return facts.dump_lengths


class GuestSecrets(_Offered):
    """Secrets for guests."""

    id = "guest-secrets"
    title = "Guest secrets"
    meaning = "Owners can send secrets to the ultravisor for one guest by add-secret requests."

    def value(self, facts: HostFacts) -> int | None:
        """Return the supported add-secret request versions."""
        return facts.secret_versions


_OURS = "(zseal "
"""Marks the version line of the commands that zseal installs under IBM's names."""


def _version_text(name: str, answer: CommandResult | None) -> str | None:
    if answer is None or not answer.ok:
        return None
    text = answer.stdout + answer.stderr
    if _OURS in text:
        return f"{name} of zseal"
    version = find_version(text)
    return f"{name} {version}" if version else name


class ImageBuilder(Check):
    """IBM's image tools."""

    id = "image-builder"
    title = "pvimg or genprotimg"
    meaning = (
        "Images can be built anywhere, on a trusted computer rather than on the host. zseal image create builds them "
        "too."
    )
    only_ibm_z = False

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the tools' own version answers."""
        if facts.pvimg is None and facts.genprotimg is None:
            return not_applicable("not checked")
        tools = [t for t in (_version_text("pvimg", facts.pvimg), _version_text("genprotimg", facts.genprotimg)) if t]
        if tools:
            return passed(", ".join(tools))
        return warned("neither is installed", "use zseal image create, or install s390-tools")


class SoftwareMachine(Check):
    """The needs of zseal itself to run a protected guest here."""

    id = "software-machine"
    title = "Software ultravisor"
    meaning = "zseal run boots an image as a protected guest without IBM Z hardware, on QEMU's emulation of s390x."
    only_ibm_z = False

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge whether a QEMU for s390x is installed."""
        if facts.is_s390x:
            return not_applicable("this is the real thing")
        if facts.qemu is None:
            return not_applicable("QEMU was not checked")
        if not facts.qemu.installed:
            return warned(
                "qemu-system-s390x is not installed",
                "install it (Debian, Ubuntu: qemu-system-misc; Fedora: qemu-system-s390x), then zseal demo",
            )
        version = find_version(facts.qemu.stdout)
        return passed(f"QEMU {version or ''} is installed: try zseal demo".replace("  ", " "))


CHECKS: tuple[Check, ...] = (
    HostKey(),
    Attestation(),
    GuestDump(),
    GuestSecrets(),
    ImageBuilder(),
    SoftwareMachine(),
)
