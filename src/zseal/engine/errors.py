"""Failures of a running machine."""

from __future__ import annotations

from zseal.errors import ZsealError


class EngineError(ZsealError):
    """The engine cannot do what was requested, or gives an answer that it must not give."""


class EngineLostError(EngineError):
    """The program that executes the guest has ended or closed its connection."""


class EngineSilentError(EngineLostError):
    """The program that executes the guest did not answer in time, but may still be running."""
