"""An engine on Unicorn alone: bootloaders and bare-metal guests, with nothing installed but Python packages.

It executes ordinary instructions on Unicorn and everything privileged in Python: interruptions, control registers,
CPUs, clocks, the SCLP consoles, DIAGNOSE 308. There are no channel devices and no storage keys. Linux needs QEMU.
"""

from zseal.engine.embedded.engine import EmbeddedEngine

__all__ = ["EmbeddedEngine"]
