"""Translates the library's errors from the words of Python to those of the command line.

An error of the library names parameters and functions in backquotes, as in "give `overwrite=True`". This table has the
equivalents for users of the commands: a parameter has one name wherever it means the same.
"""

from __future__ import annotations

import re

OPTIONS = {
    "bundle": "--bundle",
    "cck": "--cck",
    "cck_extension_secret": "--enable-cck-extension-secret",
    "cck_update": "--enable-cck-update",
    "certificates": "--cert",
    "cpus": "--cpus",
    "crls": "--crl",
    "disks": "--disk",
    "dump": "--enable-dump",
    "engine": "--engine",
    "image": "--image",
    "image_encryption=False": "--disable-image-encryption",
    "image_key": "--image-key",
    "io_policy": "--io-policy",
    "kernel": "--kernel",
    "machine_type": "--machine-type",
    "memory": "--memory",
    "name": "--name",
    "networks": "--net",
    "offline": "--offline",
    "overwrite": "--overwrite",
    "ramdisk": "--ramdisk",
    "root_ca": "--root-ca",
    "uri": "--connect",
}
"""The option for each parameter, or for one value of it; an option that is not a switch is followed by the value."""

COMMANDS = {
    "Bundle": "zseal hostkey bundle",
    "Bundle.create()": "zseal hostkey bundle create DIR --cert FILE",
    "Bundle.update()": "zseal hostkey bundle update",
    "GuestControl": "zseal guest",
    "Machine.create()": "zseal machine create DIR",
    "Machine.reissue_crls()": "zseal machine crl",
    "RULES": "zseal domain rules",
    "fix_domain()": "zseal domain fix",
    "list_guests()": "zseal guest list",
    "plan_session_refresh()": "--session",
}
"""The command, or the option that chooses it, for each function, class or table."""

_NAME = re.compile(r"`([\w.]+(?:\(\))?)(?:=([\w.\"-]+))?`")


def for_command_line(text: str) -> str:
    """Return ``text`` with options and commands in place of the names in backquotes; other text stays."""
    return _NAME.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    whole = f"{name}={value}"
    if whole in OPTIONS:
        return OPTIONS[whole]
    if name in COMMANDS:
        return COMMANDS[name]
    if name not in OPTIONS:
        return match[0]
    if value is None or value == "True":
        return OPTIONS[name]
    chosen: str = value.strip('"')
    return f"{OPTIONS[name]} {chosen}"
