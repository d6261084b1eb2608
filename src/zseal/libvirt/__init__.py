"""libvirt on this computer: its Python bindings, connections, and the capabilities it reports."""
