"""What QEMU prints about protected guests, and where it refuses them."""

from __future__ import annotations

from zseal.messages.message import Meaning, Message, Role

QEMU = "QEMU"

SET_SEC_PARMS_FAILED = Message(
    "SET_SEC_PARMS_FAILED",
    QEMU,
    "Failed to set secure execution parameters",
    Meaning(
        "the ultravisor refused the image's header",
        "the image is not built for this machine, or its header is damaged",
        "explain the line with KVM PV command next to it; zseal image test IMAGE -k DOCUMENT",
    ),
    Role.CONSEQUENCE,
)
HUGE_PAGES = Message(
    "HUGE_PAGES",
    QEMU,
    "Protected VMs can currently not be backed with huge pages",
    Meaning(
        "guests backed by huge pages cannot enter protected mode",
        "<hugepages> in the domain, or -mem-path on hugetlbfs",
        "remove <memoryBacking><hugepages/> from the domain (zseal domain fix)",
    ),
)
NOT_MIGRATABLE = Message(
    "NOT_MIGRATABLE",
    QEMU,
    "protected VMs are currently not migratable",
    Meaning(
        "protected guests cannot be migrated, saved or snapshotted with memory",
        "virsh migrate, save, managedsave, snapshot or a plain dump of a protected guest",
        "shut it down instead; dumps work with virsh dump --memory-only where the image permits them",
    ),
)
RAM_DISCARD = Message(
    "RAM_DISCARD",
    QEMU,
    "cannot disable RAM discard",
    Meaning(
        "a device insists on giving memory back to the host, which protected guests cannot do",
        "virtio-mem, or another device that needs discard",
        "remove memory hotplug devices from the domain",
    ),
)
NEEDS_KVM = Message(
    "NEEDS_KVM",
    QEMU,
    "Protected Virtualization requires KVM",
    Meaning(
        "the protected-guest object works with KVM only",
        "the domain has type qemu, or KVM is not usable on this host",
        "zseal host check on the host; without IBM Z hardware use zseal run",
    ),
)
CPU_MODEL = Message(
    "CPU_MODEL",
    QEMU,
    "CPU model does not support Protected Virtualization",
    Meaning(
        "the guest's CPU model lacks the feature unpack",
        (
            "a custom model without <feature policy='require' name='unpack'/>, a model before generation 15, or a"
            " host that does not offer it"
        ),
        "use <cpu mode='host-model'/> (zseal domain fix); zseal host check on the host",
    ),
)
TOO_MANY_CPUS = Message(
    "TOO_MANY_CPUS",
    QEMU,
    "Protected VMs support a maximum of",
    Meaning(
        "the guest has more CPUs than fit one service call block",
        "more than 247 CPUs",
        "use 247 or fewer",
    ),
)
ONLY_MIGRATABLE = Message(
    "ONLY_MIGRATABLE",
    QEMU,
    "unpack facility is not compatible with the --only-migratable",
    Meaning(
        "a guest that must be migratable cannot become protected",
        "-only-migratable with a CPU model that has unpack",
        "drop the option",
    ),
)
NO_PV_OBJECT = Message(
    "NO_PV_OBJECT",
    QEMU,
    "invalid object type: s390-pv-guest",
    Meaning(
        "this QEMU has no object for protected guests",
        "QEMU before 6.0, or one not built on s390x with KVM",
        "install the distribution's s390x build; zseal host check on the host",
    ),
)
CPU_FEATURES = Message(
    "CPU_FEATURES",
    QEMU,
    "Some features requested in the CPU model are not available",
    Meaning(
        "the host does not offer a CPU feature that the domain requires, unpack for one",
        "the host is not set up, or QEMU emulates the CPU (TCG has no unpack)",
        "zseal host check on the host; without IBM Z hardware use zseal run",
    ),
)
PCI_ONLY_OPTION = Message(
    "PCI_ONLY_OPTION",
    QEMU,
    "Property 'virtio-…' not found",
    Meaning(
        "a device got an option that only virtio-pci devices have",
        "ats='on' or page_per_vq='on' on a driver of a CCW device",
        "remove the attribute (zseal domain fix)",
    ),
)
PCI_ONLY_MODEL = Message(
    "PCI_ONLY_MODEL",
    QEMU,
    "is not a valid device model name",
    Meaning(
        "the device model does not exist on this machine",
        "model='virtio-transitional' or 'virtio-non-transitional', which only PCI has",
        "use model='virtio' (zseal domain fix)",
    ),
)

MESSAGES = (
    SET_SEC_PARMS_FAILED,
    HUGE_PAGES,
    NOT_MIGRATABLE,
    RAM_DISCARD,
    NEEDS_KVM,
    CPU_MODEL,
    TOO_MANY_CPUS,
    ONLY_MIGRATABLE,
    NO_PV_OBJECT,
    CPU_FEATURES,
    PCI_ONLY_OPTION,
    PCI_ONLY_MODEL,
)
