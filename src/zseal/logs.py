"""zseal's loggers: silent unless the program that uses zseal, or ``--verbose`` of a command, wants to see them.

Each module logs under its own name, as ``zseal.engine.qemu.launch``: at INFO the steps a user would name, at DEBUG what
helps to find out why one went wrong. No key, and nothing that an image keeps secret, is ever logged.
"""

from __future__ import annotations

import logging

logging.getLogger("zseal").addHandler(logging.NullHandler())


def logger(name: str) -> logging.Logger:
    """Return the logger of the module ``name``."""
    return logging.getLogger(name)
