"""``zseal image create`` and ``genprotimg``: the options of ``pvimg create`` of s390-tools 2.43."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from zseal.cli.hostkey import options
from zseal.cli.messages import Messages, Quiet, Verbose
from zseal.errors import UsageError

if TYPE_CHECKING:
    from zseal.hostkeys.document import HostKeyDocument
    from zseal.hostkeys.trust import TrustMaterial
    from zseal.image.controls import Controls
    from zseal.secret import Secret

_Value = TypeVar("_Value")


# an option is a list so that an option given twice can be detected: that is an error, as with pvimg
_Paths = list[Path] | None
_Texts = list[str] | None


def _show_help(ctx: typer.Context, value: bool) -> None:
    if value:
        typer.echo(ctx.get_help())
        raise typer.Exit


def _one(values: list[_Value] | None, option: str) -> _Value | None:
    if values and len(values) > 1:
        raise UsageError(f"{option} can be given only once")
    return values[0] if values else None


def _needed(values: list[_Value] | None, option: str) -> _Value:
    value = _one(values, option)
    if value is None:
        raise UsageError(f"{option} is missing", hint="see --help")
    return value


def create(
    kernel: Annotated[
        _Paths,
        typer.Option("-i", "--kernel", "--image", metavar="FILE", help="Raw s390x Linux kernel: vmlinuz, bzImage."),
    ] = None,
    ramdisk: Annotated[_Paths, typer.Option("-r", "--ramdisk", metavar="FILE", help="Initial ramdisk.")] = None,
    parmfile: Annotated[
        _Paths, typer.Option("-p", "--parmfile", metavar="FILE", help="File with the kernel parameters (command line).")
    ] = None,
    output: Annotated[_Paths, typer.Option("-o", "--output", metavar="FILE", help="Image to write.")] = None,
    host_key_document: options.HostKeyDocuments = None,
    no_verify: options.NoVerify = False,
    cert: options.Certificates = None,
    crl: options.Crls = None,
    offline: options.Offline = False,
    root_ca: options.RootCa = None,
    bundle: options.BundleDirectory = None,
    no_component_check: Annotated[
        bool, typer.Option("--no-component-check", help="Accept any file as kernel, ramdisk and parmfile.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    cck: Annotated[
        _Paths,
        typer.Option(
            "--cck", "--comm-key", metavar="FILE", help="Customer communication key, 32 bytes (default: random)."
        ),
    ] = None,
    hdr_key: Annotated[
        _Paths, typer.Option("--hdr-key", metavar="FILE", help="Header protection key, 32 bytes (default: random).")
    ] = None,
    image_key: Annotated[
        _Paths, typer.Option("--image-key", metavar="FILE", help="Component key, 64 bytes (default: random).")
    ] = None,
    enable_dump: Annotated[
        bool, typer.Option("--enable-dump", help="Let the host dump the guest (needs --cck or --enable-cck-update).")
    ] = False,
    disable_dump: Annotated[
        bool, typer.Option("--disable-dump", help="Do not let the host dump the guest (default).")
    ] = False,
    enable_cck_extension_secret: Annotated[
        bool,
        typer.Option(
            "--enable-cck-extension-secret", help="Require a secret from the CCK in add-secret requests (needs --cck)."
        ),
    ] = False,
    disable_cck_extension_secret: Annotated[
        bool, typer.Option("--disable-cck-extension-secret", help="Do not require a secret from the CCK (default).")
    ] = False,
    enable_cck_update: Annotated[
        bool, typer.Option("--enable-cck-update", help="Let the guest replace its CCK (z17 and newer).")
    ] = False,
    disable_cck_update: Annotated[
        bool, typer.Option("--disable-cck-update", help="Do not let the guest replace its CCK (default).")
    ] = False,
    enable_pckmo: Annotated[
        bool, typer.Option("--enable-pckmo", help="Let PCKMO wrap DEA, TDEA, AES and ECC keys (default).")
    ] = False,
    disable_pckmo: Annotated[
        bool, typer.Option("--disable-pckmo", help="Do not let PCKMO wrap DEA, TDEA, AES and ECC keys.")
    ] = False,
    enable_pckmo_hmac: Annotated[bool, typer.Option("--enable-pckmo-hmac", help="Let PCKMO wrap HMAC keys.")] = False,
    disable_pckmo_hmac: Annotated[
        bool, typer.Option("--disable-pckmo-hmac", help="Do not let PCKMO wrap HMAC keys (default).")
    ] = False,
    enable_backup_keys: Annotated[
        bool, typer.Option("--enable-backup-keys", help="Let a machine open the image with its backup host key.")
    ] = False,
    disable_backup_keys: Annotated[
        bool, typer.Option("--disable-backup-keys", help="Do not let machines use their backup host keys (default).")
    ] = False,
    enable_image_encryption: Annotated[
        bool, typer.Option("--enable-image-encryption", help="Encrypt kernel, ramdisk and command line (default).")
    ] = False,
    disable_image_encryption: Annotated[
        bool,
        typer.Option(
            "--disable-image-encryption", help="Protect the components against changes only, not against reading."
        ),
    ] = False,
    x_bootloader_directory: Annotated[
        _Paths, typer.Option("--x-bootloader-directory", metavar="DIR", hidden=True)
    ] = None,
    x_psw: Annotated[_Texts, typer.Option("--x-psw", metavar="HEX", hidden=True)] = None,
    x_pcf: Annotated[_Texts, typer.Option("--x-pcf", metavar="HEX", hidden=True)] = None,
    x_scf: Annotated[_Texts, typer.Option("--x-scf", metavar="HEX", hidden=True)] = None,
    x_header_key: Annotated[_Paths, typer.Option("--x-header-key", metavar="FILE", hidden=True)] = None,
    x_comp_key: Annotated[_Paths, typer.Option("--x-comp-key", metavar="FILE", hidden=True)] = None,
    verbose: Verbose = 0,
    quiet: Quiet = 0,
    old_verbose: Annotated[bool, typer.Option("-V", hidden=True)] = False,
    help_all: Annotated[
        bool, typer.Option("--help-all", "--help-experimental", hidden=True, is_eager=True, callback=_show_help)
    ] = False,
) -> None:
    """Seal a kernel, a ramdisk and a command line into an image that only the owners of the host keys can open.

    The options are those of pvimg create. Host-key documents are verified unless --no-verify is given.
    """
    messages = Messages(verbose=verbose + old_verbose, quiet=quiet)
    if old_verbose:
        messages.warning("-V is deprecated: use -v")
    controls = _controls(
        [x_pcf, x_scf],
        {
            "dump": (enable_dump, disable_dump),
            "cck_extension_secret": (enable_cck_extension_secret, disable_cck_extension_secret),
            "cck_update": (enable_cck_update, disable_cck_update),
            "pckmo": (enable_pckmo, disable_pckmo),
            "pckmo_hmac": (enable_pckmo_hmac, disable_pckmo_hmac),
            "backup_keys": (enable_backup_keys, disable_backup_keys),
            "image_encryption": (enable_image_encryption, disable_image_encryption),
        },
    )
    request = _Request(
        kernel=_needed(kernel, "--kernel"),
        ramdisk=_one(ramdisk, "--ramdisk"),
        parmfile=_one(parmfile, "--parmfile"),
        output=_needed(output, "--output"),
        overwrite=overwrite,
        check_components=not no_component_check,
        cck=_one(cck, "--cck"),
        header_key=_one((hdr_key or []) + (x_header_key or []), "--hdr-key"),
        image_key=_one((image_key or []) + (x_comp_key or []), "--image-key"),
        bootloaders=_one(x_bootloader_directory, "--x-bootloader-directory"),
        start_address=_one(x_psw, "--x-psw"),
        plain_flags=_one(x_pcf, "--x-pcf"),
        secret_flags=_one(x_scf, "--x-scf"),
        controls=controls,
    )
    controls.check(cck=request.cck is not None, image_key=request.image_key is not None)
    if not host_key_document:
        raise UsageError("--host-key-document is missing", hint="give one for each machine that may run the image")
    trust = options.load_trust(cert=cert, crl=crl, root_ca=root_ca, bundle=bundle, no_verify=no_verify)
    with messages.causes():
        documents = _documents(options.split_files(host_key_document), trust, offline, messages)
        _create(request, documents, messages)


def _controls(words: list[_Texts], switches: dict[str, tuple[bool, bool]]) -> Controls:
    """Return the decisions that the enabling and disabling options make; ``words`` exclude them all."""
    from zseal.image.controls import Controls

    decided = {}
    for name, (enable, disable) in switches.items():
        option = name.replace("_", "-")
        if enable and disable:
            raise UsageError(f"--enable-{option} and --disable-{option} exclude each other")
        if enable or disable:
            if any(words):
                raise UsageError(f"--x-pcf and --x-scf exclude --{'enable' if enable else 'disable'}-{option}")
            decided[name] = enable
    return Controls(**decided)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Request:
    """The options of a command line that has been checked."""

    kernel: Path
    ramdisk: Path | None
    parmfile: Path | None
    output: Path
    overwrite: bool
    check_components: bool
    cck: Path | None
    header_key: Path | None
    image_key: Path | None
    bootloaders: Path | None
    start_address: str | None
    plain_flags: str | None
    secret_flags: str | None
    controls: Controls


def _documents(
    paths: list[Path], trust: TrustMaterial | None, offline: bool, messages: Messages
) -> list[HostKeyDocument]:
    from zseal.hostkeys.document import load_host_key_documents, newest_of_each_key

    documents, superseded = newest_of_each_key(load_host_key_documents(paths))
    for old, new in superseded:
        messages.warning(f"{old.source} is not used: {new.source} is a newer document of the same host key")
    for document in documents:
        if document.certificate.software:
            messages.warning(f"{document.source}: this is the key of a software machine, not of hardware")
    if trust is None:
        messages.warning("the host-key documents are not verified")
        for document in documents:
            if document.unused:
                messages.warning(f"{document.source}: only the first of {document.unused + 1} certificates is used")
        return documents
    for report in trust.verify(documents, offline=offline).documents:
        messages.detail(f"{report.document.source}: genuine, current and not revoked")
        for warning in report.warnings:
            messages.warning(f"{report.document.source}: {warning}")
    return documents


def _create(request: _Request, documents: list[HostKeyDocument], messages: Messages) -> None:
    from zseal.formats import se_header as sizes
    from zseal.image.bootloaders import Bootloaders
    from zseal.image.build import build_image
    from zseal.image.controls import parse_word
    from zseal.image.keys import ImageKeys, load_key

    def word(text: str | None, option: str) -> int | None:
        return None if text is None else parse_word(text, option)

    def key(path: Path | None, size: int, what: str) -> Secret | None:
        return None if path is None else load_key(path, size, what)

    keys = ImageKeys.generate(
        cck=key(request.cck, sizes.COMMUNICATION_KEY_SIZE, "customer communication key"),
        header_key=key(request.header_key, sizes.HEADER_KEY_SIZE, "header key"),
        image_key=key(request.image_key, sizes.IMAGE_KEY_SIZE, "image key"),
    )
    flags = word(request.plain_flags, "--x-pcf")
    secret_flags = word(request.secret_flags, "--x-scf")
    start_address = word(request.start_address, "--x-psw")
    if not request.controls.image_encryption:
        messages.warning("kernel, ramdisk and command line are not encrypted: anyone who has the image can read them")
    if not request.check_components:
        messages.warning("kernel, ramdisk and command line are not checked")
    bootloaders = Bootloaders.default()
    if request.bootloaders is not None:
        messages.warning(f"bootloaders are taken from {request.bootloaders}")
        bootloaders = Bootloaders.from_directory(request.bootloaders)
    with messages.progress("sealing") as progress:
        built = build_image(
            request.output,
            kernel=request.kernel,
            ramdisk=request.ramdisk,
            cmdline=request.parmfile,
            host_keys=[document.public_key for document in documents],
            keys=keys,
            flags=request.controls.plain_flags if flags is None else flags,
            secret_flags=request.controls.secret_flags if secret_flags is None else secret_flags,
            bootloaders=bootloaders,
            start_address=start_address,
            check_components=request.check_components,
            overwrite=request.overwrite,
            progress=progress,
        )
    for warning in built.warnings:
        messages.warning(warning)
    for part in built.components:
        messages.detail(f"{part.name:<8} {part.address:#010x} {part.original_size} bytes")
    hosts = len(documents)
    messages.note(f"{request.output}: image of {built.size} bytes for {hosts} host key{'s' if hosts > 1 else ''}")
