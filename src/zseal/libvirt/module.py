"""libvirt's Python bindings (the optional package libvirt-python)."""

from __future__ import annotations

from types import ModuleType

from zseal.errors import MissingDependencyError

HINT = "install it with `pip install zseal[libvirt]` or your distribution's python3-libvirt"


def libvirt_module() -> ModuleType:
    """Return libvirt's Python module; raises MissingDependencyError if it is not installed."""
    try:
        import libvirt
    except ImportError as error:
        raise MissingDependencyError("this needs the Python package libvirt-python", hint=HINT) from error
    module: ModuleType = libvirt
    # libvirt prints every error to stderr unless a handler takes it; zseal prints it once
    module.registerErrorHandler(lambda _context, _error: None, None)
    return module
