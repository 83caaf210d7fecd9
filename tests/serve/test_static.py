"""Static mode: images that are pinned on the command line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bootwire.policy.target import Target, Traits
from bootwire.serve.images import Settings, open_images
from bootwire.serve.mode import StartError
from bootwire.serve.sources import SourceError, pinned
from bootwire.serve.static import Static, StaticMode
from product import bzimage

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("given", "location", "sha256"),
    [
        ("vmlinuz", "vmlinuz", ""),
        ("odd#name", "odd#name", ""),
        (f"vmlinuz#sha256={DIGEST.upper()}", "vmlinuz", DIGEST),
        (f"https://images.example/k#sha256={DIGEST}", "https://images.example/k", DIGEST),
    ],
)
def test_an_image_may_be_pinned_where_it_is_named(given: str, location: str, sha256: str) -> None:
    assert pinned(given) == (location, sha256)


@pytest.mark.parametrize("given", ["https://images.example/k#sha256=ab", "https://images.example/k#part", "k#sha256="])
def test_a_pin_that_is_none_is_told(given: str) -> None:
    with pytest.raises(SourceError, match="64 hexadecimal digits"):
        pinned(given)


def mode(folder: Path, pin: str) -> StaticMode:
    static = Static(f"{folder / 'vmlinuz'}#sha256={pin}")
    assert static.pinned
    return StaticMode(static, images=open_images(Settings(folder / "state"), trusted=True))


def test_a_pinned_file_is_given_under_a_sealed_url_alone(tmp_path: Path) -> None:
    digest = hashlib.sha256(Path(bzimage(tmp_path / "vmlinuz")).read_bytes()).hexdigest()
    made = mode(tmp_path, digest)
    target = made.decider.known(Traits("52:54:00:12:34:56"))
    assert isinstance(target, Target)
    assert target.kernel is not None
    assert target.kernel.sha256 == digest
    assert "/image/" in made.link("52:54:00:12:34:56", "http://192.0.2.1")(target.kernel, "kernel")
    assert "kernel" not in made.catalog  # where nobody would look at it first


def test_a_pinned_file_with_other_octets_does_not_start(tmp_path: Path) -> None:
    bzimage(tmp_path / "vmlinuz")
    with pytest.raises(StartError, match="has other octets than it is pinned to: its SHA-256 is"):
        mode(tmp_path, DIGEST)
