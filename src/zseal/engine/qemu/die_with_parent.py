"""Start a program that ends when its parent does: ``python die_with_parent.py PARENT-PID CORE-LIMIT PROGRAM …``.

This is a script in a process of its own, because a process must ask for the parent-death signal itself (prctl(2),
PR_SET_PDEATHSIG), and code between fork and exec is not safe in a process with threads. If the ultravisor is gone, its
guest must not go on. CORE-LIMIT is the new soft RLIMIT_CORE of the program in bytes; ``-`` leaves it as it is.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for SIGKILL at the parent's death, limit core dumps, then become the program."""
    parent, limit, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process ended before its child began")
    if limit != "-":
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        soft = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execvp(command[0], command)  # noqa: S606 - there is no shell, on purpose


if __name__ == "__main__":
    main()
