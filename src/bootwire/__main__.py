"""`python -m bootwire` is the command line."""

from bootwire.cli import main

main(prog_name="bootwire")
