"""zseal's version, for the modules that write it down; the package itself imports all the others."""

__version__ = "0.1.0"
