"""Versions sort as deb-version(7) says."""

import itertools

import pytest

from bootwire.serve.deb import version_key

ORDER = [
    "0~~", "0~~a", "0~", "0", "0a", "0+", "1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-1.1", "1.0-2", "1.0+dfsg-1", "1.2-1",
    "1.10-1", "6.1.0-9", "6.1.0-10", "1:0.1-1", "2:0",
]  # fmt: skip


@pytest.mark.parametrize(("lower", "higher"), list(itertools.pairwise(ORDER)))
def test_each_is_lower_than_the_next(lower, higher):
    assert version_key(lower) < version_key(higher)


@pytest.mark.parametrize("text", ["", ":", "-", "a:b-c", "1:", "١"])
def test_odd_versions_compare_with_everything(text):
    assert sorted([version_key(text), version_key("1.0-1"), version_key("~")])
