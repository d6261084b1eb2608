"""Generates docs/ultravisor/reference.md from the code: ``python docs/ultravisor/reference.py``."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from zseal.formats.uv_codes import RESPONSE_CODES, Command, Generic, Issuer, ResponseCode
from zseal.formats.uvcb import HEADER_SIZE
from zseal.ultravisor.calls.table import CALLS

OUTPUT = Path(__file__).with_name("reference.md")

_HEAD = """# Reference of the software ultravisor

`docs/ultravisor/reference.py` generates this page from the code.
[How protected virtualization works](../ultravisor.md) explains what the parts are for. Addresses are numbers, sizes are
in bytes, binary layouts are big-endian.
"""
_CALLS_HEAD = """
## Calls

The rows of `zseal.ultravisor.calls.table.CALLS`: what is not here answers rc 0002 and is not in the list of installed
calls. With the fields of a control block stand their offsets.

| code | command | bit | issuer | length | control block (`zseal.formats.uvcb`) |
|---|---|---|---|---|---|
"""
_ANSWERS_HEAD = """
## Answers

From `zseal.formats.uv_codes`. Where IBM has published no number it is zseal's choice: marked with *. A call that is not
listed gives the general answers only.
"""
_ANSWER_TABLE = """
| rc | rrc | name | meaning |
|---|---|---|---|
"""
_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("zseal.ultravisor.ultravisor", ("Ultravisor",)),
    ("zseal.ultravisor.host", ("HostInterface",)),
    ("zseal.ultravisor.firmware", ("FirmwareInterface",)),
    ("zseal.ultravisor.settings", ("Settings", "Feature")),
    ("zseal.ultravisor.refusal", ("UvcRefusal",)),
    ("zseal.ultravisor.sie", ("ValidityIntercept", "Validity", "PrefixIntercept")),
    ("zseal.ultravisor.image.acceptance", ("accept_header", "AcceptedHeader", "check_digests")),
    ("zseal.ultravisor.addressspace", ("AddressSpace", "MappedSpace", "OffsetSpace")),
    ("zseal.ultravisor.state", ("HostCpus", "HostMemory")),
    ("zseal.ultravisor.tables", ("FrameState", "PageState")),
    ("zseal.ultravisor.snapshot", ("Snapshot", "ConfigurationSnapshot", "CpuSnapshot")),
    ("zseal.ultravisor.pagemap", ("PageMap", "Kind")),
    ("zseal.ultravisor.events", ("EventLog", "UvEvent", "Level")),
    ("zseal.ultravisor.faults", ("FaultPlan", "Fault")),
    ("zseal.arch.storage", ("Storage", "OperandMemory")),
    ("zseal.arch.interruption", ("ProgramInterruption", "ProgramCode")),
    ("zseal.hypervisor.uvcalls", ("CallingHost", "CallFailed")),
    ("zseal.model.machine", ("ModelMachine",)),
    ("zseal.model.host", ("ModelHost", "ModelConfiguration", "ModelCpu", "HostError")),
    ("zseal.model.guest", ("ModelGuest",)),
    ("zseal.model.image", ("seal_image", "ModelImage", "ModelComponent")),
    ("zseal.model.pager", ("Pager", "GuestKilledError")),
    ("zseal.model.frames", ("FrameAllocator", "OutOfFramesError")),
    ("zseal.model.devices", ("BlockDriver", "BlockDevice", "BouncePool", "DeviceMemory", "DeviceError")),
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _markdown(doc: str | None) -> str:
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", doc or "")
    return text.replace("``", "`")


def _signature(node: Function, *, bound: bool) -> str:
    arguments = ast.unparse(node.args)
    if bound:
        arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{node.name}({arguments}){returns}"


def _is(node: Function, decorator: str) -> bool:
    return any(isinstance(each, ast.Name) and each.id == decorator for each in node.decorator_list)


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """Describe the attributes that are declared in the class, with the string below each."""
    for number, each in enumerate(node.body):
        if isinstance(each, ast.AnnAssign) or (isinstance(each, ast.Assign) and len(each.targets) == 1):
            declared = ast.unparse(each)
        else:
            continue
        if declared.startswith("_"):
            continue
        below = node.body[number + 1] if number + 1 < len(node.body) else None
        doc = ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            doc = f": {_markdown(' '.join(str(below.value.value).split()))}"
        yield f"- `{declared}`{doc}\n"


def _describe_class(node: ast.ClassDef) -> Iterator[str]:
    functions = [each for each in node.body if isinstance(each, Function)]
    start = next((each for each in functions if each.name == "__init__"), None)
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    title = f"{node.name}({bases})" if bases else node.name
    yield f"\n### `{title}`\n\n{_markdown(ast.get_docstring(node))}\n"
    if start is not None:
        made = _signature(start, bound=True).removeprefix("__init__").removesuffix(" -> None")
        yield f"\n```python\n{node.name}{made}\n```\n"
    fields = list(_fields(node))
    if fields:
        yield "\n"
        yield from fields
    for each in functions:
        if each.name.startswith("_"):
            continue
        doc = _markdown(ast.get_docstring(each)).replace("\n", "\n  ").replace("\n  \n", "\n\n")
        if _is(each, "property"):
            returns = ast.unparse(each.returns) if each.returns is not None else "None"
            yield f"\n- **`{each.name}`**: `{returns}`\n\n  {doc}\n"
        else:
            yield f"\n- **`{_signature(each, bound=True)}`**\n\n  {doc}\n"


def _module(name: str, wanted: tuple[str, ...]) -> Iterator[str]:
    module = ast.parse(inspect.getsource(importlib.import_module(name)))
    nodes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef | Function)}
    yield f"\n## `{name}`\n"
    for each in wanted:
        node = nodes[each]
        if isinstance(node, ast.ClassDef):
            yield from _describe_class(node)
        else:
            yield f"\n### `{node.name}`\n\n```python\n{_signature(node, bound=False)}\n```\n\n"
            yield f"{_markdown(ast.get_docstring(node))}\n"


def _calls() -> Iterator[str]:
    issuers = {Issuer.HOST: "host", Issuer.GUEST: "guest", Issuer.BOTH: "host, guest"}
    for row in CALLS:
        command = row.command
        length = f"{row.layout.SIZE:#x}" if row.minimum is None else f"{row.minimum:#x} or more"
        fields = [(name, spec.offset) for name, spec in row.layout.FIELDS.items() if spec.offset >= HEADER_SIZE]
        block = f"`{row.layout.__name__}`" + (": " if fields else "")
        block += ", ".join(f"`{name}` {offset:#x}" for name, offset in fields)
        title = f"{command.name}: {command.title}"
        yield f"| {command:#06x} | {title} | {command.bit} | {issuers[command.issuer]} | {length} | {block} |\n"


def _answers() -> Iterator[str]:
    def rows(title: str, table: type[ResponseCode]) -> Iterator[str]:
        yield f"\n### {title}\n{_ANSWER_TABLE}"
        for answer in table:
            mark = "" if answer.published else "*"
            name = f"`{table.__name__}.{answer.name}`"
            yield f"| {answer.rc:#06x}{mark} | {answer.rrc or 0:#06x} | {name} | {answer.meaning} |\n"

    installed = {row.command for row in CALLS}
    yield from rows("Any call", Generic)
    tables: dict[type[ResponseCode], list[Command]] = {}
    for command, its in RESPONSE_CODES.items():
        for table in its:
            if command in installed:
                tables.setdefault(table, []).append(command)
    for table, commands in tables.items():
        yield from rows(", ".join(command.name for command in commands), table)


def reference() -> str:
    """Return the page."""
    parts = [_HEAD, _CALLS_HEAD, *_calls(), _ANSWERS_HEAD, *_answers()]
    for name, wanted in _PARTS:
        parts += _module(name, wanted)
    return "".join(parts)


if __name__ == "__main__":
    OUTPUT.write_text(reference())
