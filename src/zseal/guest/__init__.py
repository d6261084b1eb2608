"""Running protected guests: the guest, its events and reports, and what the owner of the machine may do with it."""
