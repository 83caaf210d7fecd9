"""The file system over HTTP, against our own server: reading, seeking, listing, compressed files, lying servers."""

from __future__ import annotations

import gzip
import os
import random

import pytest

from bootwire.preboot.fetch import Fetcher, FetchError, Options
from bootwire.preboot.httpfs import BLOCK, READ_AHEAD, HttpFs
from bootwire.preboot.transport import KernelTransport
from bootwire.serve.answers import Answers
from bootwire.serve.files import PublishedDirectory
from http_rig import origin, served

DATA = random.Random(7).randbytes(3 * BLOCK + 12345)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "boot" / "kernel").mkdir(parents=True)
    (tmp_path / "boot" / "kernel" / "kernel").write_bytes(DATA)
    (tmp_path / "boot" / "a.ko").write_bytes(b"plain")
    (tmp_path / "boot" / "b.ko.gz").write_bytes(gzip.compress(DATA, 1))
    (tmp_path / "boot" / "broken.ko.gz").write_bytes(gzip.compress(DATA)[:1000])
    (tmp_path / "boot" / "loader.conf").write_bytes(b"")
    (tmp_path / "a b%?#é.txt").write_bytes(b"x")
    (tmp_path / "secret").symlink_to("/etc/passwd")
    return tmp_path


@pytest.fixture
def house(tree):
    answers = Answers(
        {}, first_script=lambda *_: b"", boot_script=lambda *_: None, machine_at=lambda _: "",
        published=PublishedDirectory(str(tree)), record=lambda _: None,
    )  # fmt: skip
    with served(answers.http) as house:
        yield house


@pytest.fixture
def fetcher():
    with Fetcher(KernelTransport(), Options(idle=20, tries=1)) as fetcher:
        yield fetcher


@pytest.fixture
def fs(house, fetcher):
    return HttpFs(fetcher, f"http://127.0.0.1:{house.port}/files")


def test_a_file_is_read_whole(fs):
    assert fs.cat("boot/kernel/kernel") == DATA


def test_an_empty_file(fs):
    assert fs.cat("boot/loader.conf") == b""


def test_seeking_both_ways_reads_what_a_local_file_reads(fs, tree):
    moves = random.Random(3)
    with fs.open("boot/kernel/kernel") as far, open(tree / "boot/kernel/kernel", "rb") as near:
        for _ in range(200):
            whence = moves.choice((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END))
            low = {os.SEEK_SET: 0, os.SEEK_CUR: -near.tell(), os.SEEK_END: -len(DATA)}[whence]
            offset, count = moves.randint(low, low + len(DATA) + 10), moves.randint(0, 50_000)
            assert far.seek(offset, whence) == near.seek(offset, whence)
            assert far.read(count) == near.read(count)


def test_a_position_before_the_file_is_refused(fs):
    with fs.open("boot/a.ko") as file, pytest.raises(OSError, match="before the file"):
        file.seek(-1)


def test_what_was_read_is_not_asked_for_again(fs, house):
    with fs.open("boot/kernel/kernel") as file:
        file.read()
        house.all_facts()
        file.seek(0)
        assert file.read() == DATA
    assert house.all_facts() == []


def test_reading_on_asks_for_more_at_once(tree, house, fetcher):
    big = random.Random(1).randbytes(3 * READ_AHEAD)
    (tree / "big").write_bytes(big)
    assert HttpFs(fetcher, f"http://127.0.0.1:{house.port}/files/").cat("big") == big
    whole = sum(fact.kind == "transfer-done" for fact in house.all_facts())
    assert whole < 12  # 96 blocks


def test_a_file_bigger_than_the_cache(tree, house, fetcher):
    fs = HttpFs(fetcher, f"http://127.0.0.1:{house.port}/files/", cache=0)
    big = random.Random(1).randbytes(3 * READ_AHEAD)
    (tree / "big").write_bytes(big)
    with fs.open("big") as file:
        assert file.read() == big
        file.seek(5)
        assert file.read(10) == big[5:15]
    assert fs._blocks._octets <= 2 * READ_AHEAD


def test_a_compressed_module_opens_by_its_plain_name(fs):
    with fs.open("boot/b.ko") as file:
        assert file.read(1000) == DATA[:1000]
        assert file.seek(0, os.SEEK_END) == len(DATA)
        assert file.seek(-5, os.SEEK_CUR) == len(DATA) - 5
        assert file.read() == DATA[-5:]
        file.seek(7)
        assert file.read(9) == DATA[7:16]
    assert fs.cat("boot/a.ko") == b"plain"
    assert gzip.decompress(fs.cat("boot/b.ko.gz")) == DATA


def test_what_is_not_there_in_either_form(fs):
    with pytest.raises(FileNotFoundError):
        fs.open("boot/c.ko")
    with pytest.raises(FileNotFoundError):
        fs.open("boot/b.ko", inflate=False)
    assert [fs.exists("boot/a.ko"), fs.exists("boot/c.ko")] == [True, False]


def test_a_damaged_gz_is_an_error(fs):
    with pytest.raises(OSError, match="damaged"):
        fs.cat("boot/broken.ko")


def test_a_bomb_stops_at_the_limit(tree, house, fetcher):
    (tree / "bomb.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(OSError, match="inflates to more than"):
        HttpFs(fetcher, f"http://127.0.0.1:{house.port}/files/", inflated=1_000_000).cat("bomb")


def test_listing(fs):
    assert [(e.name, e.is_directory, e.size) for e in fs.ls()] == [("boot", True, None), ("a b%?#é.txt", False, 1)]
    assert {e.name: e.size for e in fs.ls("boot")}["a.ko"] == 5
    assert fs.cat("a b%?#é.txt") == b"x"


def test_walking(fs):
    found = {path: [entry.name for entry in entries] for path, entries in fs.walk()}
    assert list(found) == ["", "boot", "boot/kernel"]
    assert found["boot/kernel"] == ["kernel"]


def test_stat(fs, tree):
    found = fs.stat("boot/kernel/kernel")
    assert (found.size, found.is_directory) == (len(DATA), False)
    assert found.modified == int((tree / "boot/kernel/kernel").stat().st_mtime)
    assert fs.stat("boot").is_directory
    assert fs.stat("").is_directory


def test_a_directory_is_no_file_and_a_file_no_directory(fs):
    with pytest.raises(IsADirectoryError):
        fs.open("boot")
    with pytest.raises(FileNotFoundError):
        fs.ls("boot/a.ko")


def test_nothing_leads_out(fs):
    assert fs.url("../../etc") == fs.base + "etc"
    with pytest.raises(PermissionError):
        fs.cat("secret")


def test_a_file_that_changes_meanwhile_is_noticed(fs, tree):
    with fs.open("boot/kernel/kernel") as file:
        (tree / "boot/kernel/kernel").write_bytes(DATA[::-1])
        file.seek(2 * BLOCK)
        with pytest.raises(FetchError, match="changed"):
            file.read()


def test_a_file_without_an_end_in_a_url_without_a_directory(fetcher):
    with pytest.raises(FetchError, match="directories"):
        HttpFs(fetcher, "tftp://127.0.0.1/")


# --- servers that know less -------------------------------------------------------------------------------------


def whole_only(head, connection, number):
    """No ranges, no HEAD, no length."""
    if head.startswith("HEAD"):
        connection.sendall(b"HTTP/1.1 501 No\r\nContent-Length: 0\r\n\r\n")
        return None
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + DATA)
    return "close"


def test_a_server_without_ranges_is_asked_once(fetcher):
    with origin(whole_only) as server:
        with HttpFs(fetcher, server.url).open("a") as file:
            file.seek(BLOCK)
            assert file.read(5) == DATA[BLOCK : BLOCK + 5]
            file.seek(3)
            assert file.read() == DATA[3:]
        assert len(server.heads) == 1


def test_stat_at_a_server_without_head(fetcher):
    with origin(whole_only) as server:
        found = HttpFs(fetcher, server.url).stat("a")
    assert (found.size, found.media_type) == (None, "text/plain")


def test_a_directory_without_a_listing(fetcher):
    with origin(whole_only) as server, pytest.raises(NotADirectoryError):
        HttpFs(fetcher, server.url).ls()
