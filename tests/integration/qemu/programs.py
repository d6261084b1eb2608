"""Small programs for guests, compiled where they are needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SYSTEM_CALLS = r"""
static long call(long number, long a, long b, long c, long d, long e)
{
	register long r1 __asm__("1") = number;
	register long r2 __asm__("2") = a;
	register long r3 __asm__("3") = b;
	register long r4 __asm__("4") = c;
	register long r5 __asm__("5") = d;
	register long r6 __asm__("6") = e;
	__asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4), "d"(r5), "d"(r6) : "memory", "cc");
	return r2;
}
enum { EXIT = 1, WRITE = 4, OPEN = 5, IOCTL = 54, REBOOT = 88, KEXEC_FILE_LOAD = 381 };
"""


def s390x_program(folder: Path, source: str) -> bytes:
    """Return the C program ``source`` compiled for Linux on s390x: it begins at ``_start`` and has but ``call``."""
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    (folder / "program.c").write_text(_SYSTEM_CALLS + source)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "s390x-linux-none", "-mcpu=z10", "-Os"]
    command += ["-static", "-nostdlib", "-fno-stack-protector", "-fno-sanitize=all", "-o", "program", "program.c"]
    done = subprocess.run(command, cwd=folder, env=os.environ | cache, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "program").read_bytes()


def bare_metal_program(folder: Path, source: str) -> bytes:
    """Return the assembly ``source`` as an image to load at 0; it begins at ``_start`` (``.org 0x10000``)."""
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    (folder / "program.S").write_text(source)
    (folder / "program.lds").write_text(
        "ENTRY(_start) SECTIONS { . = 0; .text : { *(.text) } /DISCARD/ : { *(.note*) *(.comment) } }"
    )
    compiled = ["cc", "-target", "s390x-linux-none", "-mcpu=z13", "-static", "-nostdlib", "-Wl,-T,program.lds"]
    for command in ([*compiled, "-o", "program", "program.S"], ["objcopy", "-O", "binary", "program", "image"]):
        whole = [sys.executable, "-m", "ziglang", *command]
        done = subprocess.run(whole, cwd=folder, env=os.environ | cache, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return (folder / "image").read_bytes()
