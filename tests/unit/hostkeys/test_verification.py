"""Every rule of the verification, each with a chain that breaks it and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import NameOID

from tests.unit.hostkeys.conftest import (
    FUTURE,
    INTERMEDIATE,
    NOW,
    PAST,
    ROOT,
    Issued,
    List,
    Pki,
    authority_key,
    common,
    name,
    signing_name,
)
from zseal.errors import VerificationError
from zseal.hostkeys.chain import ChainCode
from zseal.hostkeys.document import HostKeyDocument
from zseal.hostkeys.results import HostKeyRule, HostKeyVerificationError, Reason
from zseal.hostkeys.trust import TrustMaterial

ARMONK = signing_name(locality="Armonk")
OTHER = common("Somebody else")
URL = "http://crl.test/list.crl"


def replaced(subject: x509.Name, oid: x509.ObjectIdentifier, value: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) if item.oid == oid else item for item in subject])


def unknown(critical: bool = True) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    return ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical),)


def scope(**options: Any) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    settings: dict[str, Any] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return ((x509.IssuingDistributionPoint(**(settings | options)), True),)


def uri(address: str) -> list[x509.UniformResourceIdentifier]:
    return [x509.UniformResourceIdentifier(address)]


@dataclass
class Case:
    """Changes to the chain and what they lead to; reason None is acceptance."""

    id: str
    changes: dict[str, Any]
    reason: Reason | None
    code: ChainCode | None = None
    level: int | None = None


def good(id: str, **changes: Any) -> Case:
    return Case(id, changes, None)


def bad(id: str, reason: Reason, **changes: Any) -> Case:
    return Case(id, changes, reason)


def chain(id: str, code: ChainCode, level: int, **changes: Any) -> Case:
    return Case(id, changes, Reason.CHAIN, code, level)


CASES = [
    good("baseline"),
    # the host key
    bad("RSA host key", Reason.WRONG_KEY_TYPE, host={"key": "rsa2048:h"}),
    bad("P-256 host key", Reason.WRONG_KEY_TYPE, host={"key": "p256:h"}),
    bad("P-384 host key", Reason.WRONG_KEY_TYPE, host={"key": "p384:h"}),
    bad("Ed25519 host key", Reason.WRONG_KEY_TYPE, host={"key": "ed25519:h"}),
    bad("RSA-1024 host key", Reason.WEAK_KEY, host={"key": "rsa1024:h"}),
    bad("P-192 host key", Reason.WEAK_KEY, host={"key": "p192:h"}),
    # recognising the signing key
    good("Armonk signing key", signing={"subject": ARMONK}, signing_crl={"issuer": ARMONK}),
    good("unit is only the suffix", signing={"subject": signing_name(unit="Key Signing Service")},
         signing_crl={"issuer": signing_name(unit="Key Signing Service")}),
    bad("no signing key", Reason.NO_SIGNING_KEY, signing=None),
    bad("unit goes on", Reason.NO_SIGNING_KEY, signing={"subject": signing_name(unit="Key Signing Service 2")}),
    bad("unit in lower case", Reason.NO_SIGNING_KEY, signing={"subject": signing_name(unit="key signing service")}),
    bad("another town", Reason.NO_SIGNING_KEY, signing={"subject": signing_name(locality="Boeblingen")}),
    bad("another country", Reason.NO_SIGNING_KEY,
        signing={"subject": replaced(signing_name(), NameOID.COUNTRY_NAME, "DE")}),
    bad("another state", Reason.NO_SIGNING_KEY,
        signing={"subject": replaced(signing_name(), NameOID.STATE_OR_PROVINCE_NAME, "new york")}),
    bad("another organization", Reason.NO_SIGNING_KEY,
        signing={"subject": replaced(signing_name(), NameOID.ORGANIZATION_NAME, "IBM")}),
    bad("another common name", Reason.NO_SIGNING_KEY,
        signing={"subject": replaced(signing_name(), NameOID.COMMON_NAME, "IBM")}),
    bad("five attributes", Reason.NO_SIGNING_KEY,
        signing={"subject": x509.Name(list(signing_name())[:-1])}),
    bad("seven attributes", Reason.NO_SIGNING_KEY,
        signing={"subject": x509.Name([*signing_name(), *common("seventh")])}),
    # building the chain
    chain("no intermediate", ChainCode.NO_ISSUER, 0, intermediate=None),
    chain("no root", ChainCode.NO_ISSUER, 1, root=None),
    chain("wrong root of the same name", ChainCode.NO_ISSUER, 1, root={"key": "p256:x", "signer": "p256:x"}),
    chain("intermediate of the same name", ChainCode.NO_ISSUER, 0, intermediate={"key": "p256:x"}),
    chain("intermediate may not sign", ChainCode.NOT_A_CA, 1, intermediate={"usage": ("crl_sign",)}),
    chain("self-signed signing key", ChainCode.SELF_SIGNED_SIGNING_KEY, 0,
          signing={"issuer": signing_name(), "signer": "p256:s"}),
    # extensions
    chain("unknown critical extension", ChainCode.UNKNOWN_CRITICAL, 0, signing={"extra": unknown()}),
    good("unknown extension", signing={"extra": unknown(critical=False)}),
    chain("intermediate is no CA", ChainCode.NOT_A_CA, 1,
          intermediate={"ca": False}),
    chain("intermediate without basic constraints", ChainCode.NOT_A_CA, 1, intermediate={"ca": None}),
    chain("root is no CA", ChainCode.NOT_A_CA, 2, root={"ca": None}),
    chain("basic constraints not critical", ChainCode.CA_FLAG_NOT_CRITICAL, 1, intermediate={"ca_critical": False}),
    chain("intermediate without key usage", ChainCode.NO_KEY_USAGE, 1, intermediate={"usage": None}),
    chain("path length without key usage", ChainCode.PATH_LENGTH_WITHOUT_CERT_SIGN, 1,
          intermediate={"path_length": 0, "usage": None}),
    chain("signing key may sign certificates", ChainCode.CERT_SIGN_WITHOUT_CA, 0,
          signing={"usage": ("key_cert_sign",)}),
    good("signing key is a CA", signing={"ca": True, "usage": ("key_cert_sign", "crl_sign")}),
    chain("no authority key id", ChainCode.NO_AUTHORITY_KEY_ID, 0, signing={"akid": False}),
    chain("intermediate without authority key id", ChainCode.NO_AUTHORITY_KEY_ID, 1, intermediate={"akid": False}),
    chain("intermediate without subject key id", ChainCode.NO_SUBJECT_KEY_ID, 1, intermediate={"skid": False}),
    good("signing key without subject key id", signing={"skid": False}),
    good("path length fits", root={"path_length": 1}, intermediate={"path_length": 0}),
    chain("path length exceeded", ChainCode.PATH_LENGTH, 2, root={"path_length": 0}),
    # strength
    chain("weak signing key", ChainCode.WEAK_SIGNING_KEY, 0,
          signing={"key": "rsa1024:s"}, host={"signer": "rsa1024:s"}, signing_crl={"signer": "rsa1024:s"}),
    chain("weak intermediate", ChainCode.WEAK_CA_KEY, 1, intermediate={"key": "p192:i"}, signing={"signer": "p192:i"}),
    chain("weak root", ChainCode.WEAK_CA_KEY, 2, root={"key": "p192:r", "signer": "p192:r"},
          intermediate={"signer": "p192:r"}, root_crl={"signer": "p192:r"}),
    chain("signing key over SHA-1", ChainCode.WEAK_DIGEST, 0, intermediate={"key": "rsa2048:i"},
          signing={"signer": "rsa2048:i", "sha1": True}),
    chain("intermediate over SHA-1", ChainCode.WEAK_DIGEST, 1, root={"key": "rsa2048:r", "signer": "rsa2048:r"},
          intermediate={"signer": "rsa2048:r", "sha1": True}),
    good("root over SHA-1", root={"key": "rsa2048:r", "signer": "rsa2048:r", "sha1": True},
         intermediate={"signer": "rsa2048:r"}, root_crl={"signer": "rsa2048:r"}),
    # revocation in the chain
    chain("intermediate's CRL missing", ChainCode.NO_CRL, 0, intermediate_crl=None),
    chain("root's CRL missing", ChainCode.NO_CRL, 1, root_crl=None),
    chain("CRL of another key", ChainCode.NO_CRL, 0, intermediate_crl={"signer": "p256:x"}),
    chain("CRL of another key without its id", ChainCode.CRL_SIGNATURE, 0,
          intermediate_crl={"signer": "p256:x", "akid": False}),
    chain("CRL in the future", ChainCode.CRL_NOT_YET_VALID, 0, intermediate_crl={"start": FUTURE}),
    chain("CRL over", ChainCode.CRL_EXPIRED, 0, intermediate_crl={"end": PAST}),
    chain("root's CRL over", ChainCode.CRL_EXPIRED, 1, root_crl={"end": PAST}),
    good("CRL without end", intermediate_crl={"end": None}),
    chain("issuer may not sign CRLs", ChainCode.NO_CRL_SIGN, 0, intermediate={"usage": ("key_cert_sign",)}),
    chain("signing key revoked", ChainCode.REVOKED, 0, intermediate_crl={"revoked": (3,)}),
    chain("intermediate revoked", ChainCode.REVOKED, 1, root_crl={"revoked": (2,)}),
    chain("root revoked", ChainCode.REVOKED, 2, root_crl={"revoked": (1,)}),
    chain("CRL with unknown critical extension", ChainCode.CRL_UNKNOWN_CRITICAL, 0,
          intermediate_crl={"extra": unknown()}),
    chain("CRL of another distribution point", ChainCode.CRL_SCOPE, 0,
          intermediate_crl={"extra": scope(full_name=uri(URL))}),
    good("CRL of the distribution point", signing={"points": (URL,)},
         intermediate_crl={"extra": scope(full_name=uri(URL))}),
    chain("CRL for CAs only", ChainCode.CRL_SCOPE, 0, intermediate_crl={"extra": scope(only_contains_ca_certs=True)}),
    chain("CRL for users only", ChainCode.CRL_SCOPE, 1, root_crl={"extra": scope(only_contains_user_certs=True)}),
    chain("indirect CRL", ChainCode.NO_CRL, 0, intermediate_crl={"extra": scope(indirect_crl=True)}),
    chain("delta CRL", ChainCode.NO_CRL, 0, intermediate_crl={"extra": ((x509.DeltaCRLIndicator(1), True),)}),
    # signatures and dates in the chain
    chain("signing key not signed by the intermediate", ChainCode.CERTIFICATE_SIGNATURE, 0,
          signing={"signer": "p256:x", "akid": authority_key("p256:i")}),
    chain("intermediate not signed by the root", ChainCode.CERTIFICATE_SIGNATURE, 1,
          intermediate={"signer": "p256:x", "akid": authority_key("p256:r")}),
    chain("root not signed by itself", ChainCode.CERTIFICATE_SIGNATURE, 2,
          root={"signer": "p256:x", "akid": authority_key("p256:r")}),
    chain("signing key not yet valid", ChainCode.NOT_YET_VALID, 0, signing={"start": FUTURE}),
    chain("intermediate not yet valid", ChainCode.NOT_YET_VALID, 1, intermediate={"start": FUTURE}),
    chain("signing key expired", ChainCode.EXPIRED, 0, signing={"end": PAST}),
    chain("intermediate expired", ChainCode.EXPIRED, 1, intermediate={"end": PAST}),
    chain("root expired", ChainCode.EXPIRED, 2, root={"end": PAST}),
    # other algorithms
    good("RSA signing key", signing={"key": "rsa2048:s"}, host={"signer": "rsa2048:s"},
         signing_crl={"signer": "rsa2048:s"}),
    good("RSA-PSS intermediate", intermediate={"key": "rsa2048:i"}, intermediate_crl={"signer": "rsa2048:i"},
         signing={"signer": "rsa2048:i", "rsa_padding": padding.PSS(padding.MGF1(hashes.SHA256()), 32)}),
    good("Ed25519 root", root={"key": "ed25519:r", "signer": "ed25519:r"}, intermediate={"signer": "ed25519:r"},
         root_crl={"signer": "ed25519:r"}),
    # the document
    bad("not yet valid", Reason.NOT_YET_VALID, host={"start": FUTURE}),
    bad("expired", Reason.EXPIRED, host={"end": PAST}),
    bad("expires this second", Reason.EXPIRED, host={"end": NOW}),
    good("valid from this second on", host={"start": NOW}),
    bad("another key id", Reason.OTHER_SIGNING_KEY, host={"akid": authority_key("p256:x")}),
    bad("another serial number", Reason.OTHER_SIGNING_KEY,
        host={"akid": authority_key("p256:s", issuer=INTERMEDIATE, serial=99)}),
    bad("another issuer of the signing key", Reason.OTHER_SIGNING_KEY,
        host={"akid": authority_key("p256:s", issuer=ROOT, serial=3)}),
    good("full authority key id", host={"akid": authority_key("p256:s", issuer=INTERMEDIATE, serial=3)}),
    good("no authority key id in the document", host={"akid": False}),
    bad("signed by a stranger", Reason.BAD_SIGNATURE, host={"signer": "p256:x", "akid": authority_key("p256:s")}),
    bad("no CRL of the signing key", Reason.NO_VALID_CRL, signing_crl=None),
    bad("signing key's CRL over", Reason.NO_VALID_CRL, signing_crl={"end": PAST}),
    bad("signing key's CRL in the future", Reason.NO_VALID_CRL, signing_crl={"start": FUTURE}),
    bad("signing key's CRL without end", Reason.NO_VALID_CRL, signing_crl={"end": None}),
    bad("signing key's CRL of another key", Reason.NO_VALID_CRL, signing_crl={"signer": "p256:x"}),
    bad("signing key's CRL forged", Reason.NO_VALID_CRL,
        signing_crl={"signer": "p256:x", "akid": authority_key("p256:s")}),
    bad("signing key's CRL under another name", Reason.NO_VALID_CRL, signing_crl={"issuer": OTHER}),
    bad("only a delta CRL", Reason.NO_VALID_CRL, signing_crl={"extra": ((x509.DeltaCRLIndicator(1), True),)}),
    bad("only an indirect CRL", Reason.NO_VALID_CRL, signing_crl={"extra": scope(indirect_crl=True)}),
    bad("only a CRL for some reasons", Reason.NO_VALID_CRL,
        signing_crl={"extra": scope(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise}))}),
    bad("revoked", Reason.REVOKED, signing_crl={"revoked": (4,)}),
    bad("on hold", Reason.REVOKED, signing_crl={"revoked": (4,), "reason": x509.ReasonFlags.certificate_hold}),
    bad("removed from the list", Reason.REVOKED,
        signing_crl={"revoked": (4,), "reason": x509.ReasonFlags.remove_from_crl}),
    good("another one revoked", signing_crl={"revoked": (5,)}),
    bad("Poughkeepsie key, Armonk list", Reason.NO_VALID_CRL, signing_crl={"issuer": ARMONK}),
    good("Armonk key, Poughkeepsie list", signing={"subject": ARMONK}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_rule(case: Case) -> None:
    report = Pki(**case.changes).check()
    failure = report.failure
    assert (failure.reason if failure else None) is case.reason, report.checks
    assert report.accepted is (case.reason is None)
    if failure is None:
        assert [check.rule for check in report.checks] == list(HostKeyRule)
        assert all(check.passed for check in report.checks)
        return
    assert (failure.code, failure.level) == (case.code, case.level)
    assert failure.message and failure.hint
    # the rules before it hold, and it ends the checks
    assert [check.passed for check in report.checks] == [True] * (len(report.checks) - 1) + [False]
    assert report.checks[-1].rule is failure.rule


def test_every_reason_and_code_has_a_case() -> None:
    named = {case.reason for case in CASES} - {None}
    assert set(Reason) - named == {Reason.SEVERAL_SIGNING_KEYS}  # has its own tests below
    codes = {case.code for case in CASES} - {None}
    own = {
        ChainCode.NO_ISSUER_ABOVE_TRUSTED,
        ChainCode.SELF_SIGNED_UNTRUSTED,
        ChainCode.TOO_LONG,
        ChainCode.PATH_LENGTH_WITHOUT_CA,
        ChainCode.NO_SUBJECT,
    }
    assert set(ChainCode) - codes == own


def test_several_signing_keys() -> None:
    pki = Pki()
    report = pki.check(certificates=[*pki.certificates, pki.parts["signing"]])
    assert report.failure is not None
    assert report.failure.reason is Reason.SEVERAL_SIGNING_KEYS


def test_each_document_with_the_signing_key_it_names() -> None:
    old, new = (
        Pki(),
        Pki(
            signing={"key": "p256:s2", "serial": 30},
            host={"signer": "p256:s2", "key": "p521:h2"},
            signing_crl={"signer": "p256:s2"},
        ),
    )
    both = [*old.certificates, new.parts["signing"]]
    crls = [*old.crls, *new.crls]
    documents = old.document, new.document
    report = old.report(*documents, certificates=both, crls=crls, choose_signing_key=True)
    assert report.accepted
    assert [document.chain[0].serial for document in report.documents] == [3, 30]


def test_trusted_certificate_that_is_no_root() -> None:
    failure = Pki().check(root_ca=[Pki().parts["intermediate"]]).failure
    assert failure is not None
    assert (failure.code, failure.level) == (ChainCode.NO_ISSUER_ABOVE_TRUSTED, 1)


def test_root_that_is_not_trusted() -> None:
    pki = Pki()
    failure = pki.check(certificates=[*pki.certificates, pki.parts["root"]], root_ca=[]).failure
    assert failure is not None
    assert (failure.code, failure.level) == (ChainCode.SELF_SIGNED_UNTRUSTED, 2)
    assert "`root_ca`" in failure.hint


def long_chain(intermediates: int) -> tuple[Pki, dict[str, Any]]:
    """A chain with so many CAs between the signing key and the root."""
    below, signer, certificates, crls = ROOT, "p256:r", [], []
    for number in range(intermediates):
        subject, own = common(f"CA {number}"), f"p256:ca{number}"
        issued = Issued(subject, below, own, signer, ca=True, usage=("key_cert_sign", "crl_sign"), serial=50 + number)
        certificates.append(issued.certificate(f"ca{number}.crt"))
        crls.append(List(subject, own).crl(f"ca{number}.crl"))
        below, signer = subject, own
    pki = Pki(signing={"issuer": below, "signer": signer})
    return pki, {"certificates": [pki.parts["signing"], *certificates], "crls": [*pki.crls, *crls]}


@pytest.mark.parametrize(("intermediates", "code"), [(0, None), (1, None), (2, None), (3, ChainCode.TOO_LONG)])
def test_length_of_the_chain(intermediates: int, code: ChainCode | None) -> None:
    pki, options = long_chain(intermediates)
    failure = pki.check(**options).failure
    assert (failure.code if failure else None) == code
    assert failure is None or failure.level == 3


def test_flaws_that_no_issuer_would_encode() -> None:
    pki = Pki()
    signing, intermediate = pki.certificates
    for flawed, code in (
        (replace(signing, path_length=0), ChainCode.PATH_LENGTH_WITHOUT_CA),
        (replace(signing, is_ca=True, ca_flag_critical=True, key_id=None), ChainCode.NO_SUBJECT_KEY_ID),
        (replace(signing, is_ca=True, ca_flag_critical=True, subject=()), ChainCode.NO_SUBJECT),
    ):
        failure = pki.check(certificates=[flawed, intermediate]).failure
        assert failure is not None
        assert (failure.code, failure.level) == (code, 0)


def test_right_issuer_is_found_beside_one_of_the_same_name() -> None:
    pki, fake = Pki(), Pki(intermediate={"key": "p256:x"})
    assert pki.check(certificates=[fake.parts["intermediate"], *pki.certificates]).accepted


def test_valid_issuer_is_preferred_to_an_expired_one() -> None:
    pki, old = Pki(), Pki(intermediate={"end": PAST, "serial": 20})
    assert pki.check(certificates=[old.parts["intermediate"], *pki.certificates]).accepted


def test_newest_current_crl_decides() -> None:
    pki = Pki()
    expired = replace(List(INTERMEDIATE, "p256:i"), end=PAST).crl("old.crl")
    assert pki.check(crls=[expired, *pki.crls]).accepted
    foreign = List(INTERMEDIATE, "p256:x", akid=False, start=NOW - timedelta(days=1)).crl("foreign.crl")
    failure = pki.check(crls=[foreign, *pki.crls]).failure
    assert failure is not None
    assert failure.code == ChainCode.CRL_SIGNATURE


def test_revocation_in_an_older_crl_of_the_chain_counts() -> None:
    pki = Pki()
    newer = List(INTERMEDIATE, "p256:i", start=NOW - timedelta(days=1)).crl("newer.crl")
    revoking = List(INTERMEDIATE, "p256:i", revoked=(3,)).crl("older.crl")
    failure = pki.check(crls=[*pki.crls, newer, revoking]).failure
    assert failure is not None
    assert (failure.code, failure.level) == (ChainCode.REVOKED, 0)


@pytest.mark.parametrize("extra", [(), ((x509.DeltaCRLIndicator(1), True),)], ids=["complete", "delta"])
def test_any_crl_may_revoke_a_document(extra: Any) -> None:
    pki = Pki()
    second = List(signing_name(), "p256:s", revoked=(4,), extra=extra).crl("second.crl")
    failure = pki.check(crls=[*pki.crls, second]).failure
    assert failure is not None
    assert failure.reason is Reason.REVOKED
    assert "second.crl" in failure.message


@pytest.mark.parametrize("locality", ["Poughkeepsie", "Armonk"])
def test_crl_issuer_in_the_published_order(locality: str) -> None:
    order = [0, 3, 4, 2, 1, 5]  # of the attributes of signing_name: C, O, OU, L, ST, CN
    reordered = x509.Name([list(signing_name(locality="Poughkeepsie"))[position] for position in order])
    pki = Pki(signing={"subject": signing_name(locality=locality)}, signing_crl={"issuer": reordered})
    assert pki.check().accepted


def test_names_are_compared_without_case_and_white_space() -> None:
    shouted = x509.Name([x509.NameAttribute(item.oid, str(item.value).upper()) for item in signing_name()])
    spaced = replaced(shouted, NameOID.ORGANIZATION_NAME, " international  business machines\tCORPORATION ")
    assert Pki(signing_crl={"issuer": spaced}).check().accepted


def test_another_issuer_name_is_a_warning() -> None:
    report = Pki(host={"issuer": OTHER}).check()
    assert report.accepted
    assert "Somebody else" in report.warnings[0]
    assert Pki().check().warnings == ()


def test_unused_certificates_of_the_file_are_a_warning() -> None:
    pki = Pki()
    report = pki.report(replace(pki.document, unused=2)).documents[0]
    assert "only the first of 3" in report.warnings[0]


def test_documents_are_judged_one_by_one() -> None:
    pki, revoked = Pki(), Pki(host={"serial": 9, "key": "p521:h2"}, signing_crl={"revoked": (9,)})
    wrong = HostKeyDocument(Pki(host={"key": "p256:h"}).parts["host"], "wrong.crt")
    report = pki.report(pki.document, replace(revoked.document, source="gone.crt"), wrong, crls=revoked.crls)
    assert [document.accepted for document in report.documents] == [True, False, False]
    with pytest.raises(HostKeyVerificationError, match=r"^gone\.crt: host-key document refused, rule revocation: "):
        report.raise_for_refusal()


def test_verify_raises_for_the_first_refusal() -> None:
    pki = Pki(host={"end": PAST})
    with pytest.raises(
        HostKeyVerificationError, match=r"host\.crt: .* rule validity: .* expired on .*; get the"
    ) as caught:
        TrustMaterial(tuple(pki.certificates), tuple(pki.crls), tuple(pki.roots)).verify(
            [pki.document], offline=True, now=NOW
        )
    assert isinstance(caught.value, VerificationError)
    assert caught.value.failure.rule is HostKeyRule.VALIDITY


def test_time_zone_of_the_clock_does_not_matter() -> None:
    local = NOW.astimezone()
    assert Pki(host={"end": NOW + timedelta(seconds=1)}).check(now=local).accepted


def test_terminal_controls_in_names_are_made_harmless() -> None:
    report = Pki(host={"issuer": name((NameOID.COMMON_NAME, "evil\x1b[2J\nname"))}).check()
    assert "evil\\x1b[2J\\x0aname" in report.warnings[0]


def test_software_machines_are_marked() -> None:
    marked = common("zseal software machine (not hardware) host key")
    assert Pki(host={"subject": marked}).check().software
    assert not Pki().check().software
