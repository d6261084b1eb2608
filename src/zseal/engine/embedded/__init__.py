"""An engine on Unicorn alone: it runs bootloaders and bare-metal guests and needs only Python packages.

Unicorn executes ordinary instructions, and Python everything privileged: interruptions, control registers,
CPUs, clocks, the SCLP consoles, DIAGNOSE 308. There are no channel devices and no storage keys. Linux needs QEMU.
"""

from zseal.engine.embedded.engine import EmbeddedEngine

__all__ = ["EmbeddedEngine"]
