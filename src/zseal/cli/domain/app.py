"""``zseal domain``: check, repair, convert, create, export and run libvirt domains.

Exit codes as of lint tools: 0 nothing found, 1 findings or a file that can't be read, 2 wrong usage.
"""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zseal.cli.domain import run as domain_run
from zseal.errors import UsageError, ZsealError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zseal.domain.fix import FixResult
    from zseal.domain.lint import LintSettings
    from zseal.domain.rules.interface import LintRule

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.command("run", epilog=domain_run.EPILOG)(domain_run.command)

STDIN = "-"


class FindingsFormat(enum.StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


class PlainFormat(enum.StrEnum):
    """How other results are printed."""

    TEXT = "text"
    JSON = "json"


class StyleName(enum.StrEnum):
    """The two styles."""

    LAUNCH_SECURITY = "launch-security"
    IOMMU = "iommu"


class Program(enum.StrEnum):
    """What a domain can be exported to."""

    QEMU = "qemu"
    VIRT_INSTALL = "virt-install"
    KUBEVIRT = "kubevirt"
    KATA = "kata"


_Files = Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="Domain XML files; - is standard input.")]
_File = Annotated[str, typer.Argument(metavar="FILE", help="A domain XML file; - is standard input.")]
_Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write there instead of standard output.")
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output file.")]
_Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", metavar="NAME-VERSION", help="The libvirt or QEMU it is meant for: libvirt-9.0.0, qemu-7.2."
    ),
]
_Select = Annotated[
    str, typer.Option("--select", metavar="IDS", help="Only these rules, comma-separated; PV2 is all PV2xx.")
]
_Ignore = Annotated[str, typer.Option("--ignore", metavar="IDS", help="Not these rules, comma-separated.")]
_Paths = list[Path] | None


def _read(name: str) -> bytes:
    from zseal.domain.document import MAX_SIZE, read_document_bytes

    return sys.stdin.buffer.read(MAX_SIZE + 1) if name == STDIN else read_document_bytes(Path(name))


def _shown(name: str) -> str:
    return "<stdin>" if name == STDIN else name


def _write(text: bytes, output: Path | None, *, overwrite: bool) -> None:
    from zseal.files import write_atomic

    if output is None:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    else:
        write_atomic(output, text, overwrite=overwrite, mode=0o644)


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def _documents(files: list[str]) -> Iterator[tuple[str, bytes | ZsealError]]:
    """Yield name and content, or the reason why there is none."""
    for name in files:
        try:
            yield _shown(name), _read(name)
        except ZsealError as error:
            yield _shown(name), error


@app.command()
def lint(
    files: _Files = None,
    connect: Annotated[
        tuple[str, str] | None,
        typer.Option("--connect", metavar="URI NAME", help="Check a domain that libvirt knows, and its host."),
    ] = None,
    form: Annotated[FindingsFormat, typer.Option("--format", help="How to print the findings.")] = FindingsFormat.TEXT,
    target: _Targets = None,
    strict: Annotated[bool, typer.Option("--strict", help="Advice counts too: exit 1 for any finding.")] = False,
    select: _Select = "",
    ignore: _Ignore = "",
    schema: Annotated[bool, typer.Option(help="Validate against libvirt's schema where it is installed.")] = True,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="The sealed image it boots.")] = None,
    kernel: Annotated[
        Path | None, typer.Option("--kernel", metavar="FILE", help="The kernel that is, or will be, in the image.")
    ] = None,
    kernel_config: Annotated[
        Path | None, typer.Option("--kernel-config", metavar="FILE", help="That kernel's config, if not beside it.")
    ] = None,
    parmfile: Annotated[
        Path | None, typer.Option("--parmfile", metavar="FILE", help="The kernel parameters in the image.")
    ] = None,
    host_key_document: Annotated[
        _Paths, typer.Option("-k", "--host-key-document", metavar="FILE", help="A machine that shall run the image.")
    ] = None,
    capabilities: Annotated[
        Path | None, typer.Option("--capabilities", metavar="FILE", help="The host's `virsh domcapabilities`.")
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="Compare with this computer as the host.")] = False,
    host_root: Annotated[
        Path | None, typer.Option("--host-root", metavar="DIR", help="Compare with a tree of zseal host capture.")
    ] = None,
) -> None:
    """Check domains for what would keep a guest from running protected. Exit 0: nothing found, 1: findings, 2: usage.

    Errors and warnings are findings; advice counts with --strict only. A comment <!-- zseal:ignore PV612 why --> turns
    a rule off for its file.
    """
    from zseal.domain.facts import from_capabilities_file, from_host, merge
    from zseal.domain.guest import read_guest_inputs
    from zseal.domain.lint import LintSettings, check_rule_ids, lint_bytes
    from zseal.domain.report import FORMATS, LintRun, Unreadable
    from zseal.domain.versions import parse_targets

    if not files and connect is None:
        raise UsageError("give at least one file, - for standard input, or --connect URI NAME")
    facts = from_host(host_root) if host or host_root is not None else None
    if capabilities is not None:
        facts = merge(facts, from_capabilities_file(capabilities))
    settings = LintSettings(
        target=parse_targets(target or ()),
        host=facts,
        guest=read_guest_inputs(
            image=image,
            kernel=kernel,
            kernel_config=kernel_config,
            parmfile=parmfile,
            host_keys=host_key_document or (),
        ),
        select=check_rule_ids(select.split(",")),
        ignore=check_rule_ids(ignore.split(",")),
        schema=schema,
    )
    inputs: list[tuple[str, bytes | ZsealError, LintSettings]] = [
        (name, content, settings) for name, content in _documents(files or [])
    ]
    if connect is not None:
        inputs.append(_connected(*connect, settings))
    reports, unreadable = [], []
    for name, content, chosen in inputs:
        try:
            if isinstance(content, ZsealError):
                raise content
            reports.append(lint_bytes(name, content, chosen))
        except ZsealError as error:
            error.where = None if error.where == name else error.where
            unreadable.append(Unreadable(name, str(error)))
    run = LintRun(tuple(reports), tuple(unreadable), strict)
    typer.echo(FORMATS[form.value]().render(run), nl=False)
    if run.failed:
        raise typer.Exit(1)


def _connected(uri: str, name: str, settings: LintSettings) -> tuple[str, bytes, LintSettings]:
    import dataclasses

    from zseal.domain.facts import from_libvirt, merge
    from zseal.libvirt.fetch import fetch

    fetched = fetch(uri, name)
    # the files it names are those of the host at the other end
    local = uri.startswith("qemu:///")
    host = merge(settings.host, from_libvirt(fetched))
    return f"{uri}/{name}", fetched.xml, dataclasses.replace(settings, host=host, local_files=local)


@app.command()
def fix(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Domain XML files; - is standard input.")],
    unsafe: Annotated[
        bool, typer.Option("--unsafe-fixes", help="Also repairs that change what the guest has or does.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Print the difference; write nothing; exit 1 if any.")] = False,
    in_place: Annotated[bool, typer.Option("-i", "--in-place", help="Write the files themselves.")] = False,
    parmfile: Annotated[
        Path | None,
        typer.Option("--parmfile", metavar="FILE", help="Repair the kernel parameters for its image too."),
    ] = None,
    target: _Targets = None,
    select: _Select = "",
    ignore: _Ignore = "",
    output: _Output = None,
    overwrite: _Overwrite = False,
) -> None:
    """Repair a domain: slips in the XML, and findings that have a safe repair. All other text stays as it is.

    What was repaired is told on standard error; the repaired domain goes to standard output. What is left to decide is
    for zseal domain lint to say. Several files need --in-place or --diff.
    """
    from zseal.domain.fix import unified_diff
    from zseal.domain.lint import LintSettings, check_rule_ids
    from zseal.domain.report.text import plural, printable
    from zseal.domain.versions import parse_targets

    _check_outputs(files, parmfile, output, diff=diff, in_place=in_place)
    settings = LintSettings(
        target=parse_targets(target or ()),
        select=check_rule_ids(select.split(",")),
        ignore=check_rule_ids(ignore.split(",")),
    )
    failed = False
    for name, result in _repairs(files, parmfile, settings, unsafe=unsafe):
        if isinstance(result, ZsealError):
            if len(files) == 1:
                raise result
            typer.echo(f"error: {result}", err=True)
            failed = True
            continue
        for line in result.repaired:
            typer.echo(f"{printable(name)}: repaired {printable(line)}", err=True)
        if diff:
            sys.stdout.buffer.write(unified_diff(result, name))
            sys.stdout.buffer.flush()
            failed = failed or result.changed
        elif in_place:
            if result.changed:
                _replace(Path(name), result.after)
            typer.echo(f"{printable(name)}: {plural(len(result.repaired), 'repair')}", err=True)
        else:
            _write(result.after, output, overwrite=overwrite)
    if failed:
        raise typer.Exit(1)


def _check_outputs(files: list[str], parmfile: Path | None, output: Path | None, *, diff: bool, in_place: bool) -> None:
    """Raise UsageError where it is not clear where the repaired files shall go."""
    if sum((diff, in_place, output is not None)) > 1:
        raise UsageError("give only one of --diff, --in-place and --output")
    if in_place and STDIN in files:
        raise UsageError("standard input can't be changed in place")
    if len(files) + (parmfile is not None) > 1 and not (diff or in_place):
        raise UsageError("several files need --in-place or --diff")
    if parmfile is not None and len(files) > 1:
        raise UsageError("--parmfile goes with one domain")


def _repairs(
    files: list[str], parmfile: Path | None, settings: LintSettings, *, unsafe: bool
) -> Iterator[tuple[str, FixResult | ZsealError]]:
    """Yield each file with its repairs, or with the reason why there are none; the kernel parameters come last."""
    from zseal.domain.document import Document, decode
    from zseal.domain.fix import fix_bytes, fix_parameters
    from zseal.domain.guest import read_parameters

    parameters = read_parameters(parmfile) if parmfile is not None else None
    for name, content in _documents(files):
        try:
            if isinstance(content, ZsealError):
                raise content
            result = fix_bytes(name, content, settings, unsafe=unsafe)
        except ZsealError as error:
            yield name, error
            continue
        yield name, result
        if parameters is not None:
            document = Document(name, *decode(name, result.after))
            yield parameters.name, fix_parameters(parameters, document, settings, unsafe=unsafe)


def _replace(path: Path, content: bytes) -> None:
    from zseal.files import write_atomic

    # a link stays a link: what it points to is replaced, with its permissions kept
    path = path.resolve()
    write_atomic(path, content, overwrite=True, mode=path.stat().st_mode & 0o777)


@app.command()
def convert(
    file: _File,
    style: Annotated[StyleName, typer.Option("--style", help="The style to convert to.")],
    target: _Targets = None,
    output: _Output = None,
    in_place: Annotated[bool, typer.Option("-i", "--in-place", help="Write the file itself.")] = False,
    overwrite: _Overwrite = False,
) -> None:
    """Convert a domain between launchSecurity and iommu='on' on each device, keeping the rest of its text."""
    from zseal.domain.convert import convert_document
    from zseal.domain.document import Document, decode
    from zseal.domain.versions import parse_targets

    if in_place and (output is not None or file == STDIN):
        raise UsageError("--in-place needs a file and no --output")
    data, encoding = decode(_shown(file), _read(file))
    result = convert_document(
        Document(_shown(file), data, encoding), domain_run.style_of(style.value), parse_targets(target or ())
    )
    for note in result.notes:
        _note(note)
    if in_place:
        _replace(Path(file), result.xml)
    else:
        _write(result.xml, output, overwrite=overwrite)


@app.command()
def new(
    name: Annotated[str, typer.Option("--name", help="The domain's name.")],
    style: Annotated[StyleName, typer.Option("--style", help="How it permits protected mode.")] = (
        StyleName.LAUNCH_SECURITY
    ),
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="Guest memory, such as 512M or 4G.")] = "4GiB",
    vcpus: Annotated[int, typer.Option("--vcpus", min=1, help="Number of processors.")] = 2,
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE", help="Boot this sealed image directly.")
    ] = None,
    disk: Annotated[
        list[str] | None,
        typer.Option("--disk", metavar="PATH[,format=qcow2|raw][,queues=N]", help="A disk; may be repeated."),
    ] = None,
    network: Annotated[
        str, typer.Option("--network", metavar="NAME", help="A libvirt network, user, or none.")
    ] = "default",
    bridge: Annotated[str | None, typer.Option("--bridge", metavar="NAME", help="A bridge instead.")] = None,
    console: Annotated[bool, typer.Option(help="Give it an SCLP console.")] = True,
    output: _Output = None,
    overwrite: _Overwrite = False,
) -> None:
    """Write a minimal domain for a protected guest."""
    from zseal.domain.create import NewDomain, create_domain, parse_disk
    from zseal.sizes import parse_size

    spec = NewDomain(
        name=name,
        style=domain_run.style_of(style.value),
        memory=parse_size(memory),
        vcpus=vcpus,
        image=image,
        disks=tuple(parse_disk(text) for text in disk or ()),
        network=None if network == "none" else network,
        bridge=bridge,
        console=console,
    )
    _write(create_domain(spec).encode(), output, overwrite=overwrite)


@app.command("export")
def export_domain(
    file: _File,
    to: Annotated[Program, typer.Option("--to", help="The program it is for.")],
    output: _Output = None,
    overwrite: _Overwrite = False,
) -> None:
    """Say a domain to another program; what that can't say is told on standard error."""
    from zseal.domain.document import Document, decode
    from zseal.domain.export import export_document

    data, encoding = decode(_shown(file), _read(file))
    result = export_document(Document(_shown(file), data, encoding), to.value)
    for note in result.notes:
        _note(note)
    _write(result.text.encode(), output, overwrite=overwrite)


@app.command()
def rules(
    rule_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Explain this rule.")] = None,
    form: Annotated[PlainFormat, typer.Option("--format", help="How to print them.")] = PlainFormat.TEXT,
) -> None:
    """List the rules of zseal domain lint, or explain one."""
    from zseal.domain.explain import explain_rule, list_rules, rules_json
    from zseal.domain.rules import RULES

    if rule_id is not None and rule_id.upper() not in RULES:
        raise UsageError(f"there is no rule {rule_id!r}", hint="zseal domain rules lists them")
    chosen: list[LintRule] = list(RULES.values()) if rule_id is None else [RULES[rule_id.upper()]]
    if form is PlainFormat.JSON:
        typer.echo(rules_json(chosen), nl=False)
    elif rule_id is None:
        typer.echo(list_rules(chosen), nl=False)
    else:
        typer.echo(explain_rule(chosen[0]), nl=False)
