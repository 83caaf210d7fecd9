"""What a published directory gives out, what it never does, and what happens while somebody swaps links under it."""

import itertools
import os
import resource
import socket
import sys
from pathlib import Path
from types import FrameType

import pytest

from bootwire.serve import files
from bootwire.serve.content import Content, Missing
from bootwire.serve.files import PublishedDirectory, open_local

SECRET = b"the secret beside the tree"


@pytest.fixture
def published(tmp_path: Path) -> PublishedDirectory:
    """A tree with everything in it that might lead out of it, and a sibling with nearly the same name."""
    (tmp_path / "pub-private").mkdir()
    (tmp_path / "pub-private" / "secret").write_bytes(SECRET)
    (tmp_path / "secret").write_bytes(SECRET)
    pub = tmp_path / "pub"
    (pub / "x86_64").mkdir(parents=True)
    (pub / "x86_64" / "snponly.efi").write_bytes(b"MZ")
    (pub / "empty").write_bytes(b"")
    (pub / "grün").write_bytes(b"green")
    (pub / os.fsdecode(b"\xff.bin")).write_bytes(b"not UTF-8")
    (pub / "back\\slash").write_bytes(b"never found: TFTP clients of Windows mean / by it")
    (pub / "link").symlink_to("x86_64/snponly.efi")
    (pub / "x86_64" / "up").symlink_to("../empty")
    (pub / "arch").symlink_to("./x86_64/.")
    (pub / "chain").symlink_to("arch/../link")
    (pub / "out").symlink_to("../secret")
    (pub / "out-dir").symlink_to("..")
    (pub / "out-and-in").symlink_to("../pub/empty")
    (pub / "absolute").symlink_to(tmp_path / "secret")
    (pub / "inside-absolute").symlink_to(pub / "empty")
    (pub / "proc").symlink_to("/proc/self/root")
    (pub / "loop").symlink_to("loop2")
    (pub / "loop2").symlink_to("loop")
    (pub / "dangling").symlink_to("nowhere")
    os.mkfifo(pub / "fifo")
    (pub / "to-fifo").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(pub / "sock"))
    if os.geteuid() == 0:
        os.mknod(pub / "zero", 0o666 | 0o020000, os.makedev(1, 5))
    directory = PublishedDirectory(str(pub))
    yield directory
    directory.close()


def octets(found: Content | Missing) -> bytes | Missing:
    if isinstance(found, Missing):
        return found
    try:
        return os.pread(found.fd, found.size + 1, 0) if found.data is None else found.data
    finally:
        found.close()


def test_a_shortage_of_descriptors_is_no_missing_file(published: PublishedDirectory) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        with pytest.raises(OSError, match="Too many open files"):
            published.open("empty")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert octets(published.open("empty")) == b""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty", b""),
        ("x86_64/snponly.efi", b"MZ"),
        ("/x86_64/snponly.efi", b"MZ"),
        ("//x86_64///./snponly.efi", b"MZ"),
        ("x86_64\\snponly.efi", b"MZ"),
        ("\\x86_64\\snponly.efi", b"MZ"),
        (b"/arch/snponly.efi", b"MZ"),
        ("grün", b"green"),
        ("grün".encode(), b"green"),
        ("\udcff.bin", b"not UTF-8"),
        (b"\xff.bin", b"not UTF-8"),
        ("link", b"MZ"),
        ("x86_64/up", b""),
        ("arch/snponly.efi", b"MZ"),
        ("chain", b"MZ"),
    ],
)
def test_files_of_the_tree(published: PublishedDirectory, name: str | bytes, data: bytes) -> None:
    assert octets(published.open(name)) == data


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("", True),
        ("/", True),
        (".", True),
        ("x86_64", True),
        ("x86_64/", True),
        ("..", True),
        ("../secret", True),
        ("/../secret", True),
        ("x86_64/../../secret", True),
        ("x86_64/../empty", True),
        ("..\\secret", True),
        ("../pub-private/secret", True),
        ("-private/secret", False),
        ("/etc/passwd", False),
        ("//etc/passwd", False),
        ("C:\\Windows\\win.ini", False),
        ("missing", False),
        ("empty/below", False),
        ("link/below", False),
        ("fifo/below", False),
        ("dangling", False),
        ("EMPTY", False),
        ("a\0b", False),
        ("empty\0.efi", False),
        ("\ud800", False),
        ("a" * 256, False),
        ("a/" * 3000, False),
        ("a" * 100_000, False),
        ("out", True),
        ("out-dir/secret", True),
        ("out-dir/pub/empty", True),
        ("out-and-in", True),
        ("absolute", True),
        ("inside-absolute", True),
        ("proc/etc/passwd", True),
        ("loop", True),
        ("loop/x", True),
        ("fifo", True),
        ("to-fifo", True),
        ("sock", True),
        ("zero", True),
        ("%2e%2e/secret", False),
        ("...", False),
        ("~root", False),
        ("${PATH}", False),
    ],
)
def test_nothing_else(published: PublishedDirectory, name: str, forbidden: bool) -> None:
    if name == "zero" and os.geteuid() != 0:
        forbidden = False  # only root can make the device that is refused
    found = published.open(name)
    assert isinstance(found, Missing)
    assert (found.forbidden, bool(found.because)) == (forbidden, True)


def test_no_descriptor_is_left_behind(published: PublishedDirectory) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in ("link", "chain", "out", "loop", "x86_64", "fifo", "sock", "missing/x", "x86_64/snponly.efi", "a\0b"):
        octets(published.open(name))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_may_not_be_read(published: PublishedDirectory) -> None:
    os.chmod(os.path.join(published.path, "empty"), 0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # nobody: root itself reads everything
    try:
        found = published.open("empty")
    finally:
        if root:
            os.seteuid(0)
    assert isinstance(found, Missing)
    assert found.forbidden


def test_what_is_known_of_a_file(published: PublishedDirectory) -> None:
    path = os.path.join(published.path, "x86_64/snponly.efi")
    os.utime(path, (784_111_777, 784_111_777))
    first, second = published.open("x86_64/snponly.efi"), published.open(b"/arch/snponly.efi")
    assert isinstance(first, Content)
    assert isinstance(second, Content)
    assert (first.name, first.size, first.media_type) == ("x86_64/snponly.efi", 2, "application/efi")
    assert first.modified == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert (first.key, first.etag) == (second.key, second.etag)
    first.close()
    second.close()


def test_a_changed_file_is_known_by_another_tag(published: PublishedDirectory) -> None:
    path = os.path.join(published.path, "empty")
    before = published.open("empty")
    os.utime(path, ns=(1, 1))
    after = published.open("empty")
    assert isinstance(before, Content)
    assert isinstance(after, Content)
    assert before.key != after.key
    assert before.etag != after.etag
    before.close()
    after.close()


def test_a_name_is_safe_to_print(published: PublishedDirectory) -> None:
    found = published.open(b"\xff.bin")
    assert isinstance(found, Content)
    assert found.name == "\\xff.bin"
    found.close()


def test_the_directory_itself_may_be_reached_by_a_link(published: PublishedDirectory, tmp_path: Path) -> None:
    (tmp_path / "by-link").symlink_to(published.path)
    again = PublishedDirectory(str(tmp_path / "by-link"))
    assert octets(again.open("x86_64/snponly.efi")) == b"MZ"
    again.close()


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_directory_that_is_none(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / kind).write_bytes(b"")
    with pytest.raises(OSError, match=kind):
        PublishedDirectory(str(tmp_path / kind))


class Swapped:
    """A tree whose directory "swap" is at each moment one of `WAYS`: real, a link out of the tree, or not there."""

    WAYS = ("real", "way-out", "way-up", "")

    def __init__(self, folder: Path) -> None:
        outside, self.pub = folder / "outside", folder / "pub"
        for directory, data in ((outside, SECRET), (self.pub / "real", b"inside")):
            directory.mkdir(parents=True)
            (directory / "file").write_bytes(data)
        (self.pub / "way-out").symlink_to(outside)
        (self.pub / "way-up").symlink_to("../outside")
        self.now = ""

    def show(self, way: str) -> None:
        if self.now:
            os.rename(self.pub / "swap", self.pub / self.now)
        if way:
            os.rename(self.pub / way, self.pub / "swap")
        self.now = way

    def opened(self, published: PublishedDirectory, first: str, *changes: tuple[int, str]) -> tuple[object, int]:
        """What "swap/file" is where "swap" becomes another way before the n-th line that opens it; lines there were."""
        lines = 0

        def line(frame: FrameType, event: str, _: object) -> object:
            nonlocal lines
            if frame.f_code.co_filename != files.__file__:
                return None
            if event == "line":
                for way in (way for at, way in changes if at == lines):
                    self.show(way)
                lines += 1
            return line

        self.show(first)
        before = sys.gettrace()
        sys.settrace(line)
        try:
            found = published.open("swap/file")
        finally:
            sys.settrace(before)
        return octets(found), lines


def test_no_swapped_link_leads_out(tmp_path: Path) -> None:
    """A directory of the tree becomes a link out of it, and something else again, at each moment of an open."""
    swapped = Swapped(tmp_path)
    published = PublishedDirectory(str(swapped.pub))
    swapped.opened(published, "real")  # its name is known from here on, as most are
    seen = set()
    lines = max(swapped.opened(published, first)[1] for first in swapped.WAYS)
    for first, then in itertools.product(swapped.WAYS, repeat=2):
        for at in range(lines):
            seen.add(swapped.opened(published, first, (at, then))[0])
            for later in range(at + 1, lines):
                seen.add(swapped.opened(published, first, (at, then), (later, first))[0])
    published.close()
    assert SECRET not in seen
    assert {found.forbidden for found in seen if isinstance(found, Missing)} == {True, False}
    assert b"inside" in seen


def test_an_operators_file_is_opened_through_links(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    (tmp_path / "link").symlink_to(tmp_path / "vmlinuz")
    found = open_local(str(tmp_path / "link"), "kernel", "application/octet-stream")
    assert isinstance(found, Content)
    assert (found.name, found.media_type) == ("kernel", "application/octet-stream")
    assert octets(found) == b"kernel"


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_an_operators_file_that_went_away(tmp_path: Path, kind: str) -> None:
    if kind == "directory":
        (tmp_path / kind).mkdir()
    elif kind == "fifo":
        os.mkfifo(tmp_path / kind)
    assert isinstance(open_local(str(tmp_path / kind), "kernel", "text/plain"), Missing)


def listed(published: PublishedDirectory, name: str) -> dict[bytes, tuple[bool, int]]:
    found = published.listing(name)
    assert isinstance(found, tuple), found
    return {entry.name: (entry.is_directory, entry.size) for entry in found[0]}


def test_a_listing_names_what_can_be_opened_and_nothing_else(published: PublishedDirectory) -> None:
    found = listed(published, "")
    assert found[b"x86_64"] == found[b"arch"] == (True, 0)
    assert found[b"empty"] == (False, 0)
    assert found[b"link"] == found[b"chain"] == (False, 2)
    inside = {"x86_64", "arch", "empty", "link", "chain", "grün", "back\\slash"}
    assert set(found) == {os.fsencode(name) for name in inside} | {b"\xff.bin"}
    assert set(listed(published, "arch/")) == {b"snponly.efi", b"up"}


@pytest.mark.parametrize("name", ["out-dir", "..", "x86_64/../..", "proc", "empty", "nothing", "x\0", "out-dir/pub"])
def test_no_listing_leads_out(published: PublishedDirectory, name: str) -> None:
    assert isinstance(published.listing(name), Missing)


def test_a_long_listing_is_cut_and_says_so(published: PublishedDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bootwire.serve.files.MAX_LISTED", 3)
    found = published.listing("")
    assert isinstance(found, tuple)
    assert (len(found[0]), found[1]) == (3, True)
