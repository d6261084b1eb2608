"""A refusal names its real cause: the other generation, the list that was looked at, the fetch that failed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.unit.hostkeys.conftest import LISTS, NOW, PAST, START, List, Pki, signing_name
from zseal.cli.wording import for_command_line
from zseal.errors import ZsealError
from zseal.hostkeys.chain import ChainCode
from zseal.hostkeys.describe import State, validity_of
from zseal.hostkeys.fetch import FetchError
from zseal.hostkeys.results import Failure, HostKeyRule, Reason

Z16, Z17 = (signing_name(unit=f"IBM Z{number} Host Key Signing Service") for number in (16, 17))


def failure(pki: Pki, **options: Any) -> Failure:
    found = pki.check(**options).failure
    assert found is not None
    return found


# --- the signing key of another generation ---


def other_generation(**host: object) -> Pki:
    """A document of a z17 whose signing key is p256:s17, with a z16's signing key, certificates and lists."""
    return Pki(
        signing={"subject": Z16}, signing_crl={"issuer": Z16}, host={"issuer": Z17, "signer": "p256:s17", **host}
    )


@pytest.mark.parametrize(("akid", "rule"), [(False, HostKeyRule.SIGNATURE), (True, HostKeyRule.AUTHORITY_KEY)])
@pytest.mark.parametrize("choose", [False, True])
def test_a_document_of_another_generation_is_said_to_be_one(akid: bool, rule: HostKeyRule, choose: bool) -> None:
    """IBM's own documents name no key: the issuer's name is the only hint, and it is enough."""
    found = failure(other_generation(akid=akid), choose_signing_key=choose)
    assert (found.rule, found.reason) == (rule, Reason.OTHER_SIGNING_KEY)
    for part in ("“IBM Z17 Host Key Signing Service”", "“IBM Z16 Host Key Signing Service”", "signing.crt"):
        assert part in found.message
    assert for_command_line(found.hint) == ("give the signing key certificate of the document's generation with --cert")
    assert "do not use it" not in found.hint


def test_a_forged_signature_stays_one() -> None:
    found = failure(Pki(host={"signer": "p256:x", "akid": False}))
    assert (found.rule, found.reason) == (HostKeyRule.SIGNATURE, Reason.BAD_SIGNATURE)
    assert found.hint.startswith("do not use it")


def test_a_document_that_names_its_issuer_otherwise_is_accepted_if_the_signature_holds() -> None:
    assert (
        Pki(signing={"subject": Z16}, signing_crl={"issuer": Z16}, host={"issuer": Z17, "akid": False}).check().accepted
    )


# --- why there is no list ---


def broken(reason: str) -> Any:
    def fetch(url: str) -> bytes:
        raise FetchError(reason, where=url)

    return fetch


@pytest.mark.parametrize("reason", ["cannot fetch: Name or service not known", "it takes too long"])
def test_a_chain_without_crl_says_what_came_of_fetching_it(reason: str) -> None:
    pki = Pki(signing={"points": ("http://crl.test/i.crl",)}, intermediate_crl=None)
    found = failure(pki, offline=False, fetch=broken(reason))
    assert found.code == ChainCode.NO_CRL
    assert f"http://crl.test/i.crl: {reason}" in found.message
    assert "offline" not in found.hint
    assert for_command_line(found.hint) == "give the current CRL of its issuer with --crl"


def test_a_captive_portal_is_named() -> None:
    pki = Pki(signing={"points": ("http://crl.test/i.crl",)}, intermediate_crl=None)
    found = failure(pki, offline=False, fetch=lambda url: b"<html>log in</html>")
    assert "http://crl.test/i.crl: there is no CRL at this address" in found.message


def test_an_expired_list_of_the_chain_says_so_and_what_fetching_gave() -> None:
    pki = Pki(signing={"points": ("http://crl.test/i.crl",)}, intermediate_crl={"end": PAST})
    found = failure(pki, offline=False, fetch=broken("it takes too long"))
    assert found.code == ChainCode.CRL_EXPIRED
    assert "(intermediate_crl.crl)" in found.message
    assert "http://crl.test/i.crl: it takes too long" in found.message


def test_only_an_offline_verification_is_told_to_go_online() -> None:
    found = failure(Pki(intermediate_crl=None))
    assert "(no --offline)" in for_command_line(found.hint)


def test_another_failure_of_the_chain_is_not_blamed_on_the_network() -> None:
    pki = Pki(signing={"points": ("http://crl.test/i.crl",), "end": PAST})
    found = failure(pki, offline=False, fetch=broken("it takes too long"))
    assert found.code == ChainCode.EXPIRED
    assert "crl.test" not in found.message


# --- which list was looked at, and why it does not count ---


@pytest.mark.parametrize(
    ("crl", "why"),
    [
        ({"end": PAST}, f"signing_crl.crl ended on {PAST:%Y-%m-%d %H:%M:%S} UTC"),
        (
            {"start": NOW + timedelta(days=1)},
            f"signing_crl.crl begins on {NOW + timedelta(days=1):%Y-%m-%d %H:%M:%S} UTC",
        ),
        ({"end": None}, "signing_crl.crl has no end"),
        ({"signer": "p256:x"}, "signing_crl.crl is not signed by this signing key"),
        ({"issuer": Z17, "signer": "p256:s17"}, "signing_crl.crl is issued by IBM Z17 Host Key Signing Service"),
    ],
)
def test_a_list_that_does_not_count_is_named_with_the_reason(crl: dict[str, Any], why: str) -> None:
    found = failure(Pki(signing_crl=crl))
    assert found.reason is Reason.NO_VALID_CRL
    assert found.message == f"no current, correctly signed CRL of the signing key; {why}"


def test_every_list_that_was_looked_at_is_named() -> None:
    pki = Pki(signing_crl={"end": PAST})
    other = List(Z17, "p256:s17").crl("other.crl")
    found = failure(pki, crls=[*pki.crls, other])
    assert "; signing_crl.crl ended on " in found.message
    assert "; other.crl is issued by IBM Z17 Host Key Signing Service" in found.message
    assert "intermediate_crl" not in found.message


# --- when a list is about to end ---


def state(start: datetime, life: timedelta, *, at: timedelta, days: float | None = None) -> State:
    crl = List(LISTS["root_crl"].issuer, LISTS["root_crl"].signer, start=start, end=start + life).crl("x.crl")
    return validity_of(crl, days=days, now=start + at).state


@pytest.mark.parametrize("life", [7, 30, 90])
def test_a_list_issued_today_is_valid_and_one_in_its_last_quarter_expiring(life: int) -> None:
    whole = timedelta(days=life)
    assert state(START, whole, at=timedelta()) is State.VALID
    assert state(START, whole, at=whole * 0.7) is State.VALID
    assert state(START, whole, at=whole * 0.8) is State.EXPIRING
    assert state(START, whole, at=whole) is State.EXPIRED


def test_a_list_of_a_year_is_expiring_as_a_certificate_is_and_days_overrule_all() -> None:
    year = timedelta(days=365)
    assert state(START, year, at=year - timedelta(days=31)) is State.VALID
    assert state(START, year, at=year - timedelta(days=29)) is State.EXPIRING
    assert state(START, timedelta(days=7), at=timedelta(), days=30) is State.EXPIRING
    assert state(START, timedelta(days=7), at=timedelta(days=6), days=0.5) is State.VALID


def test_certificates_keep_thirty_days() -> None:
    host = Pki(host={"end": NOW + timedelta(days=29)}).parts["host"]
    assert validity_of(host, days=None, now=NOW).state is State.EXPIRING
    assert validity_of(host, days=None, now=NOW - timedelta(days=2)).state is State.VALID


def test_errors_of_these_kinds_are_one_line() -> None:
    for pki in (other_generation(akid=False), Pki(signing_crl={"end": PAST}), Pki(intermediate_crl=None)):
        with pytest.raises(ZsealError) as caught:
            pki.report().raise_for_refusal()
        assert "\n" not in str(caught.value)
