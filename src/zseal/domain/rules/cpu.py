"""Rules about processors: PV401 to PV410."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.arch.sclp import PROTECTED_CPU_LIMIT
from zseal.domain.document import Element
from zseal.domain.edits import (
    Change,
    remove_attributes,
    remove_element,
    replace_element,
    set_attributes,
    set_text,
)
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Safety, Severity, Table
from zseal.domain.s390x import CPU_FEATURES_UNTIL, MODEL, MODEL_SETTINGS, TOPOLOGY, is_feature
from zseal.messages import bootloaders, qemu
from zseal.messages.qemu import NO_NUMA

TABLE = Table(__name__)

HOST_MODEL = "<cpu mode='host-model'/>"
UNPACK = "<feature policy='require' name='unpack'/>"

OLD_MODELS = (
    "z900", "z900.2", "z900.3", "z990", "z990.2", "z990.3", "z990.4", "z990.5", "z890", "z890.2", "z890.3", "z9EC",
    "z9EC.2", "z9EC.3", "z9BC", "z9BC.2", "z10EC", "z10EC.2", "z10EC.3", "z10BC", "z10BC.2", "z196", "z196.2", "z114",
    "zEC12", "zEC12.2", "zBC12", "z13", "z13.2", "z13s", "z14", "z14.2", "z14ZR1",
)  # fmt: skip


def custom_model(cpu: Element | None) -> Element | None:
    """The model of a custom CPU (libvirt assumes this mode if a model is given), otherwise None."""
    return cpu.find("model") if cpu is not None and cpu.get("mode", "custom") == "custom" else None


def _feature(cpu: Element, name: str) -> Element | None:
    return next((feature for feature in cpu.all("feature") if feature.get("name") == name), None)


@TABLE.rule(
    "PV401", Severity.ERROR, "a custom CPU model without unpack",
    why="The unpack facility (161) does the switch. No named CPU model contains it, so a custom model has to require "
    "it.",
    effect=f"With launchSecurity QEMU ends: '{qemu.CPU_MODEL.text}'. In the iommu style the image's bootloader "
    f"stops: '{bootloaders.NO_UNPACK.text}'.",
    remedy=f"Add {UNPACK} to the cpu element, or use {HOST_MODEL}.",
    safety=Safety.SAFE, example="<cpu mode='custom' match='exact'>\n  <model fallback='forbid'>gen15a</model>\n</cpu>",
)  # fmt: skip
def _no_unpack(ctx: Context) -> Iterator[Hit]:
    cpu = ctx.root.find("cpu")
    model = custom_model(cpu)
    if cpu is not None and model is not None and MODEL.fullmatch(model.value) and _feature(cpu, "unpack") is None:
        yield Hit(cpu, f"the CPU model {model.value} cannot switch to protected mode", ctx.insert(cpu, UNPACK))


@TABLE.rule(
    "PV402", Severity.ERROR, "unpack is not required",
    why="disable and forbid remove the unpack facility, and optional leaves it to the host.",
    effect="The guest cannot switch to protected mode.",
    remedy="Write policy='require'; with host-model, the feature element can also be removed.",
    safety=Safety.SAFE, example="<cpu mode='host-model'>\n  <feature policy='disable' name='unpack'/>\n</cpu>",
)  # fmt: skip
def _unpack_policy(ctx: Context) -> Iterator[Hit]:
    cpu = ctx.root.find("cpu")
    feature = _feature(cpu, "unpack") if cpu is not None else None
    if feature is not None and feature.get("policy", "require") not in ("require", "force"):
        message = f"unpack must be required, but its policy is {feature.get('policy')}"
        yield Hit(feature, message, set_attributes(feature, policy="require"))


@TABLE.rule(
    "PV403", Severity.ERROR, "a CPU model older than Secure Execution",
    why="z15 and LinuxONE III (the model gen15a) introduced Secure Execution; older models cannot have unpack.",
    effect="QEMU refuses the CPU model.",
    remedy=f"Use {HOST_MODEL}, or gen15a or newer with unpack.",
    safety=Safety.ASK,
    example="<cpu mode='custom' match='exact'>\n  <model fallback='forbid'>z14</model>\n"
    "  <feature policy='require' name='unpack'/>\n</cpu>",
)  # fmt: skip
def _old_model(ctx: Context) -> Iterator[Hit]:
    cpu = ctx.root.find("cpu")
    model = custom_model(cpu)
    if cpu is not None and model is not None and model.value.removesuffix("-base") in OLD_MODELS:
        change = replace_element(ctx.document, cpu, HOST_MODEL) if _only_model(cpu) else Change()
        yield Hit(model, f"the CPU model {model.value} predates Secure Execution", change)


def _only_model(cpu: Element) -> bool:
    """Whether host-model can take the element's place without losing topology, NUMA cells or other features."""
    return all(child.tag == "model" or child.get("name") == "unpack" for child in cpu.children)


@TABLE.rule(
    "PV404", Severity.ADVICE, "the CPU model is left to libvirt",
    why="libvirt adds host-model on s390x with KVM, and host-model contains unpack if the host offers it.",
    effect="None with KVM; other tools and other hosts have other defaults.",
    remedy=f"Add {HOST_MODEL}.",
    safety=Safety.SAFE, example="<domain type='kvm'>\n  <name>guest</name>\n</domain>",
)  # fmt: skip
def _no_cpu(ctx: Context) -> Iterator[Hit]:
    cpu = ctx.root.find("cpu")
    if cpu is None:
        anchor = next((e for tag in ("features", "os") if (e := ctx.root.find(tag)) is not None), None)
        yield Hit(ctx.root, "state the CPU model: host-model", ctx.insert(ctx.root, HOST_MODEL, after=anchor))
    elif not cpu.get("mode") and cpu.find("model") is None:
        yield Hit(cpu, "state the CPU model: host-model", set_attributes(cpu, mode="host-model"))


@TABLE.rule(
    "PV405", Severity.WARNING, "libvirt may use another CPU model",
    why="With fallback='allow', libvirt's default, a host without the model uses the nearest one that it has.",
    effect="The guest may start without the unpack facility.",
    remedy="Write fallback='forbid'.",
    safety=Safety.SAFE,
    example=f"<cpu mode='custom' match='exact'>\n  <model fallback='allow'>gen15a</model>\n  {UNPACK}\n</cpu>",
)  # fmt: skip
def _fallback(ctx: Context) -> Iterator[Hit]:
    model = custom_model(ctx.root.find("cpu"))
    if model is not None and model.get("fallback") == "allow":
        yield Hit(model, "the fallback model may lack unpack", set_attributes(model, fallback="forbid"))


@TABLE.rule(
    "PV406", Severity.ERROR, "too many virtual processors",
    why="A protected guest reads its configuration from one block of 4 KiB, which has room for "
    f"{PROTECTED_CPU_LIMIT} processors.",
    effect=f"QEMU 10 ends: '{qemu.TOO_MANY_CPUS.text} {PROTECTED_CPU_LIMIT} CPUs'; older releases fail later.",
    remedy=f"Write at most {PROTECTED_CPU_LIMIT} in <vcpu>, which also counts processors that are not yet plugged.",
    safety=Safety.ASK, example="<vcpu current='4'>248</vcpu>",
)  # fmt: skip
def _vcpus(ctx: Context) -> Iterator[Hit]:
    element = ctx.root.find("vcpu")
    if element is not None and ctx.domain.vcpus is not None and ctx.domain.vcpus > PROTECTED_CPU_LIMIT:
        change = [*set_text(element, str(PROTECTED_CPU_LIMIT))]
        current = element.get("current")
        if current.isdecimal() and len(current) < 10 and int(current) > PROTECTED_CPU_LIMIT:
            change += set_attributes(element, current=str(PROTECTED_CPU_LIMIT))
        yield Hit(
            element,
            f"{ctx.domain.vcpus} virtual processors, but at most {PROTECTED_CPU_LIMIT} are possible",
            Change(change),
        )


@TABLE.rule(
    "PV407", Severity.WARNING, "AP passthrough without appv and appvi",
    why="Crypto adapters in a protected guest need the CPU features appv and appvi, which host-model contains if the "
    "host has them.",
    effect="The guest does not see any AP device.",
    remedy=f"Require appv and appvi, or use {HOST_MODEL}.",
    safety=Safety.ASK,
    example="<domain type='kvm'>\n  <cpu mode='custom' match='exact'>\n    <model fallback='forbid'>gen16a</model>\n"
    f"    {UNPACK}\n  </cpu>\n  <devices>\n    <hostdev mode='subsystem' type='mdev' model='vfio-ap'/>\n  </devices>\n"
    "</domain>",
)  # fmt: skip
def _ap_features(ctx: Context) -> Iterator[Hit]:
    cpu = ctx.root.find("cpu")
    if cpu is None or custom_model(cpu) is None:
        return
    if any(device.get("model") == "vfio-ap" for device in ctx.domain.devices.all("hostdev")):
        missing = [name for name in ("appv", "appvi") if _feature(cpu, name) is None]
        if missing:
            features = "\n".join(f"<feature policy='require' name='{name}'/>" for name in missing)
            yield Hit(cpu, f"AP devices in protected guests need {' and '.join(missing)}", ctx.insert(cpu, features))


@TABLE.rule(
    "PV408", Severity.ERROR, "a processor of another architecture",
    why="The names of processor models and their features belong to one architecture. Those of s390x are models such "
    "as gen16a and z14-base, and features such as unpack and vx.",
    effect="libvirt or QEMU refuses the processor when the guest starts.",
    remedy=f"Use {HOST_MODEL}, and remove features of other architectures.",
    safety=Safety.SAFE, ports=True,
    example="<cpu mode='custom' match='exact'>\n  <model fallback='forbid'>Skylake-Server</model>\n</cpu>",
)  # fmt: skip
def _foreign_model(ctx: Context) -> Iterator[Hit]:
    cpu = ctx.root.find("cpu")
    if cpu is None:
        return
    model = custom_model(cpu)
    if model is not None and MODEL.fullmatch(model.value) is None:
        change = replace_element(ctx.document, cpu, HOST_MODEL)
        yield Hit(model, f"s390x does not have the processor model {model.value}", change, becomes=HOST_MODEL)
        return
    if model is not None and model.get("vendor_id"):
        change = remove_attributes(model, "vendor_id")
        yield Hit(model, "processors of s390x do not have a vendor_id", change, becomes="removed")
    for feature in cpu.all("feature"):
        if not is_feature(feature.get("name")):
            newer = ctx.target.qemu is not None and ctx.target.qemu > CPU_FEATURES_UNTIL
            message = f"s390x does not have the processor feature {feature.get('name')}"
            severity = Severity.WARNING if newer else None
            yield Hit(feature, message, remove_element(feature), severity, becomes="removed")


@TABLE.rule(
    "PV409", Severity.ERROR, "a processor setting that s390x does not have",
    why="Threads, dies, clusters, NUMA cells, caches, the size of physical addresses and migratable are settings of "
    "other processors. Processors of s390x form sockets, books, drawers and cores.",
    effect="libvirt refuses the domain, or QEMU does when it starts: 'S390 does not support more than 1 threads', "
    f"'{NO_NUMA.text}'.",
    remedy="Remove the setting; count processors as cores.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<cpu mode='host-model'>\n  <topology sockets='1' cores='1' threads='2'/>\n</cpu>",
)  # fmt: skip
def _foreign_settings(ctx: Context) -> Iterator[Hit]:
    cpu = ctx.root.find("cpu")
    if cpu is None:
        return
    if cpu.get("mode") == "host-passthrough" and cpu.get("migratable") == "on":
        message = "s390x does not have migratable='on' for host-passthrough"
        yield Hit(cpu, message, remove_attributes(cpu, "migratable"), becomes="removed")
    for child in cpu.children:
        if child.tag in MODEL_SETTINGS:
            message = f"s390x does not have {MODEL_SETTINGS[child.tag]} (<{child.name}>)"
            yield Hit(child, message, remove_element(child), becomes="removed")
        elif child.tag == "topology":
            wrong = [name for name in TOPOLOGY if child.get(name, "1") != "1"]
            if wrong:
                message = f"s390x has one each of {', '.join(wrong)}"
                yield Hit(child, message, remove_element(child), becomes="removed")
        elif child.tag == "feature" and child.get("policy") == "optional" and child.get("name") != "unpack":
            message = f"s390x does not have the policy optional (feature {child.get('name')})"
            yield Hit(child, message, remove_element(child), becomes="removed")


@TABLE.rule(
    "PV410", Severity.ERROR, "a CPU match that s390x does not have",
    why="libvirt matches processors of s390x exactly.",
    effect="libvirt refuses to start the domain: 'match mode minimum not supported'.",
    remedy="Write match='exact'.",
    safety=Safety.SAFE, ports=True,
    example="<cpu mode='custom' match='minimum'>\n  <model fallback='forbid'>gen15a</model>\n"
    f"  {UNPACK}\n</cpu>",
)  # fmt: skip
def _match(ctx: Context) -> Iterator[Hit]:
    cpu = ctx.root.find("cpu")
    if cpu is not None and cpu.get("match") == "minimum" and custom_model(cpu) is not None:
        change = set_attributes(cpu, match="exact")
        yield Hit(cpu, "s390x does not have match='minimum'", change, becomes="match='exact'")
