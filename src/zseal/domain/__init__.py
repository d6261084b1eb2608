"""libvirt domain XML: rules, fixes, conversion, launch."""
