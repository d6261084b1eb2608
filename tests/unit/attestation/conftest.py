"""Requests that the reference's tools created, and what a guest answered them."""

import pytest

from tests.paths import VECTORS
from zseal.attestation import HeaderTags, ResponseFile
from zseal.image import read_image
from zseal.secret import Secret

FOLDER = VECTORS / "attestation"
RESPONSES = sorted(path.stem for path in (FOLDER / "results").glob("a*.attresp"))


def response(name: str) -> ResponseFile:
    return ResponseFile.parse((FOLDER / "results" / f"{name}.attresp").read_bytes())


def protection_key(name: str) -> Secret:
    return Secret((FOLDER / "keys" / f"{name[:2]}.key").read_bytes())


@pytest.fixture(scope="session")
def tags() -> HeaderTags:
    """The header tags of the image that the guest ran."""
    return HeaderTags.of(read_image(FOLDER / "se-header.bin").header)
