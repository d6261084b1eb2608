"""Which package of src/zseal may import which: the one place that says so.

The rows go from the ground up, and a row names rows above itself only, so every arrow points down. A new package, or a
new arrow, is a line here and a reason in the commit that adds it. ``GROUND`` is for everybody.
"""

from __future__ import annotations

GROUND = {
    "version": "",
    "errors": "",
    "secret": "",
    "lazy": "",
    "logs": "",
    "jsonvalue": "",
    "progress": "",
    "parts": "",
    "files": "errors parts",
    "sizes": "errors",
    "coredumps": "errors",
    "yamltext": "errors",
    "_native": "",
}

LAYERS = {
    # facts: what the architecture, Linux and the binary formats say
    "arch": "",
    "linux": "arch",
    "formats": "arch linux",
    "messages": "arch formats linux",
    "crypto": "arch formats",
    "testguest": "",
    # what people bring and take: keys and images
    "hostkeys": "arch crypto formats",
    "ultravisor": "arch crypto formats",
    "image": "arch crypto formats linux ultravisor",
    # what owners ask of a guest's machine, and how programs in a guest reach it
    "uvdevice": "formats",
    "attestation": "crypto formats uvdevice",
    "secrets": "crypto formats",
    # what runs guests
    "libvirt": "",
    "engine": "arch formats libvirt linux",
    "hypervisor": "arch crypto engine formats ultravisor",
    "guest": "arch crypto engine formats hostkeys hypervisor image linux messages ultravisor",
    "model": "arch crypto engine formats hypervisor messages ultravisor uvdevice",
    # real hosts, domains, and what others hand in
    "readiness": "arch formats libvirt linux messages",
    "domain": "arch engine guest hostkeys image libvirt linux messages readiness",
    "explanations": "arch formats guest messages",
    "inspection": "arch crypto formats guest hostkeys image libvirt linux readiness",
    # whole stories, and the ways in
    "debian": "arch engine guest",
    "demo": "arch debian engine guest hostkeys image testguest",
    "pytest_plugin": "guest hostkeys image",
    "__init__": "domain engine explanations guest hostkeys image inspection model readiness ultravisor",
    "cli": "arch attestation debian demo domain engine explanations formats guest hostkeys image inspection libvirt "
    "model readiness secrets uvdevice",
    "__main__": "cli",
}


def may_import(package: str) -> set[str]:
    """The packages that ``package`` may import, itself among them."""
    if package in GROUND:
        return {package, *GROUND[package].split()}
    return {package, *GROUND, *LAYERS[package].split()}
