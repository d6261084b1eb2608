"""End a process when ours does: ``python guard.py PID [FOLDER…]`` reads stdin and acts at its end.

libvirt detaches the QEMU it starts, so the kernel does not tie the two together. If the ultravisor is gone, its guest
must not go on, and the directories it left are removed. A byte on stdin before its end says that all was
cleared up already. The guard holds a pidfd, so that a process that took over the number is never hit.
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
