"""Sizes of the areas that interpretive execution (SIE) shares with a hypervisor, as Linux's kvm_host.h has them."""

from __future__ import annotations

SCA_SIZE = 16384
"""Bytes of an extended system-control area, the only kind a protected guest can have."""
SIE_BLOCK_SIZE = 512
"""Bytes of a state description (SIE control block), one for each CPU."""
CPU_TIMER = 0x28
"""Where a state description has the guest's CPU timer: 8 bytes, signed, 4096 units a microsecond."""
