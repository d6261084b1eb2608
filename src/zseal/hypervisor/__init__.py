"""KVM's and QEMU's part of protected virtualization: configurations, CPUs and intercepted instructions."""
