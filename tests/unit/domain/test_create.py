"""New domains have nothing to find, are valid for libvirt's schema, and can't be made wrong."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zseal.domain.create import NewDisk, NewDomain, create_domain, parse_disk
from zseal.domain.document import Document
from zseal.domain.lint import LintSettings, lint_document
from zseal.domain.model import Domain, Style
from zseal.domain.schema import installed_schema
from zseal.errors import UsageError

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None)
@given(
    name=TEXT.filter(lambda text: "/" not in text and text.strip() and text not in (".", "..")),
    style=st.sampled_from([Style.LAUNCH_SECURITY, Style.IOMMU]),
    memory=st.integers(1536, 1 << 20),
    vcpus=st.integers(1, 247),
    image=st.one_of(st.none(), TEXT.map(lambda text: f"/images/{text}")),
    disks=st.lists(TEXT.map(lambda text: f"/disks/{text}"), min_size=1, max_size=26),
    network=st.one_of(st.none(), st.just("user"), st.just("default")),
    console=st.booleans(),
)
def test_linting_a_new_domain_finds_nothing_at_all(
    name: str,
    style: Style,
    memory: int,
    vcpus: int,
    image: str | None,
    disks: list[str],
    network: str | None,
    console: bool,
) -> None:
    spec = NewDomain(
        name,
        style,
        memory << 20,
        vcpus,
        image,
        tuple(NewDisk(path, queues=1) for path in disks),
        network,
        None,
        console,
    )
    document = Document("new", create_domain(spec).encode())
    findings = lint_document(document, LintSettings(local_files=False)).findings
    assert [f.rule.id for f in findings if f.rule.id != "PV308"] == []  # PV308: 64 GiB are slow to shut down
    domain = Domain(document)
    assert domain.name == name.strip()
    assert domain.style is style
    assert (domain.memory, domain.vcpus) == (memory << 20, vcpus)
    schema = installed_schema()
    assert schema is not None, "install libvirt0 (Debian)"
    assert schema.validate(document) is None


def test_the_same_wishes_give_the_same_text() -> None:
    spec = NewDomain("a", disks=(NewDisk("/dev/sda", "raw"),), bridge="br0", uuid=uuid.UUID(int=7))
    assert create_domain(spec) == create_domain(spec)
    text = create_domain(spec)
    assert "<disk type='block' device='disk'>" in text
    assert "<source dev='/dev/sda'/>" in text
    assert "<source bridge='br0'/>" in text
    assert "<uuid>00000000-0000-0000-0000-000000000007</uuid>" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "a/b"}, "is not a valid domain name"),
        ({"name": ""}, "is not a valid domain name"),
        ({"vcpus": 248}, "1 to 247 processors"),
        ({"memory": 1 << 20}, "at least 128 MiB"),
        ({"disks": (), "image": None}, "nothing to boot"),
        ({"disks": (NewDisk("/a", "vmdk"),)}, "unknown disk format"),
        ({"disks": (NewDisk("/a", queues=9999),)}, "at most 256 queues"),
        ({"image": "/a\x00b"}, "XML cannot contain"),
        ({"style": Style.NONE}, "the style must be"),
        ({"style": Style.IOMMU, "disks": (), "image": "/i", "network": None}, "attribute of virtio devices"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(changes: dict[str, object], reason: str) -> None:
    wishes: dict[str, object] = {"name": "a", "disks": (NewDisk("/a"),), **changes}
    with pytest.raises(UsageError, match=reason):
        NewDomain(**wishes)  # type: ignore[arg-type]


def test_disks() -> None:
    assert parse_disk("/a,b.qcow2") == NewDisk("/a,b.qcow2", "qcow2", 0)
    assert parse_disk("/dev/x,queues=4") == NewDisk("/dev/x", "raw", 4)
    assert parse_disk("/a.img,format=qcow2") == NewDisk("/a.img", "qcow2", 0)
    with pytest.raises(UsageError, match="invalid disk"):
        parse_disk(",format=raw")
