"""How the ultravisor takes an image in: its SE header, then page by page, then the digests."""
