"""Checks of KVM: that it is usable, and that its parameters suit protected guests."""

from __future__ import annotations

from zseal.readiness.checks.interface import Check, Judgement, failed, not_applicable, passed, warned
from zseal.readiness.facts import HostFacts


class KvmDevice(Check):
    """Whether KVM can be used."""

    id = "kvm"
    title = "KVM"
    meaning = "Protected guests are KVM guests: QEMU refuses them with any other accelerator."

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the ``sie`` feature and ``/dev/kvm``."""
        features = facts.cpu.features if facts.cpu else None
        if features is not None and "sie" not in features:
            return failed("the CPUs offer no SIE: this system cannot run KVM guests", "run it in an LPAR")
        if facts.kvm_device is None:
            return not_applicable("/dev/kvm was not checked")
        if not facts.kvm_device.exists:
            return failed("/dev/kvm is missing", "modprobe kvm, and load it at boot (/etc/modules-load.d/kvm.conf)")
        if not facts.kvm_device.accessible:
            return warned(
                "/dev/kvm exists, but this user may not open it",
                "run the check as root, or add the user to the group kvm; libvirt's system daemon is not affected",
            )
        return passed("/dev/kvm is accessible")


class KvmHugePages(Check):
    """The host's part of the ban on huge pages."""

    id = "kvm-hpage"
    title = "KVM huge page backing"
    meaning = (
        "A guest backed by huge pages cannot enter protected mode. The parameter only permits such backing: protected "
        "guests themselves must have none."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the ``hpage`` parameter."""
        value = facts.kvm_parameters.get("hpage")
        if value is None:
            return not_applicable("the kvm module has no hpage parameter here, or is not loaded")
        if value in ("1", "Y"):
            return warned(
                "hpage=1: guests may be backed by huge pages",
                "keep <hugepages> out of protected domains (zseal domain lint reports it), or load kvm with hpage=0",
            )
        return passed(f"hpage={value}")


class KvmAsyncDestroy(Check):
    """Fast reboot of large guests."""

    id = "kvm-async-destroy"
    title = "Asynchronous teardown"
    meaning = (
        "Memory of a protected guest is cleared page by page when it ends or reboots; newer kernels do it in the "
        "background, which saves minutes with large guests."
    )

    def judge(self, facts: HostFacts) -> Judgement:
        """Judge the ``async_destroy`` parameter."""
        value = facts.kvm_parameters.get("async_destroy")
        if value is None:
            return not_applicable("this kernel's kvm module has no async_destroy parameter")
        if value in ("1", "Y"):
            return passed("async_destroy is on")
        return warned("async_destroy is off: large guests reboot slowly", "load kvm with async_destroy=1")


CHECKS: tuple[Check, ...] = (KvmDevice(), KvmHugePages(), KvmAsyncDestroy())
