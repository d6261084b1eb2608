"""Disks of a guest, from the text a user writes."""

from __future__ import annotations

import stat
from pathlib import Path

from zseal.engine.qemu.devices import Disk
from zseal.errors import InputError, UsageError

_SWITCH = {"on": True, "off": False, "": True}


def parse_disk(text: str) -> Disk:
    """Return the disk that ``FILE[,format=F][,readonly[=on|off]][,iommu=on|off]`` describes; ``,,`` is a comma in FILE.

    Raises UsageError for what is not an option, InputError where the file is not one that can be read.
    """
    path, *options = (part.replace("\0", ",") for part in text.replace(",,", "\0").split(","))
    values = {"format": "raw", "readonly": "off", "iommu": "on"}
    for option in options:
        name, _, value = option.partition("=")
        if name not in values or (name != "format" and value not in _SWITCH) or (name == "format" and not value):
            raise UsageError(f"the disk has no option {option!r}", where=path, hint="use format=, readonly, iommu=off")
        values[name] = value
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise InputError(f"cannot use the disk: {error.strerror}", where=path) from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise InputError("a disk is a file or a block device", where=path)
    return Disk(path, values["format"], read_only=_SWITCH[values["readonly"]], iommu=_SWITCH[values["iommu"]])
