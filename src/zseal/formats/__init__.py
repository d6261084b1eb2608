"""Binary layouts, one module each: parse, validate, serialize; no I/O, no keys, no policy."""
