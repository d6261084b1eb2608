"""The ultravisor's commands and all its answers: codes, names, meanings and advice.

A UVC names its command in a 16-bit code and is answered with a response code (rc) and a response reason code (rrc).
Commands, and answers that Linux, QEMU and s390-tools know, have the numbers of those programs. Answers marked
``published=False`` are zseal's own choice, because IBM has published no number for them.
"""

from __future__ import annotations

import enum

RC_NEED_DESTROY = (
    0x8000  # or-ed to the rc of a creation that failed half-way: its handle is valid and must be destroyed
)


class Issuer(enum.Flag):
    """Who may issue a command."""

    HOST = enum.auto()
    GUEST = enum.auto()
    BOTH = HOST | GUEST


class Command(enum.IntEnum):
    """UVC command codes; ``bit`` is the number of the command in the installed-calls list (0 = leftmost)."""

    bit: int
    issuer: Issuer
    title: str

    def __new__(cls, code: int, bit: int = 0, issuer: Issuer = Issuer.BOTH, title: str = "") -> Command:
        """Attach list bit, issuer and title to the code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.bit, member.issuer, member.title = bit, issuer, title
        return member

    QUI = 0x0001, 0, Issuer.BOTH, "query ultravisor information"
    QUERY_KEYS = 0x0002, 34, Issuer.HOST, "query key hashes"
    INIT_UV = 0x000F, 1, Issuer.HOST, "initialise the ultravisor"
    CREATE_SEC_CONF = 0x0100, 2, Issuer.HOST, "create secure configuration"
    DESTROY_SEC_CONF = 0x0101, 3, Issuer.HOST, "destroy secure configuration"
    DESTROY_SEC_CONF_FAST = 0x0102, 23, Issuer.HOST, "destroy secure configuration fast"
    CREATE_SEC_CPU = 0x0120, 4, Issuer.HOST, "create secure CPU"
    DESTROY_SEC_CPU = 0x0121, 5, Issuer.HOST, "destroy secure CPU"
    CONV_TO_SEC_STOR = 0x0200, 6, Issuer.HOST, "convert to secure storage (import)"
    CONV_FROM_SEC_STOR = 0x0201, 7, Issuer.HOST, "convert from secure storage (export)"
    DESTR_SEC_STOR = 0x0202, 12, Issuer.HOST, "destroy secure storage"
    VERIFY_LARGE_FRAME = 0x0203, 32, Issuer.HOST, "verify large frame"
    SET_SEC_CONF_PARAMS = 0x0300, 11, Issuer.HOST, "set secure configuration parameters"
    UNPACK_IMG = 0x0301, 13, Issuer.HOST, "unpack image"
    VERIFY_IMG = 0x0302, 14, Issuer.HOST, "verify image"
    CPU_RESET = 0x0310, 15, Issuer.HOST, "CPU reset"
    CPU_RESET_INITIAL = 0x0311, 16, Issuer.HOST, "initial CPU reset"
    PREPARE_RESET = 0x0320, 18, Issuer.HOST, "prepare reset"
    CPU_RESET_CLEAR = 0x0321, 19, Issuer.HOST, "clear CPU reset"
    CPU_SET_STATE = 0x0330, 17, Issuer.HOST, "set CPU state"
    SET_UNSHARE_ALL = 0x0340, 20, Issuer.HOST, "unshare all"
    PIN_PAGE_SHARED = 0x0341, 21, Issuer.HOST, "pin shared page"
    UNPIN_PAGE_SHARED = 0x0342, 22, Issuer.HOST, "unpin shared page"
    DUMP_INIT = 0x0400, 24, Issuer.HOST, "dump initialise"
    DUMP_CONF_STOR_STATE = 0x0401, 25, Issuer.HOST, "dump configuration storage state"
    DUMP_CPU = 0x0402, 26, Issuer.HOST, "dump CPU"
    DUMP_COMPLETE = 0x0403, 27, Issuer.HOST, "dump complete"
    SET_SHARED_ACCESS = 0x1000, 8, Issuer.GUEST, "share page"
    REMOVE_SHARED_ACCESS = 0x1001, 9, Issuer.GUEST, "unshare page"
    RETR_ATTEST = 0x1020, 28, Issuer.GUEST, "retrieve attestation measurement"
    ADD_SECRET = 0x1031, 29, Issuer.GUEST, "add secret"
    LIST_SECRETS = 0x1033, 30, Issuer.GUEST, "list secrets"
    LOCK_SECRETS = 0x1034, 31, Issuer.GUEST, "lock secret store"
    RETR_SECRET = 0x1035, 33, Issuer.GUEST, "retrieve secret"


class CpuState(enum.IntEnum):
    """States of a secure CPU as CPU_SET_STATE numbers them."""

    OPERATING = 1
    STOPPED = 2
    CHECK_STOP = 3
    OPERATING_LOAD = 5


class ResponseCode(enum.Enum):
    """Base of the answer tables: ``(rc, rrc, meaning, advice[, published])``; rrc None stands for any."""

    def __init__(self, rc: int, rrc: int | None, meaning: str, advice: str, published: bool = True) -> None:
        self.rc = rc
        self.rrc = rrc
        self.meaning = meaning
        self.advice = advice
        self.published = published


_CALLER = "this is an error of the program that issued the call"
_HOST = "this is an error of the hypervisor"
_REBUILD = "build the image again, or take an undamaged copy of it"
_TAMPERED = "the image or its parameter block was changed after it was built: take an undamaged copy"


class Generic(ResponseCode):
    """Answers that any command can give."""

    EXECUTED = 0x0001, 0, "executed", "nothing to do"
    INVALID_COMMAND = (
        0x0002,
        None,
        "unknown command, or not installed for this caller",
        "ask QUI which calls are installed",
    )
    INVALID_STATE = 0x0003, None, "not in this phase of the life cycle", "issue the calls in the documented order"
    INVALID_LENGTH = 0x0005, None, "the control block has the wrong length for its command", _CALLER
    NO_RESUME = 0x0007, None, "a continued call cannot be resumed", "start the call again"
    INVALID_CONFIGURATION = 0x0020, None, "no secure configuration has this handle", _HOST
    INVALID_CPU = 0x0021, None, "no secure CPU has this handle", _HOST
    REAL_SPACE = 0x0030, None, "the home address space has the real-space bit on", _CALLER
    INNER_TRANSLATION = 0x0031, None, "an address in the control block cannot be translated", _CALLER
    INNER_ADDRESS = 0x0032, None, "an address in the control block leads to storage that cannot be used", _CALLER
    MORE_DATA = 0x0100, None, "done, but there is more data than the caller left room for", "offer a larger area"


class Init(ResponseCode):
    """INIT_UV."""

    ALREADY = 0x0101, None, "the ultravisor is already initialised", "nothing to do"
    CPUS_RUNNING = 0x0102, None, "other host CPUs are not stopped", "stop every other CPU first"
    LENGTH = 0x0103, None, "the donated storage has the wrong length", "donate exactly the size that QUI reports"
    ORIGIN = 0x0104, None, "the donated storage starts outside memory", _HOST
    END = 0x0105, None, "the donated storage ends outside memory", _HOST
    ALIGNMENT = 0x0106, None, "the donated storage is not aligned to 1 MiB", _HOST, False
    PREFIX = 0x0107, None, "the donated storage contains a CPU's prefix area", _HOST, False
    BELOW_2G = 0x0108, None, "the donated storage starts below 2 GiB", "donate storage at or above 2 GiB"


class CreateConf(ResponseCode):
    """CREATE_SEC_CONF."""

    ORIGIN = 0x0101, None, "the guest's origin is above the largest guest address", _HOST
    END = 0x0102, None, "the guest ends above the largest guest address", "give the guest less memory"
    ASCE_IN_USE = 0x0104, None, "another configuration uses this address space", _HOST
    ASCE = 0x0105, None, "the address-space-control element is not acceptable", _HOST
    FLAGS = 0x0106, None, "a reserved flag is on, or the guest's size is not whole pages", _HOST, False
    BASE_OUTSIDE = 0x0108, None, "the base storage is not in memory", _HOST
    BASE_PREFIX = 0x0109, None, "the base storage contains a CPU's prefix area", _HOST
    BASE_ALIGNMENT = 0x010A, None, "donated storage is not aligned to a page", _HOST, False
    VIRT_PREFIX = 0x010B, None, "the variable storage contains a CPU's prefix area", _HOST, False
    SCA_ZERO = 0x010C, None, "there is no system-control area", _HOST
    SCA = 0x010D, None, "the system-control area cannot be accessed", _HOST
    DONATED = 0x010E, None, "the storage offered is already donated or secure", "donate unused storage", False
    TOO_MANY = 0x010F, None, "there are as many configurations as the machine allows", "end another guest", False


class DestroyConf(ResponseCode):
    """DESTROY_SEC_CONF and DESTROY_SEC_CONF_FAST."""

    ALREADY = 0x0104, None, "the configuration is already being destroyed", "nothing to do"


class CreateCpu(ResponseCode):
    """CREATE_SEC_CPU."""

    NUMBER = 0x0103, None, "the CPU number is above the largest", "use fewer CPUs"
    EXISTS = 0x0104, None, "this CPU number is already defined", _HOST
    STORAGE = 0x0105, None, "the CPU's storage cannot be used", _HOST
    PREFIX = 0x0106, None, "the CPU's storage contains a CPU's prefix area", _HOST
    STATE = 0x0107, None, "the SIE state description cannot be accessed", _HOST


class PageCall(ResponseCode):
    """Import, export, destroy, pin, unpin and unpack of one page."""

    PINNED = 0x0104, 0x0001, "the page is pinned for input/output", "unpin it first", False
    DONATED = 0x0104, 0x0003, "the frame is donated to the ultravisor", _HOST, False
    NOT_SHARED = 0x0105, None, "the page is not shared", "export the page instead of pinning it", False
    COUNTER = 0x0106, 0x0001, "the page was exported as often as is safe", "end the guest", False
    INTEGRITY = (
        0x0108, 0x0001, "the page is not what was last exported from this place",
        "the page was changed, replaced, replayed or dropped: the guest cannot continue", False,
    )  # fmt: skip
    OWNER = 0x0108, 0x0002, "the frame belongs to another page or another guest", _HOST, False
    FRAME_DONATED = 0x0108, 0x0003, "the frame is donated to the ultravisor", _HOST, False
    LOST = 0x0108, 0x0004, "the page was destroyed while its guest lived", "the guest cannot continue", False
    OUTSIDE = 0x0109, None, "the address is outside the guest's storage or not a page", _HOST, False
    NOT_MAPPED = 0x010A, None, "no frame is mapped at this guest address", "map a frame and issue the call again"


class LargeFrame(ResponseCode):
    """VERIFY_LARGE_FRAME."""

    RANGE = 0x0103, None, "the address is outside the guest's storage", _HOST
    NOT_CONSECUTIVE = 0x0104, None, "the pages are not consecutive in one 1 MiB frame", _HOST
    NOT_IMPORTED = 0x0106, None, "not all 256 pages are imported", "import them first"
    MAPPING = 0x0107, None, "nothing is mapped, or not with a 1 MiB entry", _HOST
    REGION = 0x0108, None, "the address is mapped by a 2 GiB entry", _HOST


class SetParameters(ResponseCode):
    """SET_SEC_CONF_PARAMS: the ultravisor reads the Secure Execution header."""

    ACCESS = 0x0103, None, "the Secure Execution header cannot be accessed", _HOST
    VERSION = 0x0104, 0x0001, "the version of the Secure Execution header is not supported", _REBUILD
    PLAINTEXT_FLAG = (
        0x0106, 0x0030, "the header has an unsupported plaintext control flag on",
        "build the image without the option, or use a machine that has it",
    )  # fmt: skip
    AUTHENTICATION = 0x0107, 0x0001, "the header's authentication tag does not match", _TAMPERED, False
    HOST_KEY = (
        0x0108, 0x0005, "the image is not built for this machine: no key slot matches its host key",
        "build the image with this machine's host-key document",
    )  # fmt: skip
    CUSTOMER_KEY = 0x0108, 0x000B, "the customer public key in the header is not a point on P-521", _TAMPERED
    BACKUP_KEY = (
        0x0108, 0x0034, "no key slot matches the machine's host key or its backup host key",
        "build the image with a host-key document of this machine",
    )  # fmt: skip
    KEY_SLOT = 0x0108, None, "the key slot for this machine cannot be opened", _TAMPERED, False
    SECRET_FLAG = (
        0x0109, 0x0000, "the header has an unsupported secret control flag on",
        "build the image without the option, or use a machine that has it",
    )  # fmt: skip
    MAGIC = 0x010A, 0x0001, "there is no Secure Execution header", _REBUILD, False
    HEADER_SIZE = 0x010A, 0x0031, "the header's size does not agree with its parts", _REBUILD
    RESERVED = 0x010A, 0x0032, "the header's encrypted part has items this machine does not know", _REBUILD, False
    ENCRYPTED_SIZE = 0x010A, 0x0039, "the size of the header's encrypted area is not valid", _REBUILD
    NO_KEY_SLOTS = 0x010A, 0x0040, "the header has no key slot", _REBUILD


class VerifyImage(ResponseCode):
    """VERIFY_IMG: what was unpacked is compared with the header."""

    ADDRESSES = 0x0102, 0x001A, "address list digest (ALD) mismatch: a component was at another address", _TAMPERED
    PAGES = 0x0102, 0x001B, "page list digest (PLD) mismatch: a component was changed", _TAMPERED
    TWEAKS = 0x0102, 0x001C, "tweak list digest (TLD) mismatch: a component was loaded with other tweaks", _TAMPERED
    COUNT = 0x0102, 0x001D, "number of pages mismatch: a page is missing or was loaded twice", _TAMPERED


class SetState(ResponseCode):
    """CPU_SET_STATE."""

    STATE = 0x0101, None, "there is no such CPU state", _HOST, False


class Dump(ResponseCode):
    """The four dump calls."""

    NOT_ALLOWED = (
        0x0102, None, "the image does not allow dumps",
        "build the image with --enable-dump; a secret may have disabled dumps since", False,
    )  # fmt: skip


class Share(ResponseCode):
    """Share and unshare."""

    ADDRESS = 0x0101, None, "the address is outside the guest's storage or not that of a page", _CALLER


class Attest(ResponseCode):
    """RETR_ATTEST."""

    TOKEN = 0x0101, None, "the continuation token is not valid", _CALLER
    USER_DATA = 0x0102, None, "there is more user data than 256 bytes", _CALLER
    REQUEST_ACCESS = 0x0103, None, "the attestation request cannot be accessed", _CALLER
    MEASUREMENT_ACCESS = 0x0104, None, "the measurement area cannot be accessed", _CALLER
    ADDITIONAL_ACCESS = 0x0105, None, "the additional-data area cannot be accessed", _CALLER
    VERSION = 0x0106, None, "the version of the attestation request is not supported", "create the request again"
    LENGTH = 0x0107, None, "the attestation request has the wrong length", "create the request again"
    SLOTS = 0x0108, None, "the attestation request has no key slots or too many", "create the request again"
    ENCRYPTED_SIZE = 0x0109, None, "the request's encrypted area has the wrong size", "create the request again"
    FLAG = 0x010A, None, "the request has an unsupported plaintext attestation flag on", "create it without the flag"
    ALGORITHM = 0x010B, None, "the measurement algorithm is not supported", "create the request again"
    DECRYPTION = 0x010C, None, "the request cannot be decrypted", "create it with this machine's host-key document"
    MEASUREMENT_SIZE = 0x010D, None, "the measurement area is too small", _CALLER
    ADDITIONAL_SIZE = 0x010E, None, "the additional-data area is too small for the flags", _CALLER


class AddSecret(ResponseCode):
    """ADD_SECRET."""

    NOT_ALLOWED = 0x0101, None, "this guest may not change its secret store", "use another image"
    LOCKED = 0x0102, None, "the secret store is locked", "start the guest again"
    ACCESS = 0x0103, None, "the request cannot be accessed", _CALLER
    VERSION = 0x0104, None, "the version of the request is not supported", "create the request again"
    SIZE = 0x0105, None, "the request has the wrong size", "create the request again"
    SLOTS = 0x0106, None, "the request has an invalid number of key slots", "create the request again"
    FLAGS = 0x0107, None, "the request has unsupported flags on", "create it without the flags"
    DECRYPTION = 0x0108, None, "the request cannot be decrypted", "create it with this machine's host-key document"
    TYPE = 0x0109, None, "the secret's type is not supported", "use another type"
    LENGTH = 0x010A, None, "the secret has the wrong length for its type", "create the request again"
    FULL = 0x010B, None, "the secret store is full", "start the guest again"
    CANNOT_ADD = (
        0x010C, None, "the secret is not meant for this guest",
        "create it from this guest's image, with its configuration id and extension secret",
    )  # fmt: skip
    DUMPING = 0x010D, None, "a dump is in progress", "wait until it has ended"


class ListSecrets(ResponseCode):
    """LIST_SECRETS."""

    ACCESS = 0x0103, None, "the list area cannot be accessed", _CALLER, False


class LockSecrets(ResponseCode):
    """LOCK_SECRETS."""

    NOT_ALLOWED = 0x0101, None, "this guest may not change its secret store", "use another image"
    ALREADY = 0x0102, None, "the secret store is already locked", "nothing to do"


class RetrieveSecret(ResponseCode):
    """RETR_SECRET."""

    ACCESS = 0x0102, None, "the buffer cannot be accessed", _CALLER
    BUFFER = 0x0109, None, "the buffer is too small for the secret", "offer a larger buffer"
    EMPTY = 0x010F, None, "the secret store is empty", "add a secret first"
    INDEX = 0x0110, None, "no secret has this index", "list the secrets"
    TYPE = 0x0111, None, "a secret of this type cannot be retrieved", "use it through its association"


_PAGE = (PageCall,)
_DUMP = (Dump, PageCall)
RESPONSE_CODES: dict[Command, tuple[type[ResponseCode], ...]] = {
    Command.INIT_UV: (Init,),
    Command.CREATE_SEC_CONF: (CreateConf,),
    Command.DESTROY_SEC_CONF: (DestroyConf,),
    Command.DESTROY_SEC_CONF_FAST: (DestroyConf,),
    Command.CREATE_SEC_CPU: (CreateCpu,),
    Command.CONV_TO_SEC_STOR: _PAGE,
    Command.CONV_FROM_SEC_STOR: _PAGE,
    Command.DESTR_SEC_STOR: _PAGE,
    Command.PIN_PAGE_SHARED: _PAGE,
    Command.UNPIN_PAGE_SHARED: _PAGE,
    Command.UNPACK_IMG: _PAGE,
    Command.VERIFY_LARGE_FRAME: (LargeFrame,),
    Command.SET_SEC_CONF_PARAMS: (SetParameters,),
    Command.VERIFY_IMG: (VerifyImage,),
    Command.CPU_SET_STATE: (SetState,),
    Command.DUMP_INIT: _DUMP,
    Command.DUMP_CONF_STOR_STATE: _DUMP,
    Command.DUMP_CPU: _DUMP,
    Command.DUMP_COMPLETE: _DUMP,
    Command.SET_SHARED_ACCESS: (Share,),
    Command.REMOVE_SHARED_ACCESS: (Share,),
    Command.RETR_ATTEST: (Attest,),
    Command.ADD_SECRET: (AddSecret,),
    Command.LIST_SECRETS: (ListSecrets,),
    Command.LOCK_SECRETS: (LockSecrets,),
    Command.RETR_SECRET: (RetrieveSecret,),
}
"""The answers of each command, in addition to the generic ones."""


def find_response_code(command: Command, rc: int, rrc: int) -> ResponseCode | None:
    """Return the entry for an answer to ``command`` with this rc and rrc, or with the rc alone, or None."""
    rc &= ~RC_NEED_DESTROY
    tables: tuple[type[ResponseCode], ...] = (*RESPONSE_CODES.get(command, ()), Generic)
    known = [answer for table in tables for answer in table if answer.rc == rc]
    return next((a for a in known if a.rrc == rrc), next((a for a in known if a.rrc is None), None))


def describe(command: Command, rc: int, rrc: int) -> str:
    """Return one line for people: the command, its rc and rrc, their meaning and what to do."""
    answer = find_response_code(command, rc, rrc)
    text = f"{answer.meaning}; {answer.advice}" if answer else "an answer that is not documented"
    return f"{command.name} answered rc {rc:#06x} rrc {rrc:#06x}: {text}"
