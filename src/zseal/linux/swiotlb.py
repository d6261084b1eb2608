"""The pool of bounce buffers (SWIOTLB) of a protected Linux guest: its numbers, from kernel/dma/swiotlb.c."""

SLOT_SIZE = 2048
SEGMENT_SLOTS = 128
"""Slots of the largest single mapping."""
DEFAULT_SLOTS = 32768
"""The pool of a protected guest without any parameter: 64 MiB."""
RECOMMENDED_SLOTS = 262144
"""What IBM, Red Hat and libvirt recommend: 512 MiB."""
LARGEST_SLOTS = 524288
"""1 GiB, the largest pool that fits below 2 GiB."""
