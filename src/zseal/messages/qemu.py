"""What QEMU prints about protected guests, and when it refuses them."""

from __future__ import annotations

from zseal.arch.sclp import PROTECTED_CPU_LIMIT
from zseal.messages.message import Meaning, Message, Role

QEMU = "QEMU"

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
        "a device requires giving memory back to the host, which protected guests cannot do",
        "virtio-mem, or another device that needs discard",
        "remove memory hotplug devices from the domain",
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
        f"more than {PROTECTED_CPU_LIMIT} CPUs",
        f"use {PROTECTED_CPU_LIMIT} or fewer",
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

NO_NUMA = Message(
    "NO_NUMA",
    QEMU,
    "NUMA is not supported by this machine-type",
    Meaning(
        "s390x guests have no NUMA nodes",
        "<numa> in the domain, often from a PC",
        "remove <cpu><numa> and <numatune>; shared memory is <memoryBacking><access mode='shared'/> without them",
    ),
)
ONE_CONSOLE = Message(
    "ONE_CONSOLE",
    QEMU,
    "Multiple VT220 operator consoles are not supported",
    Meaning(
        "a machine has one ASCII console (sclp), and two were given",
        "two <console> or <serial> devices with target type sclp, often from a PC's serial port",
        "keep one sclp console; make the others type='virtio'",
    ),
)
MESSAGES = (
    Message(
        "SET_SEC_PARMS_FAILED",
        QEMU,
        "Failed to set secure execution parameters",
        Meaning(
            "the ultravisor refused the image's header",
            "the image is not built for this machine, or its header is damaged",
            "explain the line with KVM PV command next to it; zseal image test IMAGE -k DOCUMENT",
        ),
        Role.CONSEQUENCE,
    ),
    HUGE_PAGES,
    NOT_MIGRATABLE,
    RAM_DISCARD,
    Message(
        "NEEDS_KVM",
        QEMU,
        "Protected Virtualization requires KVM",
        Meaning(
            "the protected-guest object works with KVM only",
            "the domain has type qemu, or KVM is not usable on this host",
            "zseal host check on the host; without IBM Z hardware use zseal run",
        ),
    ),
    CPU_MODEL,
    TOO_MANY_CPUS,
    Message(
        "ONLY_MIGRATABLE",
        QEMU,
        "unpack facility is not compatible with the --only-migratable",
        Meaning(
            "a guest that must be migratable cannot become protected",
            "-only-migratable with a CPU model that has unpack",
            "drop the option",
        ),
    ),
    Message(
        "NO_PV_OBJECT",
        QEMU,
        "invalid object type: s390-pv-guest",
        Meaning(
            "this QEMU has no object for protected guests",
            "QEMU before 6.0, or one not built on s390x with KVM",
            "install the distribution's s390x build; zseal host check on the host",
        ),
    ),
    Message(
        "CPU_FEATURES",
        QEMU,
        "Some features requested in the CPU model are not available",
        Meaning(
            "the host does not offer a CPU feature that the domain requires, unpack for one",
            "the host is not set up, or QEMU emulates the CPU (TCG has no unpack)",
            "zseal host check on the host; without IBM Z hardware use zseal run",
        ),
    ),
    Message(
        "PCI_ONLY_OPTION",
        QEMU,
        "Property 'virtio-…' not found",
        Meaning(
            "a device got an option that only virtio-pci devices have",
            "ats='on' or page_per_vq='on' on a driver of a CCW device",
            "remove the attribute (zseal domain fix)",
        ),
    ),
    PCI_ONLY_MODEL,
    Message(
        "SET_SEC_PARMS_HINT",
        QEMU,
        "Please check whether the image is correctly encrypted for this host",
        Meaning(
            "the ultravisor answered rc 0x0108: it cannot open the image's header",
            "the image is not built for this machine's host key",
            (
                "zseal image test IMAGE -k DOCUMENT shows which host-key documents fit; the host's own hashes are in "
                "/sys/firmware/uv/keys/all"
            ),
        ),
    ),
    Message(
        "PV_INFO_FAILED",
        QEMU,
        "KVM PV INFO cmd … failed",
        Meaning(
            (
                "QEMU could not ask the ultravisor how large a dump of this guest is, so the switch to protected mode "
                "fails"
            ),
            "the host's kernel offers dumps of protected guests, but its ultravisor does not answer",
            (
                "the line with KVM PV command before it has the code; zseal host check (guest-dump) and journalctl -k "
                "on the host show whether the host is at fault"
            ),
        ),
    ),
    Message(
        "DUMP_FAILED",
        QEMU,
        "KVM DUMP command … failed",
        Meaning(
            "a step of dumping a protected guest failed, so there is no usable dump",
            "the image does not permit dumps (zseal image create --enable-dump), or the host failed",
            (
                "the line with KVM PV command before it has the code; zseal image info IMAGE shows whether dumps are "
                "permitted, zseal host check (guest-dump) whether the host offers them"
            ),
        ),
    ),
    Message(
        "NO_IPL_PSW",
        QEMU,
        "Could not get IPL PSW",
        Meaning(
            "the file given as the kernel has no start address, because it is shorter than 8 bytes",
            "an empty or cut-off <kernel> file, often from a full disk or an interrupted download",
            "zseal inspect FILE; copy or build the image again",
        ),
    ),
    Message(
        "NO_FW_CFG",
        QEMU,
        "fw_cfg device not available",
        Meaning(
            "the machine has no fw_cfg device, which PCs have",
            "-fw_cfg, <sysinfo type='fwcfg'> or an Ignition file passed that way",
            "remove it; on s390x pass the configuration on a disk or in the kernel parameters (zseal domain lint)",
        ),
    ),
    Message(
        "CREATE_VM_FAILED",
        QEMU,
        "ioctl(KVM_CREATE_VM) failed: … Invalid argument",
        Meaning(
            "the host's kernel refuses to make a virtual machine",
            "an older host kernel needs page tables of another layout for guests: the sysctl vm.allocate_pgste is 0",
            "sysctl vm.allocate_pgste=1 on the host, or a QEMU package that sets the flag in its program header",
        ),
    ),
    Message(
        "ALLOCATE_PGSTE",
        QEMU,
        "Host kernel setup problem detected",
        Meaning(
            "the host's kernel is not set up for virtual machines",
            "the sysctl vm.allocate_pgste is 0",
            "sysctl vm.allocate_pgste=1 on the host; add it to /etc/sysctl.d to keep it",
        ),
    ),
    Message(
        "KVM_MISSING",
        QEMU,
        "Could not access KVM kernel module: No such file or directory",
        Meaning(
            "there is no /dev/kvm",
            "the module kvm is not loaded, the partition does not offer virtualization (SIE), or this is not an IBM Z",
            "modprobe kvm, then zseal host check on the host; without IBM Z hardware use zseal run",
        ),
    ),
    Message(
        "KVM_DENIED",
        QEMU,
        "Could not access KVM kernel module: Permission denied",
        Meaning(
            "QEMU may not use /dev/kvm",
            "the user is not in the group kvm, or a container or security module hides the device",
            "ls -l /dev/kvm; add the user to the group kvm, or start the guest through libvirt",
        ),
    ),
    Message(
        "KVM_FAILED",
        QEMU,
        "failed to initialize kvm",
        Meaning(
            "QEMU cannot use KVM", "the line before it says why", "explain that line; zseal host check on the host"
        ),
        Role.CONSEQUENCE,
    ),
    Message(
        "CPU_TOO_NEW",
        QEMU,
        "Selected CPU generation is too new",
        Meaning(
            "the CPU model is newer than what this host (or QEMU without KVM) can offer",
            "a domain made for a newer machine",
            "use <cpu mode='host-model'/>; IBM Secure Execution needs z15 (gen15a) or newer",
        ),
    ),
    Message(
        "FEATURE_TOO_NEW",
        QEMU,
        "Feature '…' is not available for CPU model",
        Meaning(
            "the CPU model is older than a feature that is asked for",
            "unpack, the feature for protected guests, exists from gen15a (z15) on",
            "use <cpu mode='host-model'/>, or a custom model from gen15a on (zseal domain fix)",
        ),
    ),
    Message(
        "NO_HUGE_PAGES_HERE",
        QEMU,
        "does not support huge page mappings",
        Meaning(
            "the machine version or KVM cannot back guests by huge pages",
            "<hugepages> in the domain; protected guests cannot use them on any host",
            "remove <memoryBacking><hugepages/> from the domain (zseal domain fix)",
        ),
    ),
    NO_NUMA,
    ONE_CONSOLE,
    Message(
        "GUEST_MEMORY",
        QEMU,
        "cannot set up guest memory",
        Meaning(
            "this computer cannot give the guest its memory",
            "the guest is larger than what is free here",
            "give the guest less memory, or end other guests",
        ),
    ),
    Message(
        "RUN_FAILED",
        QEMU,
        "kvm run failed Bad address",
        Meaning(
            "KVM could not make a page of the protected guest accessible",
            "the page changed while it was out (damaged swap), or the guest is backed by huge pages",
            "end the guest; look for I/O errors of the swap device in the host's log, remove <hugepages>",
        ),
    ),
    Message(
        "GUEST_CRASHED",
        QEMU,
        "Guest crashed on cpu",
        Meaning(
            "the guest's operating system or bootloader stopped for good",
            "the PSW in the next line, or the guest's console, says why",
            "explain the line with PSW:; look at the last lines of the console",
        ),
        Role.CONSEQUENCE,
    ),
    Message(
        "TOO_MANY_CPUS_HERE",
        QEMU,
        "The max CPUs supported by machine",
        Meaning(
            "the machine cannot have this many CPUs",
            f"more than 248 CPUs; a protected guest can have {PROTECTED_CPU_LIMIT}",
            "use fewer CPUs",
        ),
    ),
)
