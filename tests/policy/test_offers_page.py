"""docs/reference/offers.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from bootwire.policy.client import ARCHITECTURES
from bootwire.policy.decide import LOADERS, Recipe
from bootwire.policy.quirks import QUIRKS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "offers.md").read_text()


def test_every_quirk_is_a_row_word_for_word():
    for quirk in QUIRKS:
        assert f"| `{quirk.name}` | {quirk.does} | {quirk.answer} | {quirk.seen} |" in PAGE


def test_every_recipe_is_a_row():
    assert set(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)) >= set(
        get_args(Recipe)
    )


def test_the_architecture_table_is_the_codes():
    rows = re.findall(r"^\| ([0-9, ]+) \| ([0-9, ]+) \| (`.+`) \|$", PAGE, re.MULTILINE)
    told = {int(number): names for pxe, http, names in rows for number in f"{pxe},{http}".split(",")}
    held = {
        number: ", ".join(f"`{name}`" for name in LOADERS[platform])
        for number, (platform, _) in ARCHITECTURES.items()
        if platform
    }
    assert told == held
