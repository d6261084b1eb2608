"""End a process when ours does: ``python guard.py PID`` reads standard input until its end, then kills PID.

libvirt detaches the QEMU it starts, so the kernel does not tie the two together. If the ultravisor is gone, its guest
must not go on. The guard holds a pidfd, so that a process that took over the number is never hit.
"""

from __future__ import annotations

import os
import select
import signal
import sys


def main() -> None:
    """Wait for our end or the guest's."""
    pidfd = os.pidfd_open(int(sys.argv[1]))
    print("ready", flush=True)
    ready, _, _ = select.select([0, pidfd], [], [])
    if pidfd not in ready:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


if __name__ == "__main__":
    main()
