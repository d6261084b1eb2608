"""The table of calls: for each command the layout of its control block and the function that executes it."""

from __future__ import annotations

from zseal.formats import uvcb
from zseal.formats.uv_codes import Command, Issuer
from zseal.ultravisor.calls import attestation, configuration, cpu, machine, secrets, storage
from zseal.ultravisor.settings import Settings
from zseal.ultravisor.state import Call, Row

# zseal.formats.uv_codes.Command has the code, list bit and issuer of each command.
CALLS: tuple[Row, ...] = (
    Call(Command.QUI, uvcb.UvcbHeader, machine.query, minimum=uvcb.QUI_MINIMUM),
    Call(Command.QUERY_KEYS, uvcb.QueryKeysUvcb, machine.query_keys),
    Call(Command.INIT_UV, uvcb.InitUvcb, machine.initialise),
    Call(Command.CREATE_SEC_CONF, uvcb.CreateConfUvcb, configuration.create),
    Call(Command.DESTROY_SEC_CONF, uvcb.HandleUvcb, configuration.destroy),
    Call(Command.DESTROY_SEC_CONF_FAST, uvcb.DestroyConfFastUvcb, configuration.destroy_fast),
    Call(Command.CREATE_SEC_CPU, uvcb.CreateCpuUvcb, cpu.create),
    Call(Command.DESTROY_SEC_CPU, uvcb.HandleUvcb, cpu.destroy),
    Call(Command.CONV_TO_SEC_STOR, uvcb.GuestPageUvcb, storage.import_page),
    Call(Command.CONV_FROM_SEC_STOR, uvcb.FrameUvcb, storage.export_page),
    Call(Command.DESTR_SEC_STOR, uvcb.FrameUvcb, storage.destroy_page),
    Call(Command.VERIFY_LARGE_FRAME, uvcb.GuestPageUvcb, storage.verify_large_frame),
    Call(Command.SET_SEC_CONF_PARAMS, uvcb.SetParametersUvcb, configuration.set_parameters),
    Call(Command.UNPACK_IMG, uvcb.UnpackUvcb, configuration.unpack),
    Call(Command.VERIFY_IMG, uvcb.HandleUvcb, configuration.verify),
    Call(Command.CPU_RESET, uvcb.HandleUvcb, cpu.reset),
    Call(Command.CPU_RESET_INITIAL, uvcb.HandleUvcb, cpu.initial_reset),
    Call(Command.PREPARE_RESET, uvcb.HandleUvcb, configuration.prepare_reset),
    Call(Command.CPU_RESET_CLEAR, uvcb.HandleUvcb, cpu.clear_reset),
    Call(Command.CPU_SET_STATE, uvcb.CpuStateUvcb, cpu.set_state),
    Call(Command.SET_UNSHARE_ALL, uvcb.HandleUvcb, configuration.unshare_all),
    Call(Command.PIN_PAGE_SHARED, uvcb.FrameUvcb, storage.pin_page),
    Call(Command.UNPIN_PAGE_SHARED, uvcb.GuestPageUvcb, storage.unpin_page),
    Call(Command.SET_SHARED_ACCESS, uvcb.ShareUvcb, storage.share_page),
    Call(Command.REMOVE_SHARED_ACCESS, uvcb.ShareUvcb, storage.unshare_page),
    Call(Command.RETR_ATTEST, uvcb.AttestUvcb, attestation.retrieve_attestation),
    Call(Command.ADD_SECRET, uvcb.AddSecretUvcb, secrets.add),
    Call(Command.LIST_SECRETS, uvcb.ListSecretsUvcb, secrets.list_page),
    Call(Command.LOCK_SECRETS, uvcb.HandleUvcb, secrets.lock),
    Call(Command.RETR_SECRET, uvcb.RetrieveSecretUvcb, secrets.retrieve),
)


def installed_rows(issuer: Issuer, settings: Settings) -> dict[int, Row]:
    """Return the rows that ``issuer`` may use on a machine with ``settings``, by command code."""
    missing = settings.missing_calls
    return {row.command.value: row for row in CALLS if issuer in row.command.issuer and row.command not in missing}
