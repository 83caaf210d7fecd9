"""The one error of the hand-off."""

from __future__ import annotations


class HandoffError(Exception):
    """It will not be done, and nothing was changed.

    because  what is wrong, a sentence without capital and full stop
    fix      what to do, a clause or a command
    """

    def __init__(self, because: str, fix: str) -> None:
        super().__init__(f"{because}; {fix}" if fix else because)
        self.because = because
        self.fix = fix
