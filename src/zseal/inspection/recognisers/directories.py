"""Directories: software machines, bundles of certificates, and captured hosts."""

from __future__ import annotations

from zseal.errors import ZsealError
from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value


class MachineDirectory(Recogniser):
    """A directory made by zseal machine create."""

    directories = True

    def recognise(self, sample: Sample) -> Description | None:
        """Check for its description, then load it."""
        if not sample.has("machine.json"):
            return None
        from zseal.hostkeys.machine import Machine

        title = "software machine"
        try:
            machine = Machine.load(sample.path)
        except ZsealError as error:
            return Description("machine", f"{title}, damaged", {}, (str(error),))
        hashes = [value.hex() for value in machine.host_key_hashes]
        fields: dict[str, Value] = {
            "name": machine.name,
            "created": machine.created.isoformat(),
            "host_key_hash": hashes[0],
            "backup_host_key_hash": hashes[1] if len(hashes) > 1 else None,
        }
        problems = (f"others may enter it (mode {sample.mode:04o}): chmod 700",) if sample.mode & 0o077 else ()
        steps = (
            "zseal machine show {file}",
            "zseal image create -k {file}/host-key.crt --bundle {file} --root-ca {file}/root-ca.crt --offline"
            " -i KERNEL -o IMAGE",
        )
        run = "zseal run IMAGE --machine {file}"
        return Description("machine", title, fields, problems, tuple(map(sample.command, (*steps, run))))


class BundleDirectory(Recogniser):
    """A directory made by zseal hostkey bundle create."""

    directories = True

    def recognise(self, sample: Sample) -> Description | None:
        """Check for its description, then load it."""
        if not sample.has("bundle.json"):
            return None
        from zseal.hostkeys.bundle import Bundle

        title = "bundle of certificates and revocation lists"
        try:
            bundle = Bundle.load(sample.path)
        except ZsealError as error:
            return Description("bundle", f"{title}, damaged", {}, (str(error),))
        fields: dict[str, Value] = {
            "signing_keys": len(bundle.signing_keys),
            "certificates": len(bundle.certificates),
            "crls": len(bundle.crls),
            "host_key_documents": len(bundle.host_key_documents),
            "own_root_ca": bool(bundle.root_ca),
        }
        steps = ("zseal hostkey status --bundle {file}", "zseal hostkey verify -k DOCUMENT --bundle {file}")
        return Description("bundle", title, fields, (), tuple(map(sample.command, steps)))


class CaptureDirectory(Recogniser):
    """A directory written by zseal host capture."""

    directories = True

    def recognise(self, sample: Sample) -> Description | None:
        """Check for the directories that it always has."""
        if not sample.has("commands", "proc"):
            return None
        from zseal.readiness import CapturedHost, gather

        facts = gather(CapturedHost(sample.path))
        return Description(
            "captured-host",
            "captured host",
            {
                "architecture": facts.architecture,
                "machine_type": facts.machine,
                "kernel": facts.kernel_identity,
                "protected_guest_host": facts.prot_virt_host,
            },
            (),
            tuple(map(sample.command, ("zseal host check --root {file}", "zseal host info --root {file}"))),
        )


RECOGNISERS: tuple[Recogniser, ...] = (MachineDirectory(), BundleDirectory(), CaptureDirectory())
