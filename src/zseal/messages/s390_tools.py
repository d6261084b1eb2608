"""What the tools of s390-tools print: pvimg (genprotimg), pvattest, pvsecret, pvverify and pvapconfig."""

from __future__ import annotations

from zseal.formats.uv_codes import Command
from zseal.messages.message import Meaning, Message

TOOLS = "s390-tools (pvimg, pvattest, pvsecret)"
CALLS_OF_TOOLS: dict[str, tuple[Command, ...]] = {
    "pvsecret": (Command.ADD_SECRET, Command.LIST_SECRETS, Command.LOCK_SECRETS, Command.RETR_SECRET),
    "pvattest": (Command.RETR_ATTEST,),
    "pvapconfig": (Command.LIST_SECRETS,),
}
"""The ultravisor calls that each tool makes in a guest, by the tool's name."""
_VERIFY = "zseal hostkey verify -k DOCUMENT -C CERTIFICATES names the rule that fails and what to do"

MESSAGES = (
    Message(
        "HKD_SIGNATURE",
        TOOLS,
        "Signature verification failed",
        Meaning(
            "the host-key document is not signed by the signing key that was given",
            "mostly the signing-key certificate of another machine generation; otherwise a damaged document",
            (
                "compare the issuer of the document with the subject of the certificate; zseal hostkey verify -k "
                "DOCUMENT -C CERTIFICATES names the rule that fails and what to do"
            ),
        ),
    ),
    Message(
        "HKD_NO_CRL",
        TOOLS,
        "No valid CRL found",
        Meaning(
            "there is no current revocation list of the issuer",
            "offline without a list, a list that is out of date, or a download that failed",
            "zseal hostkey verify -k DOCUMENT -C CERTIFICATES names the rule that fails and what to do",
        ),
    ),
    Message(
        "HKD_REVOKED",
        TOOLS,
        "Host-key document is revoked",
        Meaning(
            "IBM revoked the host key",
            "the machine's host key was replaced or is not to be trusted any more",
            "ask the operator of the machine for a current document; do not use this one",
        ),
    ),
    Message(
        "HKD_NO_SIGNING_KEY",
        TOOLS,
        "Specify one IBM Z signing key",
        Meaning(
            "no signing-key certificate was given",
            "only the DigiCert certificates were given with -C",
            "add IBM's signing-key certificate of the machine's generation",
        ),
    ),
    Message(
        "HKD_TWO_SIGNING_KEYS",
        TOOLS,
        "Specify only one IBM Z signing key",
        Meaning(
            "more than one signing-key certificate was given",
            "certificates of several machine generations on one command line",
            "give the one that issued the document; zseal hostkey verify takes several",
        ),
    ),
    Message(
        "HKD_AKID",
        TOOLS,
        "Authority Key Id mismatch",
        Meaning(
            "the document names another key as its issuer",
            "the signing-key certificate of another machine generation",
            "give the signing-key certificate that issued the document",
        ),
    ),
    Message(
        "HKD_ISSUER",
        TOOLS,
        "Issuer mismatch",
        Meaning(
            "the issuer's name in a certificate or CRL is not the one expected",
            "the signing-key certificate or CRL of another machine generation",
            "zseal hostkey verify -k DOCUMENT -C CERTIFICATES names the rule that fails and what to do",
        ),
    ),
    Message(
        "HKD_EARLY",
        TOOLS,
        "Before validity period",
        Meaning(
            "a document, certificate or CRL is not valid yet",
            "the clock of this computer is slow",
            "date; set the clock; zseal hostkey status shows when each one begins and ends",
        ),
    ),
    Message(
        "HKD_EXPIRED",
        TOOLS,
        "After validity period",
        Meaning(
            "a document, certificate or CRL has expired",
            "an old file, or a clock that is fast",
            "fetch current files; zseal hostkey status shows when each one begins and ends",
        ),
    ),
    Message(
        "HKD_CHAIN",
        TOOLS,
        "The IBM Z signing key could not be verified",
        Meaning(
            "the chain from the signing key to the root CA is not complete or not valid",
            "the intermediate CA's certificate or its CRL is missing or out of date",
            "zseal hostkey verify -k DOCUMENT -C CERTIFICATES names the rule that fails and what to do",
        ),
    ),
    Message(
        "HKD_NO_CRL_PLACE",
        TOOLS,
        "No CRL distribution points found",
        Meaning(
            "a certificate does not say where its revocation list is",
            "a certificate of a test CA, or not IBM's",
            "zseal hostkey verify --crl takes the list as a file",
        ),
    ),
    Message(
        "HKD_WEAK",
        TOOLS,
        "Not enough bits of security",
        Meaning("a key in the chain is too short", "a certificate that is not IBM's", "use IBM's certificates"),
    ),
    Message(
        "HKD_FORMAT",
        TOOLS,
        "The provided Host Key Document in '…' is not in PEM or DER format",
        Meaning(
            "the file is not a certificate",
            "a web page saved in its place, or a zip archive",
            "zseal inspect FILE; download the document again",
        ),
    ),
    Message(
        "HKD_EMPTY",
        TOOLS,
        "contains no certificate!",
        Meaning("the file has no certificate in it", "another PEM file, such as a key or a CRL", "zseal inspect FILE"),
    ),
    Message(
        "SE_HEADER",
        TOOLS,
        "Invalid SE header provided",
        Meaning(
            "the file is not a Secure Execution header or image",
            "the wrong file, or a damaged one",
            "zseal inspect FILE; zseal image extract-header IMAGE -o HEADER",
        ),
    ),
    Message(
        "NO_SE_HEADER",
        TOOLS,
        "No Secure Execution header found",
        Meaning(
            "the file is not a Secure Execution image",
            "a plain kernel, a disk in qcow2, or a damaged image",
            "zseal inspect FILE; zseal image info FILE also looks inside disks",
        ),
    ),
    Message(
        "GCM_TAG",
        TOOLS,
        "Decryption failed. Probably due to a GCM tag mismatch",
        Meaning(
            "the key does not open the file",
            "a key of another image or request, or a damaged file",
            "use the key that was written with this image or request",
        ),
    ),
    Message(
        "ELF_KERNEL",
        TOOLS,
        "ELF file found, but only raw binary kernels are supported",
        Meaning(
            "the kernel given is vmlinux, not the bootable image",
            "vmlinux from a kernel build",
            "use arch/s390/boot/bzImage (vmlinuz); zseal inspect FILE",
        ),
    ),
    Message(
        "NO_S390_KERNEL",
        TOOLS,
        "No s390x Linux kernel provided",
        Meaning(
            "the file given as the kernel is not a Linux kernel for s390x",
            "a kernel of another architecture, or a compressed one",
            "zseal inspect FILE",
        ),
    ),
    Message(
        "CMDLINE_TOO_LARGE",
        TOOLS,
        "Provided kernel cmdline is too large",
        Meaning(
            "the kernel parameters are longer than this kernel takes",
            "kernels before 5.18 take 895 characters",
            "shorten them; zseal inspect KERNEL shows the limit",
        ),
    ),
    Message(
        "NO_REQUEST",
        TOOLS,
        "Input does not contain an add-secret request",
        Meaning("the file is not a request made by pvsecret create", "the wrong file", "zseal inspect FILE"),
    ),
    Message(
        "LARGE_REQUEST",
        TOOLS,
        "Input add-secret request is larger than 8k",
        Meaning("the file is too large for a request", "the wrong file", "zseal inspect FILE"),
    ),
    Message(
        "CCK_SIZE",
        TOOLS,
        "Customer Communication Key must be 32 bytes long",
        Meaning(
            "the customer communication key is not a raw key of 32 bytes",
            "a key in text form, or with a newline at its end",
            "openssl rand -out FILE 32 makes one",
        ),
    ),
    Message(
        "ONLY_ON_S390X",
        TOOLS,
        "Command only available on s390x",
        Meaning(
            "the command talks to the ultravisor, so it works inside a guest only",
            "it was run on the computer where requests are made",
            "run it in the protected guest",
        ),
    ),
    Message(
        "ON_THE_GUEST",
        TOOLS,
        "Do NOT generate Add-secret requests on a machine where you want to use the secret",
        Meaning(
            "the request would be made in the guest that is to receive the secret, where the secret does not belong",
            "pvsecret create was run in a protected guest",
            "make the request on a trusted computer",
        ),
    ),
    Message(
        "UV_DEVICE",
        TOOLS,
        "Cannot open …/dev/uv",
        Meaning(
            "there is no device for ultravisor calls",
            "this is not a protected guest, or the module uvdevice is not loaded",
            "cat /sys/firmware/uv/prot_virt_guest must print 1; modprobe uvdevice; run it as root",
        ),
    ),
    Message(
        "MEASUREMENT",
        TOOLS,
        "Calculated and received attestation measurement are not equal",
        Meaning(
            "the guest is not the one that the request describes, or the answer was changed",
            "another image, another host key, or a response to another request",
            "compare the header given with --hdr with the image that runs; repeat with a new request",
        ),
    ),
    Message(
        "ANOTHER_IMAGE",
        TOOLS,
        "None of the key hashes is included",
        Meaning(
            "the image is not built for this machine",
            "it was built with another host-key document",
            "build it with this machine's document; zseal image test IMAGE -k DOCUMENT",
        ),
    ),
)
