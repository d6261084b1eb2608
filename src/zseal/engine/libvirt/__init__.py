"""An engine on a QEMU that libvirt started."""
