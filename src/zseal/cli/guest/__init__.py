"""The commands of ``zseal guest``."""
