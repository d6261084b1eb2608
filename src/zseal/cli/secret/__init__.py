"""The commands of ``zseal secret``, which is also ``pvsecret``."""
