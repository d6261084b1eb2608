"""``zseal attest``, also under the name ``pvattest``: requests, answers and policies of attestation."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zseal.cli.plain import PlainProgram, one_of
from zseal.cli.program import Program, run_program, tell
from zseal.cli.request_options import (
    add_guest_options,
    add_host_key_options,
    expanded,
    header_tags,
    open_ultravisor,
    read_key,
    verified_documents,
)
from zseal.errors import UsageError
from zseal.files import check_output, read_limited, write_atomic
from zseal.version import __version__
from zseal.yamltext import to_yaml

if TYPE_CHECKING:
    from zseal.attestation import PolicyResult, VerifiedAttestation

MISMATCH = 2
"""The exit code of ``verify`` for another measurement, and of ``check`` for a policy that is not met."""
_MAX_FILE = 4 << 20
_PROTECTION_KEY_SIZE = 32
_ADDITIONAL = ("phkh-img", "phkh-att", "secret-store-hash", "firmware-state")
_BOOLEANS = {"true": True, "false": False}
_HOST_KEY_CHECKS = ("att-key-hash", "boot-key-hash")


def _lists(values: Sequence[str] | None, allowed: Sequence[str], option: str) -> list[str]:
    """Return the values of an option, repeated or separated by commas; raises UsageError for unknown ones."""
    found = [part for value in values or () for part in value.split(",") if part]
    for value in found:
        if value not in allowed:
            raise UsageError(f"{option} does not know {value!r}", hint=f"use {', '.join(allowed)}")
    return found


# --- create


def _create_options(parser: argparse.ArgumentParser) -> None:
    add_host_key_options(parser)
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", type=Path, required=True, help="Write the request to FILE.")
    add(
        "-a", "--arpk", metavar="FILE", type=Path, required=True, help="Write the key that verifies the answer to FILE."
    )
    add(
        "--add-data",
        metavar="LIST",
        action="append",
        help=f"Ask for additional data (repeatable, or separated by commas): {', '.join(_ADDITIONAL)}.",
    )
    add("--overwrite", action="store_true", help="Replace existing outputs.")


def _create(options: argparse.Namespace) -> None:
    from zseal.attestation import AttestationFlags, create_attestation_request

    flags = dict(zip(_ADDITIONAL, list(AttestationFlags)[1:], strict=True))
    wanted = _lists(options.add_data, _ADDITIONAL, "--add-data")
    for path in (options.output, options.arpk):
        check_output(path, overwrite=options.overwrite)
    documents = verified_documents(options)
    created = create_attestation_request(
        [document.public_key for document in documents], additional=[flags[name] for name in wanted]
    )
    write_atomic(options.arpk, created.protection_key.reveal(), overwrite=options.overwrite)
    write_atomic(options.output, created.file.pack(), overwrite=options.overwrite, mode=0o644)
    if not options.quiet:
        tell(f"Wrote the request to {options.output}. Keep {options.arpk} secret: it verifies the answer.")


# --- perform


def _perform_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("positional", metavar="FILE", nargs="*", help="The request, then the response, instead of -i and -o.")
    add("-i", "--input", metavar="FILE", type=Path, help="Read the request from FILE.")
    add("-o", "--output", metavar="FILE", type=Path, help="Write the response to FILE.")
    add("-u", "--user-data", metavar="FILE", type=Path, help="Add the contents of FILE, at most 256 bytes.")
    add_guest_options(parser)
    add("--overwrite", action="store_true", help="Replace an existing output.")


def _two_files(options: argparse.Namespace) -> tuple[Path, Path]:
    files = [Path(name) for name in options.positional]
    room = (options.input is None) + (options.output is None)
    if len(files) > room:
        raise UsageError(f"too many files: {files[room]}")
    source = one_of(options.input, files.pop(0) if files and options.input is None else None, "the input")
    return source, one_of(options.output, files.pop(0) if files else None, "the output")


def _perform(options: argparse.Namespace) -> None:
    from zseal.attestation.perform import perform_attestation
    from zseal.formats.attestation_file import RequestFile

    source, target = _two_files(options)
    request = RequestFile.parse(read_limited(source, _MAX_FILE, "attestation request"))
    user_data = b"" if options.user_data is None else read_limited(options.user_data, 256, "user data")
    check_output(target, overwrite=options.overwrite)
    with open_ultravisor(options) as ultravisor:
        response = perform_attestation(request, ultravisor, user_data=user_data)
    write_atomic(target, response.pack(), overwrite=options.overwrite, mode=0o644)
    if not options.quiet:
        tell(f"Wrote the response to {target}")


# --- verify


def _verify_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--input", metavar="FILE", type=Path, required=True, help="Read the response from FILE.")
    add("--hdr", metavar="FILE", type=Path, required=True, help="The image that the guest must run, or its SE header.")
    add("-a", "--arpk", metavar="FILE", type=Path, required=True, help="The key that was written with the request.")
    add("-o", "--output", metavar="FILE", type=Path, help="Write the result to FILE.")
    add("--format", choices=("yaml", "json"), default="yaml", help="Format of the result (default: yaml).")
    add("-u", "--user-data", metavar="FILE", type=Path, help="Write the user data of the response to FILE.")
    add("--overwrite", action="store_true", help="Replace existing outputs.")


def _hex(data: bytes) -> str:
    return f"0x{data.hex()}"


def _verified(found: VerifiedAttestation) -> dict[str, object]:
    result: dict[str, object] = {"cuid": _hex(found.cuid)}
    if found.additional:
        result["add"] = _hex(found.additional)
        result["add_fields"] = {name: _hex(value) for name, value in found.fields.items()}
    if found.user_data:
        result["user_data"] = _hex(found.user_data)
    return result


def _text(value: dict[str, object], form: str) -> bytes:
    return (to_yaml(value) if form == "yaml" else json.dumps(value, indent=2) + "\n").encode()


def _verify(options: argparse.Namespace) -> None:
    from zseal.attestation import ResponseFile, verify_attestation

    for path in (options.output, options.user_data):
        if path is not None:
            check_output(path, overwrite=options.overwrite)
    key = read_key(options.arpk, _PROTECTION_KEY_SIZE, "request protection key")
    response = ResponseFile.parse(read_limited(options.input, _MAX_FILE, "attestation response"))
    found = verify_attestation(response, tags=header_tags(options.hdr), protection_key=key)
    result = _verified(found)
    if not options.quiet:
        tell("The attestation measurement matches.")
    if options.output is not None:
        write_atomic(options.output, _text(result, options.format), overwrite=options.overwrite, mode=0o644)
    else:
        sys.stdout.write(_text(result, options.format).decode())
    if options.user_data is not None:
        if not found.user_data:
            tell("warning: the response has no user data")
        write_atomic(options.user_data, found.user_data, overwrite=options.overwrite, mode=0o644)


# --- check


def _check_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("positional", metavar="FILE", nargs="*", help="The response, then the result, instead of -i and -o.")
    add("-i", "--input", metavar="FILE", type=Path, help="Read the response from FILE.")
    add("-o", "--output", metavar="FILE", type=Path, help="Write the result to FILE.")
    add("--format", choices=("yaml", "json"), default="yaml", help="Format of the result (default: yaml).")
    add(
        "-k",
        "--host-key-document",
        metavar="FILE",
        action="append",
        help="Host-key document that opened image and request (repeatable, or separated by commas).",
    )
    add(
        "--host-key-check",
        metavar="LIST",
        action="append",
        help="Fail if the response does not have these hashes: att-key-hash, boot-key-hash.",
    )
    add("-u", "--user-data", metavar="FILE", type=Path, help="The user data that the response must have.")
    add(
        "--secret",
        metavar="FILE",
        action="append",
        help="Add-secret request that the guest was given (repeatable, in the order of execution).",
    )
    add(
        "--secret-store-locked",
        metavar="BOOL",
        choices=tuple(_BOOLEANS),
        help="Check the secret store, which must be locked (true) or not (false).",
    )
    add("--firmware", action="store_true", help="Ask IBM's service whether the machine's firmware is valid.")
    add(
        "--firmware-check-version",
        "--fw-ver",
        type=int,
        choices=(1, 2),
        help="Version of that service's interface (default: 1).",
    )
    add("--firmware-verify-url", metavar="URL", help="Address of that service.")
    add("--overwrite", action="store_true", help="Replace an existing output.")


def _check(options: argparse.Namespace) -> int:
    from zseal.attestation import ExpectedHostKey, Policy, ResponseFile, SecretStore, check_attestation
    from zseal.attestation.firmware import DEFAULT_URL, FirmwareService
    from zseal.cli.hostkey.options import split_files
    from zseal.formats.add_secret_request import AddSecretRequestBlock
    from zseal.hostkeys.document import load_host_key_document

    source, target = _two_files(options)
    required = _lists(options.host_key_check, _HOST_KEY_CHECKS, "--host-key-check")
    if required and not options.host_key_document:
        raise UsageError("--host-key-check needs --host-key-document")
    if options.secret and options.secret_store_locked is None:
        raise UsageError("--secret needs --secret-store-locked")
    if not options.firmware and (options.firmware_check_version or options.firmware_verify_url):
        raise UsageError("--firmware-check-version and --firmware-verify-url need --firmware")
    check_output(target, overwrite=options.overwrite)
    documents = [load_host_key_document(path) for path in expanded(split_files(options.host_key_document))]
    store = None
    if options.secret_store_locked is not None:
        paths = split_files(options.secret)
        blocks = [AddSecretRequestBlock.parse(read_limited(path, _MAX_FILE, "add-secret request")) for path in paths]
        store = SecretStore(
            request_tags=[block.request.tag for block in blocks],
            request_names=[str(path) for path in paths],
            locked=_BOOLEANS[options.secret_store_locked],
        )
    policy = Policy(
        host_keys=[ExpectedHostKey(document.key_hash, document.source) for document in documents],
        require_image_key="boot-key-hash" in required,
        require_attestation_key="att-key-hash" in required,
        user_data=None if options.user_data is None else read_limited(options.user_data, 256, "user data"),
        secret_store=store,
        firmware=FirmwareService(options.firmware_verify_url or DEFAULT_URL, options.firmware_check_version or 1).judge
        if options.firmware
        else None,
    )
    response = ResponseFile.parse(read_limited(source, _MAX_FILE, "attestation response"))
    result = check_attestation(response, policy)
    write_atomic(target, _text(_checked(result), options.format), overwrite=options.overwrite, mode=0o644)
    for issue in result.issues:
        tell(f"error: {issue}")
    if result.successful and not options.quiet:
        tell("All checks passed.")
    return 0 if result.successful else MISMATCH


def _checked(result: PolicyResult) -> dict[str, object]:
    shown: dict[str, object] = {"successful": result.successful}
    if result.issues:
        shown["issues"] = list(result.issues)
    for name, key in (("image_host_key", result.image_host_key), ("attest_host_key", result.attestation_host_key)):
        if key is not None:
            shown[name] = {"check_enforced": key.enforced} | ({"hash": key.name} if key.name is not None else {})
    if result.user_data is not None:
        shown["user_data"] = _hex(result.user_data)
    if result.secret_store is not None:
        names = list(result.secret_store.request_names)
        shown["secret_store"] = {"add_secret_requests": names, "locked": result.secret_store.locked}
    if result.valid_firmware is not None:
        shown["valid_firmware"] = result.valid_firmware
    return shown


def program() -> Program:
    """Return the program."""
    built = PlainProgram(
        "Create, answer, verify and check attestations of protected guests. Exit codes: 0 success, 1 an error, 2 the "
        "measurement differs (verify) or the policy is not met (check).",
        usage_code=1,
    )
    built.command("create", "Create an attestation request, on a trusted computer.", _create_options, _create)
    built.command("perform", "Let this guest's machine answer a request.", _perform_options, _perform)
    built.command("verify", "Verify an answer: does the guest run the image?", _verify_options, _verify)
    built.command("check", "Check a verified answer against a policy.", _check_options, _check)
    return built


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``pvattest`` with ``arguments`` (default: this process's) and exit with its code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if args == ["--version"]:
        print(f"pvattest version {__version__} (zseal)")
        return
    run_program(program, args, "pvattest")
