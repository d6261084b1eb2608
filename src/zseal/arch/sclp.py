"""Facts about SCLP, the service-call logical processor from which an operating system reads its configuration.

READ SCP INFO lists the CPUs, 16 bytes each, in a block after its own fields. A protected guest cannot offer a block
longer than 4 KiB, because its hypervisor reaches no other part of it (SIDA).
"""

_BLOCK_SIZE = 4096
_FIRST_CPU = 144
"""Where the list begins if the block can be longer (facility 140); QEMU reckons with it for every model."""
_CPU_SIZE = 16

PROTECTED_CPU_LIMIT = (_BLOCK_SIZE - _FIRST_CPU) // _CPU_SIZE
"""The most CPUs of a protected guest: 247."""
