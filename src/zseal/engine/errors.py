"""What goes wrong while a machine runs."""

from __future__ import annotations

from zseal.errors import ZsealError


class EngineError(ZsealError):
    """The engine cannot do what it was asked to, or answers what it must not."""


class EngineLostError(EngineError):
    """What executes the guest has ended or closed its connection."""


class EngineSilentError(EngineLostError):
    """What executes the guest did not answer in time, and may be there still."""
