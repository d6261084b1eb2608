"""End a process when ours ends: ``python guard.py PID [DIRECTORY…]`` reads stdin and acts at its end.

libvirt detaches the QEMU that it starts, so the kernel does not tie the two together. If the ultravisor is gone, its
guest must not go on, and the directories that it left are removed. A byte on stdin before its end means that everything
is already cleaned up. The guard has a pidfd, so that it never hits a process that took over the number.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys

SECONDS = 10.0


def main() -> None:
    """Wait for our end."""
    pidfd = os.pidfd_open(int(sys.argv[1]))
    print("ready", flush=True)
    if os.read(0, 1):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    select.select([pidfd], [], [], SECONDS)
    for folder in sys.argv[2:]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
