"""Every rule fires on its own example, its repair repairs it, and its page in the documentation is the current one."""

from __future__ import annotations

import re

import pytest

from tests import paths
from tests.paths import REPOSITORY
from tests.unit.domain.samples import read
from zseal.domain.document import Document
from zseal.domain.examples import base_domain, example_domain
from zseal.domain.explain import explain_rule, list_rules
from zseal.domain.facts import TargetHost
from zseal.domain.fix import fix_bytes
from zseal.domain.guest import GuestInputs, HostKeyHash, ImageFacts, ParameterFile
from zseal.domain.lint import LintReport, LintSettings, check_rule_ids, lint_bytes
from zseal.domain.model import Style
from zseal.domain.rulepages import pages
from zseal.domain.rules import RULES
from zseal.domain.rules.interface import LintRule, Safety, Severity
from zseal.domain.schema import installed_schema
from zseal.domain.versions import Target
from zseal.errors import UsageError

DOCS = paths.DOCS / "domains" / "rules"
WITH_EXAMPLE = [rule for rule in RULES.values() if rule.example]
# what each needs to be repaired lies outside its example
BY_COMMAND = {"PV109", "PV308", "PV605", "PV508"}
REPAIRED = [r for r in WITH_EXAMPLE if r.safety is not Safety.NONE and r.id not in BY_COMMAND]


def _lint(text: str, **settings: object) -> LintReport:
    return lint_bytes("x", text.encode(), LintSettings(local_files=False, **settings))  # type: ignore[arg-type]


def _ids(report: LintReport) -> list[str]:
    return [finding.rule.id for finding in report.findings]


def test_there_are_135_rules_with_everything_a_user_asks() -> None:
    assert len(RULES) == 135
    for rule in RULES.values():
        assert re.fullmatch(r"PV\d{3}", rule.id)
        for text in (rule.title, rule.why, rule.effect, rule.remedy):
            assert len(text) > 3
            assert "  " not in text
        assert rule.example or rule.needs, rule.id
    counts = [sum(rule.severity is severity for rule in RULES.values()) for severity in Severity]
    assert counts == [86, 32, 17]


@pytest.mark.parametrize("rule", WITH_EXAMPLE, ids=lambda rule: rule.id)
def test_the_example_of_a_rule_breaks_it(rule: LintRule) -> None:
    assert rule.id in _ids(_lint(example_domain(rule)))


@pytest.mark.parametrize("rule", REPAIRED, ids=lambda rule: rule.id)
def test_the_repair_of_a_rule_repairs_its_example(rule: LintRule) -> None:
    fixed = fix_bytes("x", example_domain(rule).encode(), unsafe=rule.safety is Safety.ASK)
    assert rule.id not in _ids(lint_bytes("x", fixed.after, LintSettings(local_files=False)))


@pytest.mark.parametrize("rule", [r for r in WITH_EXAMPLE if r.safety is Safety.ASK], ids=lambda rule: rule.id)
def test_what_has_to_be_asked_is_not_repaired_unasked(rule: LintRule) -> None:
    if rule.id == "PV001":
        return  # fix has nothing to work on before the XML is repaired
    fixed = fix_bytes("x", example_domain(rule).encode())
    assert rule.id in _ids(lint_bytes("x", fixed.after, LintSettings(local_files=False)))


@pytest.mark.parametrize("style", [Style.LAUNCH_SECURITY, Style.IOMMU])
def test_the_base_of_the_examples_has_nothing_to_find_but_advice(style: Style) -> None:
    report = _lint(base_domain(style))
    assert {finding.severity for finding in report.findings} == {Severity.ADVICE}
    schema = installed_schema()
    assert schema is not None, "install libvirt0 (Debian)"
    assert schema.validate(Document("x", base_domain(style).encode())) is None


def test_a_cd_rom_in_front_of_the_disk_loses_its_place() -> None:
    text = base_domain(Style.LAUNCH_SECURITY).replace("order='1'", "order='2'")
    cdrom = "<disk type='file' device='cdrom'><target dev='sda' bus='scsi'/><boot order='1'/></disk>"
    text = text.replace("<memballoon", cdrom + "<memballoon")
    assert "PV508" in _ids(_lint(text))
    fixed = fix_bytes("x", text.encode(), unsafe=True)
    assert "PV508" not in _ids(lint_bytes("x", fixed.after))


@pytest.mark.parametrize(
    ("fragment", "rule_id", "found"),
    [
        ("<interface type='user'><model type='e1000'/></interface>", "PV202", False),
        ("<interface type='user'><model type='virtio'/><driver iommu='on'/></interface>", "PV202", False),
        ("<interface type='direct'><source dev='eth0' mode='bridge'/></interface>", "PV202", True),
        ("<disk device='cdrom'><target dev='sda' bus='scsi'/></disk>", "PV204", True),
        ("<disk><target dev='sdq'/></disk><controller type='scsi' index='0'><driver iommu='on'/></controller>",
         "PV204", True),
        ("<hostdev type='scsi' mode='subsystem'/>", "PV204", True),
        ("<console type='pty'><target type='virtio'/></console>", "PV206", True),
        ("<console type='pty'/>", "PV206", False),
        ("<input type='evdev'/>", "PV211", False),
        ("<input type='tablet'/>", "PV211", True),
        ("<video><model type='none'/></video>", "PV212", False),
        ("<graphics type='vnc'/><video><driver iommu='on'/></video>", "PV217", False),
        ("<rng model='virtio'><driver iommu='off'/></rng>", "PV207", True),
        ("<controller type='pci' index='0' model='pci-root'/>", "PV203", False),
        ("<sound model='ich9'/>", "PV214", False),
        ("<memballoon model='none'><driver iommu='on'/></memballoon>", "PV218", False),
        ("<memory model='dimm'/>", "PV607", True),
        ("<controller type='usb' model='none'/>", "PV607", False),
        ("<input type='mouse' bus='ps2'/>", "PV607", True),
        ("<disk type='vhostuser'><target dev='vdb'/></disk>", "PV606", True),
    ],
)  # fmt: skip
def test_defaults_of_devices_are_those_of_libvirt_on_s390x(fragment: str, rule_id: str, found: bool) -> None:
    text = base_domain(Style.IOMMU).replace("    <memballoon", fragment + "<memballoon")
    if fragment.startswith("<memballoon"):
        text = base_domain(Style.IOMMU).replace("<memballoon model='none'/>", fragment)
    assert (rule_id in _ids(_lint(text))) is found


def test_a_rule_can_be_chosen_left_out_or_turned_off_in_the_file() -> None:
    text = base_domain(Style.LAUNCH_SECURITY).replace("<memballoon model='none'/>", "")
    assert _ids(_lint(text)) == ["PV301", "PV615"]
    assert _ids(_lint(text, select=check_rule_ids(["pv3"]))) == ["PV301"]
    assert _ids(_lint(text, ignore=check_rule_ids(["PV301"]))) == ["PV615"]
    quiet = text.replace("<devices>", "<!-- zseal:ignore PV301, PV615 wanted --><devices>")
    report = _lint(quiet)
    assert report.findings == ()
    assert report.ignored == ("PV301", "PV615")
    assert "PV301" not in report.checked
    with pytest.raises(UsageError, match="no rule PV999"):
        check_rule_ids(["PV999"])


def test_advice_counts_only_when_strict() -> None:
    report = _lint(base_domain(Style.LAUNCH_SECURITY))
    assert not report.fails()
    assert report.fails(strict=True)


def test_the_rule_pages_are_current() -> None:
    """Run ``python -m zseal.domain.rulepages`` after changing a rule."""
    wanted = pages()
    assert {path.name for path in DOCS.iterdir()} == set(wanted)
    for name, text in wanted.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, name


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_a_rule_names_the_file_that_defines_it(rule: LintRule) -> None:
    source = REPOSITORY / rule.source
    assert f'"{rule.id}"' in source.read_text(encoding="utf-8")
    assert explain_rule(rule).endswith(f"\nDefined in {rule.source}\n")


def test_the_id_of_a_rule_about_a_kind_of_device_stands_in_one_file() -> None:
    package = REPOSITORY / "src" / "zseal" / "domain"
    places = [path.name for path in package.rglob("*.py") if "PV202" in path.read_text(encoding="utf-8")]
    assert places == ["coverage.py"]


def test_a_rule_is_checked_only_when_all_it_needs_is_given() -> None:
    image = ImageFacts("se.img", sealed=True, key_hashes=frozenset(), end=1 << 20)
    keys = (HostKeyHash("host-key.crt", b"\0" * 32),)
    parameters = ParameterFile("parmfile", "root=/dev/vda1")
    given: dict[str, tuple[dict[str, object], set[str]]] = {
        "nothing": ({}, set()),
        "a target": ({"target": Target(libvirt=(9, 0, 0))}, {"PV803", "PV804"}),
        "an image": ({"guest": GuestInputs(image=image)}, {"PV507", "PV911"}),
        "host keys": ({"guest": GuestInputs(host_keys=keys)}, set()),
        "both": ({"guest": GuestInputs(image=image, host_keys=keys)}, {"PV507", "PV911", "PV912"}),
        "parameters": (
            {"guest": GuestInputs(parameters=parameters)},
            {*(f"PV9{n:02}" for n in range(1, 11)), "PV914", "PV915"},
        ),
        "a host": ({"host": TargetHost()}, {"PV309", *(f"PV80{n}" for n in range(1, 10)), "PV810"}),
    }
    needing = {rule.id for rule in RULES.values() if rule.needs and rule.id != "PV003"}
    for name, (settings, checked) in given.items():
        report = _lint(base_domain(Style.LAUNCH_SECURITY), **settings)
        assert needing & set(report.checked) == checked, name
        assert needing & set(report.skipped) == needing - checked, name


def test_rules_are_explained() -> None:
    assert "PV201" in list_rules(RULES.values())
    text = explain_rule(RULES["PV204"])
    for part in ("PV204", "Why:", "Otherwise:", "Fix:", "Example:", "zseal domain fix repairs it"):
        assert part in text


def test_any_number_of_missing_controllers_is_written_out_at_once() -> None:
    raw = read("ok-iommu-scsi.xml").replace(b"dev='sda'", b"dev='sdzz'")  # on controller 46
    fixed = fix_bytes("x", raw).after
    devices = Document("x", fixed).root.find("devices")
    assert devices is not None
    indexes = [c.get("index") for c in devices.all("controller") if c.get("type") == "scsi"]
    assert sorted(map(int, indexes)) == list(range(47))
    assert not fix_bytes("x", fixed).changed


def test_messages_are_whole_sentences_of_one_line() -> None:
    """A message that ends in the middle ends with a word that wants another."""
    for rule in WITH_EXAMPLE:
        for finding in _lint(example_domain(rule)).findings:
            assert "\n" not in finding.message
            assert not re.search(r"( |,|:| the| to| and| or| a| of)$", finding.message), finding.message
