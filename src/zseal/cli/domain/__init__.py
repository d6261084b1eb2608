"""The commands of ``zseal domain``."""
