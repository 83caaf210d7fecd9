"""Bootwire: network booting that simply works. The map of this package is ARCHITECTURE.md."""

__version__ = "0.1.0"
