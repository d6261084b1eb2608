"""QEMU as libvirt starts it, taken over as an engine."""
