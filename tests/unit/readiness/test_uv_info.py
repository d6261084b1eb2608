"""What the ultravisor announces is shown under pvinfo's names."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.paths import VECTORS
from zseal.readiness import CapturedHost
from zseal.readiness.uv_info import SeStatus, read_host_info, to_json, to_text

HOSTS = VECTORS / "hosts"


def test_a_host_tells_its_calls_flags_and_limits() -> None:
    content = json.loads(to_json(read_host_info(CapturedHost(HOSTS / "z16-ready"))))
    assert content["se_status"] == "Host"
    assert "Unpack image" in content["facilities"]
    assert "Share page" not in content["facilities"]
    assert content["supported_se_header_versions"] == ["0x100"]
    assert "Dumping of the guest" in content["supported_plaintext_control_flags"]
    assert content["limits"]["max_address"] == 0x800000000000
    assert content["limits"]["max_cpus"] == 248
    assert content["dump_sizes"]["uv_query_dump_cpu_len"] == 0x1000
    assert content["raw"]["max_guests"] == "8388607"


def test_bits_without_a_name_are_shown_by_number() -> None:
    content = json.loads(to_json(read_host_info(CapturedHost(HOSTS / "z16-ready"))))
    assert "bit 49" in content["supported_plaintext_control_flags"]


def test_a_guest_and_a_plain_system_say_what_they_are() -> None:
    guest = read_host_info(CapturedHost(HOSTS / "z16-protected-guest"))
    assert guest.status is SeStatus.GUEST
    facilities = guest.sections[0].entries
    assert facilities is not None
    assert "Share page" in facilities
    assert read_host_info(CapturedHost(HOSTS / "z16-no-parameter")).status is SeStatus.UNSECURE
    assert not read_host_info(CapturedHost(HOSTS / "x86")).present


def test_text_and_key_hashes() -> None:
    text = to_text(read_host_info(CapturedHost(HOSTS / "z17-ready")))
    assert text.startswith("Secure Execution host\n")
    assert "Largest address of a guest: 0x800000000000" in text
    assert "host_key: 3f1c9a5e" in text


def test_facility_words_without_leading_zeros_keep_their_places(tmp_path: Path) -> None:
    directory = tmp_path / "sys/firmware/uv/query"
    directory.mkdir(parents=True)
    (directory / "facilities").write_text("1\n8000000000000000\n0\n0\n")
    entries = read_host_info(CapturedHost(tmp_path)).sections[0].entries
    assert entries == ("bit 63", "bit 64")


@given(st.binary(max_size=80))
def test_any_file_content_is_survived(data: bytes) -> None:
    class Source(CapturedHost):
        def __init__(self) -> None:
            pass

        def text(self, path: str) -> str | None:
            return data.decode("utf-8", "replace")

        def names(self, path: str) -> tuple[str, ...] | None:
            return ("facilities", "supp_se_hdr_pcf", "max_cpus", "anything")

    assert to_text(read_host_info(Source()))
    assert to_json(read_host_info(Source()))
