"""Generations of IBM Z and LinuxONE with Secure Execution."""

from __future__ import annotations

import enum


class MachineModel(enum.Enum):
    """A generation, by the name of its IBM Z machine; IBM LinuxONE machines of the same generation are alike."""

    Z15 = "z15"
    """z15 and LinuxONE III: guests, no attestation, no secrets, no dumps."""
    Z16 = "z16"
    """z16 and LinuxONE 4: attestation, association secrets, dumps."""
    Z17 = "z17"
    """z17 and LinuxONE 5: retrievable secrets and updates of the communication key as well."""
