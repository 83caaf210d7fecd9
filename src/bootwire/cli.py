"""The command line: arguments in, exit status out."""

from __future__ import annotations

import click


@click.group()
def main() -> None:
    """Network booting that simply works."""
