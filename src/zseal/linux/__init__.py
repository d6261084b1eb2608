"""Facts about Linux on s390x: kernel files, boot code, kernel parameters, the bounce-buffer pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.linux.cmdline import KernelParameter, kernel_enables, split_command_line
    from zseal.linux.guest_support import KernelSupport, kernel_support

__all__ = [
    "KernelParameter",
    "KernelSupport",
    "kernel_enables",
    "kernel_support",
    "split_command_line",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        cmdline=("KernelParameter", "kernel_enables", "split_command_line"),
        guest_support=("KernelSupport", "kernel_support"),
    )
