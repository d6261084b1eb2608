"""The host's side: run a guest, page it, view its memory, check a host's readiness."""
