"""Host-key documents: certificate chains, revocation lists, and software machines' own keys."""
