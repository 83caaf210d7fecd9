"""Bytes and values: total, bounded parsers and their emitters. Standard library only, no I/O."""
