"""Generates docs/api.md and docs/ultravisor/reference.md from the code: ``python docs/reference.py``."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import zseal
from zseal.formats.uv_codes import RESPONSE_CODES, Command, Generic, Issuer, ResponseCode
from zseal.formats.uvcb import HEADER_SIZE
from zseal.ultravisor.calls.table import CALLS

_API_HEAD = """# The Python API

`docs/reference.py` generates this page from the docstrings. `import zseal` has the names that most programs need; the
packages and modules below have more. What this page and the [reference of the ultravisor](ultravisor/reference.md) do
not list may change without notice.

Addresses are numbers, sizes are in bytes, times are in seconds, and binary layouts are big-endian.
"""
_UV_HEAD = """# Reference of the software ultravisor

`docs/reference.py` generates this page from the code. [How protected virtualization works](../ultravisor.md) explains
what the parts are for. Addresses are numbers, sizes are in bytes, binary layouts are big-endian. The other packages are
in [the Python API](../api.md).
"""
_CALLS_HEAD = """
## Calls

The rows of `zseal.ultravisor.calls.table.CALLS`. Any other call is answered with rc 0002 and is not in the list of
installed calls. The fields of each control block are listed with their offsets.

| code | command | bit | issuer | length | control block (`zseal.formats`) |
|---|---|---|---|---|---|
"""
_ANSWERS_HEAD = """
## Answers

From `zseal.formats.uv_codes`. A number that IBM has not published is zseal's choice and marked with *. A call that is
not listed gives the general answers only.
"""
_ANSWER_TABLE = """
| rc | rrc | name | meaning |
|---|---|---|---|
"""
_OF_THE_ULTRAVISOR = ("zseal.ultravisor", "zseal.arch", "zseal.hypervisor", "zseal.model")
_FIRST = ("Guest", "Machine", "build_image", "lint_domain", "check_host", "Engine", "Ultravisor", "ModelMachine")
"""What a face is about; the other names follow in the order of the alphabet."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _faces() -> list[str]:
    """Return the packages and modules directly in zseal that have ``__all__``."""
    names = (each.name for each in pkgutil.iter_modules(zseal.__path__, "zseal."))
    return sorted(name for name in names if not name.rpartition(".")[2].startswith("_") and _names(name))


# --- finding definitions ---


@functools.cache
def _parse(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def _statements(module: str) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    """Yield each statement of a module, and of what it has for type checkers, with the statement below it."""
    body: list[ast.stmt] = []
    for node in _parse(module).body:
        body += node.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" else [node]
    return itertools.pairwise([*body, ast.Pass()])


def _targets(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | Function):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _names(module: str) -> list[str]:
    """Return what is in ``__all__`` of a module."""
    for node, _ in _statements(module):
        if isinstance(node, ast.Assign) and "__all__" in _targets(node):
            return [name for name in ast.literal_eval(node.value) if not name.startswith("__")]
    return []


def _definition(module: str, name: str) -> tuple[ast.stmt, ast.stmt | None]:
    """Return the statement that defines ``name``, wherever the module has it from, and the one below."""
    for node, below in _statements(module):
        if name in _targets(node):
            return node, below
        if isinstance(node, ast.ImportFrom) and node.module and name in (each.name for each in node.names):
            return _definition(node.module, name)
    raise LookupError(f"{module} does not define {name}")


# --- describing them ---


def _markdown(doc: str | None) -> str:
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", doc or "")
    text = re.sub(r"(?m)^::\n\n", "", re.sub(r"(?m)(?<=\S)::$", ":", text))
    return text.replace("``", "`")


def _below(node: ast.stmt | None) -> str:
    """Return the string that describes what stands above it."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return _markdown(" ".join(node.value.value.split()))
    return ""


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
    for each, below in itertools.pairwise([*node.body, ast.Pass()]):
        if _targets(each) and isinstance(each, ast.Assign | ast.AnnAssign):
            declared = ast.unparse(each)
            if not declared.startswith("_"):
                doc = _below(below)
                yield f"- `{declared}`{': ' if doc else ''}{doc}\n"


def _class(node: ast.ClassDef) -> Iterator[str]:
    functions = [each for each in node.body if isinstance(each, Function)]
    start = next((each for each in functions if each.name == "__init__"), None)
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    title = f"{node.name}({bases})" if bases else node.name
    yield f"### `{title}`\n\n{_markdown(ast.get_docstring(node))}\n"
    if start is not None:
        made = _signature(start, bound=True).removeprefix("__init__").removesuffix(" -> None")
        yield f"\n```python\n{node.name}{made}\n```\n"
    if fields := list(_fields(node)):
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


def _entry(face: str, name: str) -> Iterator[str]:
    node, below = _definition(face, name)
    yield f'\n<a id="{face}.{name}"></a>\n\n'
    if isinstance(node, ast.ClassDef):
        yield from _class(node)
    elif isinstance(node, Function):
        yield f"### `{node.name}`\n\n```python\n{_signature(node, bound=False)}\n```\n\n"
        yield f"{_markdown(ast.get_docstring(node))}\n"
    else:
        yield f"### `{name}`\n\n{_below(below)}\n"


def _face(face: str) -> Iterator[str]:
    yield f"\n## `{face}`\n\n{_markdown(ast.get_docstring(_parse(face)))}\n"
    names = sorted(_names(face), key=lambda name: (name not in _FIRST, name.lower()))
    for name in names:
        yield from _entry(face, name)


# --- the pages ---


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


def _summary(node: ast.stmt, below: ast.stmt | None) -> str:
    """Return the first sentence about a name."""
    text = _markdown(ast.get_docstring(node)) if isinstance(node, ast.ClassDef | Function) else _below(below)
    return re.split(r"(?<=[.:;])\s", " ".join(text.split("\n\n")[0].split()))[0].rstrip(".:;").replace("|", "\\|")


def _overview() -> Iterator[str]:
    """Yield what ``import zseal`` has, as a table with links to where it is described."""
    yield "\n## `zseal`\n\n| name | what it is |\n|---|---|\n"
    faces = {name: face for face in reversed(_faces()) for name in _names(face)}
    for name in sorted(_names("zseal"), key=str.lower):
        face = faces[name]
        page = "ultravisor/reference.md" if face in _OF_THE_ULTRAVISOR else ""
        yield f"| [`{name}`]({page}#{face}.{name}) | {_summary(*_definition(face, name))} |\n"


def pages() -> dict[str, str]:
    """Return the pages by their path in docs/."""
    others = [face for face in _faces() if face not in _OF_THE_ULTRAVISOR]
    api = [_API_HEAD, *_overview(), *itertools.chain.from_iterable(map(_face, others))]
    reference = [_UV_HEAD, _CALLS_HEAD, *_calls(), _ANSWERS_HEAD, *_answers()]
    reference += itertools.chain.from_iterable(map(_face, _OF_THE_ULTRAVISOR))
    return {"api.md": "".join(api), "ultravisor/reference.md": "".join(reference)}


if __name__ == "__main__":
    for path, text in pages().items():
        (Path(__file__).parent / path).write_text(text)
