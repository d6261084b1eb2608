"""The commands of ``zseal hostkey``."""
