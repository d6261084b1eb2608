"""The commands of ``zseal image``."""
