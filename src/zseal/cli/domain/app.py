"""``zseal domain``: check, repair, convert, create, export and run libvirt domains.

Exit codes follow the convention of lint tools: 0 no findings, 1 findings or an unreadable file, 2 wrong usage.
"""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zseal.cli.domain import run as domain_run
from zseal.cli.wording import for_command_line
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
    """The formats of findings."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


class PlainFormat(enum.StrEnum):
    """The formats of other results."""

    TEXT = "text"
    JSON = "json"


class StyleName(enum.StrEnum):
    """The two styles."""

    LAUNCH_SECURITY = "launch-security"
    IOMMU = "iommu"


class Origin(enum.StrEnum):
    """The architectures that a domain can be ported from."""

    X86_64 = "x86_64"


class Program(enum.StrEnum):
    """The programs that a domain can be exported for."""

    QEMU = "qemu"
    VIRT_INSTALL = "virt-install"
    KUBEVIRT = "kubevirt"
    KATA = "kata"


_Files = Annotated[list[str] | None, typer.Argument(metavar="FILE", help="Domain XML files; - is stdin.")]
_File = Annotated[str, typer.Argument(metavar="FILE", help="A domain XML file; - is stdin.")]
_Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to this file instead of stdout.")
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output file.")]
_Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME-VERSION",
        help="Version of libvirt or QEMU that the domain must work with, such "
        "as libvirt-9.0.0 or qemu-7.2; may be repeated.",
    ),
]
_Select = Annotated[
    str, typer.Option("--select", metavar="IDS", help="Check only these rules, comma-separated; PV2 selects all PV2xx.")
]
_Ignore = Annotated[str, typer.Option("--ignore", metavar="IDS", help="Do not check these rules, comma-separated.")]
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
    """Yield each name with its content, or with the error."""
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
        typer.Option(
            "--connect", metavar="URI NAME", help="Check the domain NAME of the libvirt at URI, and its host."
        ),
    ] = None,
    form: Annotated[
        FindingsFormat, typer.Option("--format", help="Output format of the findings.")
    ] = FindingsFormat.TEXT,
    target: _Targets = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for advice too, not only for errors and warnings.")
    ] = False,
    select: _Select = "",
    ignore: _Ignore = "",
    schema: Annotated[bool, typer.Option(help="Validate against libvirt's schema if it is installed.")] = True,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="Sealed image that the domain boots.")
    ] = None,
    kernel: Annotated[
        Path | None, typer.Option("--kernel", metavar="FILE", help="Kernel in the image, or for the image.")
    ] = None,
    kernel_config: Annotated[
        Path | None,
        typer.Option(
            "--kernel-config", metavar="FILE", help="Config file of the kernel, if it is not in the kernel's directory."
        ),
    ] = None,
    parmfile: Annotated[
        Path | None, typer.Option("--parmfile", metavar="FILE", help="File with the kernel parameters in the image.")
    ] = None,
    host_key_document: Annotated[
        _Paths,
        typer.Option(
            "-k",
            "--host-key-document",
            metavar="FILE",
            help="Host-key document of a machine that the image must run on; may be repeated.",
        ),
    ] = None,
    capabilities: Annotated[
        Path | None,
        typer.Option(
            "--capabilities", metavar="FILE", help="Output of `virsh domcapabilities --virttype kvm` on the host."
        ),
    ] = None,
    host: Annotated[bool, typer.Option("--host", help="Check the domain against this computer as its host.")] = False,
    host_root: Annotated[
        Path | None,
        typer.Option(
            "--host-root", metavar="DIR", help="Check the domain against a host captured with zseal host capture."
        ),
    ] = None,
) -> None:
    """Check whether domains can run as protected guests.

    Exit codes: 0 no errors or warnings (with --strict: no advice either), 1 findings, 2 wrong usage. A comment such as
    <!-- zseal:ignore PV612 reason --> turns a rule off for its file.
    """
    from zseal.domain.facts import from_capabilities_file, from_host, merge
    from zseal.domain.guest import read_guest_inputs
    from zseal.domain.lint import LintSettings, check_rule_ids, lint_bytes
    from zseal.domain.report import FORMATS, LintRun, Unreadable
    from zseal.domain.versions import parse_targets

    if not files and connect is None:
        raise UsageError("give at least one file, - for stdin, or --connect URI NAME")
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
            unreadable.append(Unreadable(name, for_command_line(str(error))))
    run = LintRun(tuple(reports), tuple(unreadable), strict)
    typer.echo(FORMATS[form.value]().render(run), nl=False)
    if run.failed:
        raise typer.Exit(1)


def _connected(uri: str, name: str, settings: LintSettings) -> tuple[str, bytes, LintSettings]:
    import dataclasses

    from zseal.domain.facts import from_libvirt, merge
    from zseal.libvirt.fetch import fetch

    fetched = fetch(uri, name)
    # the domain's files are on the host at the other end
    local = uri.startswith("qemu:///")
    host = merge(settings.host, from_libvirt(fetched))
    return f"{uri}/{name}", fetched.xml, dataclasses.replace(settings, host=host, local_files=local)


@app.command()
def fix(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Domain XML files; - is stdin.")],
    unsafe: Annotated[
        bool, typer.Option("--unsafe-fixes", help="Also apply repairs that change what the guest has or does.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print the differences instead of writing; exit with 1 if there are any.")
    ] = False,
    in_place: Annotated[bool, typer.Option("-i", "--in-place", help="Overwrite the input files.")] = False,
    parmfile: Annotated[
        Path | None,
        typer.Option(
            "--parmfile", metavar="FILE", help="Also repair this file with the kernel parameters for the image."
        ),
    ] = None,
    origin: Annotated[
        Origin | None,
        typer.Option("--from", help="Also port the domain from this architecture: replace what s390x does not have."),
    ] = None,
    target: _Targets = None,
    select: _Select = "",
    ignore: _Ignore = "",
    output: _Output = None,
    overwrite: _Overwrite = False,
) -> None:
    """Repair mistakes in the XML and findings with a safe repair. All other text stays as it is.

    The repaired domain goes to stdout, and a list of the repairs to stderr. Run zseal domain lint to
    see what is left. Several files need --in-place or --diff.
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
    if origin is not None:
        _note(f"the disks of the domain need an operating system for s390x; one for {origin.value} does not boot")
    for name, result in _repairs(files, parmfile, settings, unsafe=unsafe, origin=origin):
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
    """Raise UsageError if the options do not say where the repaired files go."""
    if sum((diff, in_place, output is not None)) > 1:
        raise UsageError("give only one of --diff, --in-place and --output")
    if in_place and STDIN in files:
        raise UsageError("--in-place does not work with stdin")
    if len(files) + (parmfile is not None) > 1 and not (diff or in_place):
        raise UsageError("several files need --in-place or --diff")
    if parmfile is not None and len(files) > 1:
        raise UsageError("--parmfile needs exactly one domain")


def _repairs(
    files: list[str], parmfile: Path | None, settings: LintSettings, *, unsafe: bool, origin: Origin | None
) -> Iterator[tuple[str, FixResult | ZsealError]]:
    """Yield each file with its repairs, or with the error; the kernel parameters come last."""
    from zseal.domain.document import Document, decode
    from zseal.domain.fix import fix_bytes, fix_parameters
    from zseal.domain.guest import read_parameters

    parameters = read_parameters(parmfile) if parmfile is not None else None
    for name, content in _documents(files):
        try:
            if isinstance(content, ZsealError):
                raise content
            port_from = origin.value if origin is not None else None
            result = fix_bytes(name, content, settings, unsafe=unsafe, port_from=port_from)
        except ZsealError as error:
            yield name, error
            continue
        yield name, result
        if parameters is not None:
            document = Document(name, *decode(name, result.after))
            yield parameters.name, fix_parameters(parameters, document, settings, unsafe=unsafe)


def _replace(path: Path, content: bytes) -> None:
    from zseal.files import write_atomic

    # a link stays a link: its target is replaced and keeps its permissions
    path = path.resolve()
    write_atomic(path, content, overwrite=True, mode=path.stat().st_mode & 0o777)


@app.command()
def convert(
    file: _File,
    style: Annotated[StyleName, typer.Option("--style", help="Style to convert to.")],
    target: _Targets = None,
    output: _Output = None,
    in_place: Annotated[bool, typer.Option("-i", "--in-place", help="Overwrite the input file.")] = False,
    overwrite: _Overwrite = False,
) -> None:
    """Convert a domain between launchSecurity and iommu='on'."""
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
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the domain.")],
    style: Annotated[StyleName, typer.Option("--style", help="How the domain permits protected mode.")] = (
        StyleName.LAUNCH_SECURITY
    ),
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="Guest memory, such as 512M or 4G.")] = "4GiB",
    vcpus: Annotated[int, typer.Option("--vcpus", metavar="N", min=1, help="Number of virtual processors.")] = 2,
    image: Annotated[str | None, typer.Option("--image", metavar="FILE", help="Sealed image to boot directly.")] = None,
    disk: Annotated[
        list[str] | None,
        typer.Option("--disk", metavar="PATH[,format=qcow2|raw][,queues=N]", help="Add a disk; may be repeated."),
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            "--network",
            metavar="NAME",
            help="libvirt network to attach the guest to; user for QEMU's own, none for no network.",
        ),
    ] = "default",
    bridge: Annotated[
        str | None,
        typer.Option("--bridge", metavar="NAME", help="Attach the guest to this bridge instead of a libvirt network."),
    ] = None,
    console: Annotated[bool, typer.Option(help="Add an SCLP console.")] = True,
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
    to: Annotated[Program, typer.Option("--to", help="Program to export for.")],
    output: _Output = None,
    overwrite: _Overwrite = False,
) -> None:
    """Export a domain for another program. Anything that it cannot express is reported on stderr."""
    from zseal.domain.document import Document, decode
    from zseal.domain.export import export_document

    data, encoding = decode(_shown(file), _read(file))
    result = export_document(Document(_shown(file), data, encoding), to.value)
    for note in result.notes:
        _note(note)
    _write(result.text.encode(), output, overwrite=overwrite)


@app.command()
def rules(
    rule_id: Annotated[str | None, typer.Argument(metavar="ID", help="Rule to explain, such as PV202.")] = None,
    form: Annotated[PlainFormat, typer.Option("--format", help="Output format.")] = PlainFormat.TEXT,
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
