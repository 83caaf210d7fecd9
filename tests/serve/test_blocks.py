from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.serve.blocks import Changed, Image, Images, Netascii, Octets, Plain, frame, netascii_size, to_netascii
from bootwire.serve.content import Content

BODY = random.Random(1).randbytes(100_000)


def held(data: bytes, key: object = "key") -> Octets:
    return Octets(Content("f", len(data), data=data, key=key))


def datagrams(data: bytes, block_size: int) -> list[bytes]:
    """As RFC 1350 section 5 has them, written down once more."""
    count = len(data) // block_size + 1
    return [
        b"\0\3" + (block % 65536).to_bytes(2, "big") + data[(block - 1) * block_size : block * block_size]
        for block in range(1, count + 1)
    ]


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[tuple[Path, Content]]:
    path = tmp_path / "f"
    path.write_bytes(BODY)
    content = Content("f", len(BODY), fd=os.open(path, os.O_RDONLY), key="key")
    yield path, content
    content.close()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 100_000])
@pytest.mark.parametrize("block_size", [8, 512, 1468])
def test_every_source_gives_the_same_datagrams(size: int, block_size: int):
    wanted = datagrams(BODY[:size], block_size)
    plain = Plain(held(BODY[:size]), block_size)
    image = Image("key", size, block_size)
    image.fill(held(BODY[:size]), len(wanted))
    at = 0
    for count in (1, 2, 5, len(wanted)):
        first, last = at + 1, min(at + count, len(wanted))
        if first > last:
            break
        piece = b"".join(wanted[first - 1 : last])
        assert plain.take(first, last - first + 1) == piece
        assert image.view[(first - 1) * image.stride : last * image.stride] == piece
        at = last


def test_block_numbers_wrap_to_zero():
    assert frame(b"abcdef", 65_534, 3, 2) == b"\0\3\xff\xfeab\0\3\xff\xffcd\0\3\0\0ef"


@pytest.mark.parametrize("text", [b"", b"\n", b"\r", b"a\r\nb\n\nc\r", b"\r\n" * 500, b"plain"])
@pytest.mark.parametrize("block_size", [8, 9, 512])
def test_netascii_comes_in_the_same_blocks_as_if_translated_at_once(text: bytes, block_size: int):
    translated = to_netascii(text)
    assert netascii_size(held(text)) == len(translated)
    source = Netascii(held(text), len(translated), block_size)
    wanted = datagrams(translated, block_size)
    for first in range(1, len(wanted) + 1, 2):
        piece = b"".join(wanted[first - 1 : first + 1])
        count = len(wanted[first - 1 : first + 1])
        assert source.take(first, count) == piece
        assert source.take(first, count) == piece  # sent again


def test_an_image_is_made_only_as_far_as_somebody_came():
    image = Image("key", 10_000_000, 1468)
    image.fill(held(bytes(10_000_000)), 1)
    assert image.made < 200
    assert image.ready < image.made * image.stride  # so that the next part is made before it is needed


def test_images_over_the_limit_push_out_the_least_recently_borrowed_that_nobody_uses():
    images = Images(limit=250_000, each=200_000)
    a, b, c = (held(BODY, key) for key in "abc")
    for octets in (a, b):
        assert images.borrow(octets, 1468) is None  # the first time it would not pay
    first, second = images.borrow(a, 1468), images.borrow(b, 1468)
    assert first is not None
    assert second is not None
    assert images.borrow(c, 1468) is None
    assert images.borrow(c, 1468) is None  # no room: both are used
    images.give_back(second)
    third = images.borrow(c, 1468)
    assert third is not None
    assert images.borrow(a, 1468) is first
    assert images.octets == first.cost + third.cost


def test_an_image_that_somebody_else_had_made_is_joined():
    images = Images()
    octets = held(BODY)
    assert images.join(octets, 1468) is None
    images.borrow(octets, 1468)
    assert images.join(octets, 1468) is None  # nobody has one yet
    image = images.borrow(octets, 1468)
    assert images.join(octets, 1468) is image
    assert image is not None
    assert image.users == 2
    assert images.join(octets, 512) is None
    assert images.join(held(BODY, None), 1468) is None


def test_what_has_no_key_or_is_long_or_tiny_gets_no_image():
    images = Images(each=50_000)
    for octets in (held(BODY[:40_000], None), held(BODY), held(BODY[:2000])):
        assert images.borrow(octets, 1468) is None
        assert images.borrow(octets, 1468) is None


def test_one_file_at_two_block_sizes_is_two_images():
    images = Images()
    octets = held(BODY)
    for block_size in (512, 1468):
        images.borrow(octets, block_size)
    assert images.borrow(octets, 512) is not images.borrow(octets, 1468)


def test_a_write_is_seen(on_disk: tuple[Path, Content]):
    path, content = on_disk
    octets = Octets(content)
    octets.check()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(0, 12345))
    with pytest.raises(Changed):
        octets.check()


def test_a_cut_is_seen_when_reading(on_disk: tuple[Path, Content]):
    path, content = on_disk
    octets = Octets(content)
    os.truncate(path, 1000)
    assert octets.read(0, 500) == BODY[:500]
    with pytest.raises(Changed):
        octets.read(900, 200)


def test_a_file_that_has_grown_since_it_was_looked_up_is_not_begun(on_disk: tuple[Path, Content]):
    path, content = on_disk
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(Changed):
        Octets(content)


def test_an_image_from_disk_has_the_same_datagrams(on_disk: tuple[Path, Content]):
    _path, content = on_disk
    for block_size in (8, 512, 1468, 65464):  # more pieces than one read takes, and fewer
        image = Image("key", len(BODY), block_size)
        wanted = datagrams(BODY, block_size)
        image.fill(Octets(content), len(wanted))
        assert bytes(image.view) == b"".join(wanted)
        assert image.ready >= len(image.view)


def test_an_image_stops_where_the_file_was_cut(on_disk: tuple[Path, Content]):
    path, content = on_disk
    octets = Octets(content)
    os.truncate(path, 50_000)
    image = Image("key", len(BODY), 8)
    with pytest.raises(Changed):
        image.fill(octets, len(BODY) // 8)
    assert image.made * 8 <= 50_000


def test_an_image_stops_at_a_change(on_disk: tuple[Path, Content]):
    path, content = on_disk
    octets = Octets(content)
    image = Image("key", len(BODY), 512)
    os.utime(path, ns=(0, 12345))
    with pytest.raises(Changed):
        image.fill(octets, 1)
    assert image.made == 0
