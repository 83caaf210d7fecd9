"""The image cache: one fetch for everybody, whole or not at all, past broken upstreams, and never a wrong octet."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bootwire.facts import Fact, ImageFetched, ImageRefused, Warned
from bootwire.policy.target import Image
from bootwire.serve import cache as module
from bootwire.serve.cache import Cache, NotFetched
from bootwire.serve.content import Content, Missing
from bootwire.serve.shelf import Entry, Shelf
from bootwire.serve.upstreams import Settings, Upstreams, check
from http_rig import Origin, origin

IMAGE = random.Random(5).randbytes(3_000_000)
SHA256 = hashlib.sha256(IMAGE).hexdigest()
Script = Callable[[str, socket.socket, int], object]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(module, "RESUME_SECONDS", 0.01)


class Now:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


class Kept:
    """A cache in a folder, with its facts, each call in a loop of its own."""

    def __init__(self, folder: Path, now: Now, **options: object) -> None:
        self.facts: list[Fact] = []
        self.folder = folder
        self._now = now
        self._options = options

    def run(self, story: Callable[[Cache], object]) -> object:
        async def go() -> object:
            upstreams = Upstreams(Settings())
            cache = Cache(self.folder, upstreams, record=self.facts.append, wall=self._now, **self._options)  # type: ignore[arg-type]
            try:
                return await story(cache)  # type: ignore[misc]
            finally:
                await cache.close()
                await upstreams.close()

        return asyncio.run(go())

    def told(self, kind: type[Fact]) -> list[Fact]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def kept(tmp_path: Path, now: Now) -> Kept:
    return Kept(tmp_path / "cache", now)


def head(status: str, *fields: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()


def serving(*bodies: bytes, dies_after: tuple[int, ...] = (), fields: tuple[str, ...] = ()) -> Script:
    """Whole answer n has bodies[n]; answers break off after so many octets; If-None-Match is honoured."""
    whole = 0

    def script(request: str, sock: socket.socket, number: int) -> object:
        nonlocal whole
        body = bodies[min(whole, len(bodies) - 1)]
        etag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
        part = re.search(r"(?im)^range: bytes=(\d+)-\r$", request)
        if f"If-None-Match: {etag}" in request:
            whole += 1
            sock.sendall(head("304 Not Modified", f"ETag: {etag}"))
            return None
        start = int(part[1]) if part else 0
        status = "206 Partial Content" if part else "200 OK"
        more = (f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}",) if part else ()
        answer = head(status, f"ETag: {etag}", f"Content-Length: {len(body) - start}", *more, *fields)
        if number < len(dies_after):
            sock.sendall(answer + body[start : start + dies_after[number]])
            return "close"
        whole += 1
        sock.sendall(answer + body[start:])
        return None

    return script


def octets(found: object) -> bytes:
    assert isinstance(found, Content), found
    try:
        return found.data if found.data is not None else os.pread(found.fd, found.size, 0)
    finally:
        found.close()


def test_an_image_is_fetched_once_and_then_served_from_disk(kept: Kept) -> None:
    with origin(serving(IMAGE)) as there:

        async def story(cache: Cache) -> None:
            assert cache.lookup(Image(there.url, SHA256), "kernel") is None
            await asyncio.gather(*(cache.ensure(Image(there.url, SHA256)) for _ in range(200)))
            assert octets(cache.lookup(Image(there.url, SHA256), "kernel")) == IMAGE

        kept.run(story)
        assert len(there.heads) == 1
    (fact,) = kept.told(ImageFetched)
    assert (fact.octets, fact.sha256, fact.resumed) == (len(IMAGE), SHA256, 0)


def test_a_wrong_digest_is_never_served_and_says_both(kept: Kept) -> None:
    wrong = "ab" * 32

    async def story(cache: Cache) -> None:
        await cache.ensure(Image(there.url, wrong))
        found = cache.lookup(Image(there.url, wrong), "kernel")
        assert isinstance(found, Missing)
        assert wrong in found.because
        assert SHA256 in found.because

    with origin(serving(IMAGE)) as there:
        kept.run(story)
    assert kept.told(ImageRefused)
    assert list(kept.folder.iterdir()) == []


@pytest.mark.parametrize("dies_after", [(1_500_000,), (0, 0), (2_999_999, 0, 0, 0)])
def test_an_upstream_that_dies_is_gone_on_with(kept: Kept, dies_after: tuple[int, ...]) -> None:
    with origin(serving(IMAGE, dies_after=dies_after)) as there:

        async def story(cache: Cache) -> None:
            assert (await cache.fetch(Image(there.url, SHA256))).size == len(IMAGE)

        kept.run(story)
        assert [bool(re.search("(?i)^range:", head, re.M)) for head in there.heads] == [False] + [True] * len(
            dies_after
        )
    assert kept.told(ImageFetched)[0].resumed == len(dies_after)


def test_an_upstream_that_stays_dead_is_a_named_failure_and_tried_again_later(kept: Kept, now: Now) -> None:
    with origin(serving(IMAGE, dies_after=(10, *[0] * 20))) as there:

        async def story(cache: Cache) -> None:
            with pytest.raises(NotFetched, match=r"127.0.0.1 .*(ended too early|broke the connection)"):
                await cache.fetch(Image(there.url, ""))
            assert isinstance(cache.lookup(Image(there.url, ""), "kernel"), Missing)
            now.at += module.FAILED_SECONDS
            assert cache.lookup(Image(there.url, ""), "kernel") is None

        kept.run(story)


def test_an_unpinned_image_is_asked_after_when_it_is_no_longer_fresh(kept: Kept, now: Now) -> None:
    newer = IMAGE[::-1]
    with origin(serving(IMAGE, IMAGE, newer)) as there:

        async def story(cache: Cache) -> None:
            await cache.ensure(Image(there.url, ""))
            assert octets(cache.lookup(Image(there.url, ""), "k")) == IMAGE
            now.at += module.FRESH_SECONDS
            assert cache.lookup(Image(there.url, ""), "k") is None
            await cache.ensure(Image(there.url, ""))  # 304
            assert octets(cache.lookup(Image(there.url, ""), "k")) == IMAGE
            now.at += module.FRESH_SECONDS
            await cache.ensure(Image(there.url, ""))  # changed
            assert octets(cache.lookup(Image(there.url, ""), "k")) == newer

        kept.run(story)
        assert len(there.heads) == 3
    assert len(kept.told(ImageFetched)) == 2


def test_the_last_good_copy_serves_while_its_server_is_away(kept: Kept, now: Now) -> None:
    with origin(serving(IMAGE)) as there:
        url = there.url

        async def fetch(cache: Cache) -> None:
            await cache.ensure(Image(url, ""))

        kept.run(fetch)

    async def story(cache: Cache) -> None:
        now.at += module.FRESH_SECONDS
        await cache.ensure(Image(url, ""))
        assert octets(cache.lookup(Image(url, ""), "k")) == IMAGE

    kept.run(story)
    assert any("last good copy" in fact.what for fact in kept.told(Warned))


def test_a_restart_finds_what_was_kept_and_sweeps_what_was_not_finished(kept: Kept) -> None:
    with origin(serving(IMAGE)) as there:

        async def fetch(cache: Cache) -> None:
            await cache.ensure(Image(there.url, SHA256))

        kept.run(fetch)
        (kept.folder / "abc.part").write_bytes(b"half")
        (kept.folder / "abc.image").write_bytes(b"without a description")

        async def story(cache: Cache) -> None:
            assert cache.lookup(Image(there.url, SHA256), "k") is None  # not before it has been digested again
            await cache.ensure(Image(there.url, SHA256))
            assert octets(cache.lookup(Image(there.url, SHA256), "k")) == IMAGE

        kept.run(story)
        assert len(there.heads) == 1
    assert sorted(path.suffix for path in kept.folder.iterdir()) == [".image", ".json"]


def test_a_damaged_copy_is_found_out_and_fetched_again(kept: Kept) -> None:
    with origin(serving(IMAGE)) as there:

        async def fetch(cache: Cache) -> None:
            await cache.ensure(Image(there.url, SHA256))

        kept.run(fetch)
        (path,) = kept.folder.glob("*.image")
        damaged = bytearray(IMAGE)
        damaged[1_000_000] ^= 1
        path.write_bytes(damaged)

        async def story(cache: Cache) -> None:
            await cache.ensure(Image(there.url, SHA256))
            assert octets(cache.lookup(Image(there.url, SHA256), "k")) == IMAGE

        kept.run(story)
        assert len(there.heads) == 2
    assert any("damaged" in fact.what for fact in kept.told(Warned))


def test_offline_nothing_is_asked(tmp_path: Path, now: Now) -> None:
    with origin(serving(IMAGE)) as there:

        async def fetch(cache: Cache) -> None:
            await cache.ensure(Image(there.url, ""))

        async def offline(cache: Cache) -> None:
            now.at += 10 * module.FRESH_SECONDS
            await cache.ensure(Image(there.url, ""))
            assert octets(cache.lookup(Image(there.url, ""), "k")) == IMAGE
            with pytest.raises(NotFetched, match="--offline"):
                await cache.fetch(Image(there.url + "/other", ""))

        Kept(tmp_path / "cache", now).run(fetch)
        Kept(tmp_path / "cache", now, offline=True).run(offline)
        assert len(there.heads) == 1


def test_what_was_used_last_longest_ago_makes_room(tmp_path: Path, now: Now) -> None:
    kept = Kept(tmp_path / "cache", now, size=7_000_000)
    with origin(serving(IMAGE)) as there:

        async def story(cache: Cache) -> None:
            for name in ("a", "b"):
                await cache.fetch(Image(f"{there.url}/{name}", ""))
            held = cache.lookup(Image(there.url + "/a", ""), "k")  # used after b
            await cache.fetch(Image(there.url + "/c", ""))
            assert cache.lookup(Image(there.url + "/b", ""), "k") is None
            assert octets(held) == IMAGE
            assert octets(cache.lookup(Image(there.url + "/a", ""), "k")) == IMAGE

        kept.run(story)
    assert len(list(kept.folder.glob("*.image"))) == 2


def test_a_folder_that_cannot_be_written_is_said_with_what_to_do(tmp_path: Path, now: Now) -> None:
    (tmp_path / "cache").write_bytes(b"a file where a folder should be")
    kept = Kept(tmp_path / "cache", now)
    with origin(serving(IMAGE)) as there:

        async def story(cache: Cache) -> None:
            with pytest.raises(NotFetched, match="cannot be kept"):
                await cache.fetch(Image(there.url, ""))

        kept.run(story)
    assert kept.told(Warned)[0].fix


def refused(url: str, **settings: object) -> str:
    async def story() -> str:
        upstreams = Upstreams(Settings(**settings))  # type: ignore[arg-type]
        try:
            response = await upstreams.ask("GET", url, trusted=False)
            response.close()
            return ""
        except module.UpstreamFailed as error:
            return str(error)
        finally:
            await upstreams.close()

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:1/", "this machine itself"),
        ("http://127.9.9.9:1/", "this machine itself"),
        ("http://localhost:1/", "this machine itself"),
        ("http://[::1]:1/", "this machine itself"),
        ("http://[::ffff:127.0.0.1]:1/", "this machine itself"),
        ("http://[64:ff9b::7f00:1]:1/", "this machine itself"),  # by NAT64
        ("http://[2002:7f00:1::]:1/", "this machine itself"),  # by 6to4
        ("http://[64:ff9b::a9fe:a9fe]/", "a cloud's metadata service"),
        ("http://0.0.0.0:1/", "this machine itself"),
        ("http://2130706433:1/", "not a canonical IPv4 address"),  # 127.0.0.1 as one number
        ("http://169.254.169.254/latest/meta-data", "a cloud's metadata service"),
        ("http://169.254.1.1/", "a link-local address"),
        ("http://[fe80::1]/", "a link-local address"),
        ("http://224.0.0.1/", "a multicast address"),
        ("http://255.255.255.255/", "a multicast address"),
    ],
)
def test_an_answer_may_not_lead_into_this_machine_or_to_metadata(url: str, why: str) -> None:
    assert why in refused(url)


def test_a_redirect_does_not_lead_there_either() -> None:
    def elsewhere(request: str, sock: socket.socket, number: int) -> object:
        sock.sendall(head("302 Found", "Location: http://169.254.169.254/", "Content-Length: 0"))
        return None

    with origin(elsewhere) as there:
        host = there.url.removeprefix("http://").partition("/")[0]
        assert "a cloud's metadata service" in refused(there.url, allowed=(host,))


def test_a_host_that_the_operator_allows_is_asked() -> None:
    with origin(serving(IMAGE)) as there:
        host = there.url.removeprefix("http://").partition("/")[0]
        assert refused(there.url, allowed=(host,)) == ""


def test_of_the_operators_own_word_nothing_is_forbidden() -> None:
    with origin(serving(IMAGE)) as there:
        assert isinstance(there, Origin)

        async def story() -> int:
            upstreams = Upstreams(Settings())
            try:
                response = await upstreams.ask("GET", there.url)
                response.close()
                return response.status
            finally:
                await upstreams.close()

        assert asyncio.run(story()) == 200


ANSWERS = {
    "206 to a question for all of it": (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n\r\nabc", "answers 206"),
    "304 to a question without condition": (b"HTTP/1.1 304 Not Modified\r\n\r\n", "answers 304"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be asked"),
    "a head without end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000, "cannot be asked"),
    "a length that is none": (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc", "cannot be asked"),
    "chunks that are none": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc", "cannot be asked"),
    "chunks that end too early": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "broke the conn"),
    "less than was said": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "cannot be asked for the rest"),
    "a redirect to itself": (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "more than 5 times"),
    "a redirect to a file": (
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        "to file",
    ),
    "nothing": (b"", "cannot be asked"),
    "more than was said": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", "cannot be asked"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_a_server_answers_a_pinned_image_is_refused_with_a_reason(kept: Kept, name: str) -> None:
    answer, why = ANSWERS[name]

    def script(request: str, sock: socket.socket, number: int) -> object:
        sock.sendall(answer)
        return None if b"Location" in answer else "close"

    async def story(cache: Cache) -> None:
        with pytest.raises(NotFetched, match=re.escape(why)):
            await cache.fetch(Image(there.url + "/", SHA256))
        assert isinstance(cache.lookup(Image(there.url + "/", SHA256), "k"), Missing)

    with origin(script) as there:
        kept.run(story)
    assert [path.suffix for path in kept.folder.iterdir()] == []


@pytest.mark.parametrize(
    "rest",
    [
        head("200 OK", "Content-Length: 3") + b"abc",
        head("206 Partial Content", "Content-Range: bytes 0-2/3", "Content-Length: 3") + b"abc",
        head("206 Partial Content", f"Content-Range: bytes 1000000-2/{len(IMAGE) + 5}", "Content-Length: 3") + b"abc",
        head("416 Range Not Satisfiable", "Content-Length: 0"),
        head("404 Not Found", "Content-Length: 0"),
    ],
    ids=["whole", "from the start", "of something longer", "416", "404"],
)
def test_a_rest_that_does_not_fit_is_not_put_behind_what_is_here(kept: Kept, rest: bytes) -> None:
    def script(request: str, sock: socket.socket, number: int) -> object:
        begins = head("200 OK", 'ETag: "x"', f"Content-Length: {len(IMAGE)}") + IMAGE[:1_000_000]
        sock.sendall(rest if "Range:" in request else begins)
        return "close"

    async def story(cache: Cache) -> None:
        with pytest.raises(NotFetched, match=r"answers .* when asked for the rest"):
            await cache.fetch(Image(there.url, ""))

    with origin(script) as there:
        kept.run(story)
    assert list(kept.folder.iterdir()) == []


def test_room_on_the_disk_is_no_reason_to_throw_away_what_fits(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 10**15)
    for key in ("a", "b"):
        (tmp_path / f"{key}.part").write_bytes(IMAGE)
        shelf.put(key, tmp_path / f"{key}.part", Entry(str(tmp_path / f"{key}.image"), "u", len(IMAGE), SHA256))
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert shelf.make_room("b", free + 10**9, 0)  # it is here already
    assert shelf.get("a")
    with pytest.raises(OSError, match="No space left"):
        shelf.make_room("c", free + 10**12, free + 10**12)


def test_a_clock_that_goes_back_does_not_keep_a_failure_alive(kept: Kept, now: Now) -> None:
    async def story(cache: Cache) -> None:
        await cache.ensure(Image("http://127.0.0.1:1/k", ""))
        assert isinstance(cache.lookup(Image("http://127.0.0.1:1/k", ""), "k"), Missing)
        now.at -= 24 * 3600
        assert cache.lookup(Image("http://127.0.0.1:1/k", ""), "k") is None

    kept.run(story)


# --- several processes, and what happens to files under a running one ---------------------------------------------


def test_a_copy_that_somebody_deleted_or_changed_is_fetched_again(kept: Kept) -> None:
    with origin(serving(IMAGE)) as there:

        async def story(cache: Cache) -> None:
            image = Image(there.url, SHA256)
            await cache.ensure(image)
            (path,) = kept.folder.glob("*.image")
            path.unlink()
            assert cache.lookup(image, "k") is None
            await cache.ensure(image)
            assert octets(cache.lookup(image, "k")) == IMAGE
            path.write_bytes(IMAGE[::-1])
            assert cache.lookup(image, "k") is None
            await cache.ensure(image)
            assert octets(cache.lookup(image, "k")) == IMAGE

        kept.run(story)
        assert len(there.heads) == 3


def test_what_was_here_of_a_pinned_image_is_gone_on_with_after_a_restart(kept: Kept) -> None:
    with origin(serving(IMAGE, dies_after=(2_000_000, *[0] * module.RESUMES))) as there:

        async def broken(cache: Cache) -> None:
            with pytest.raises(NotFetched):
                await cache.fetch(Image(there.url, SHA256))

        async def story(cache: Cache) -> None:
            await cache.fetch(Image(there.url, SHA256))
            assert octets(cache.lookup(Image(there.url, SHA256), "k")) == IMAGE

        kept.run(broken)
        kept.run(story)
        assert "Range: bytes=2000000-" in there.heads[-1]
    assert sorted(path.suffix for path in kept.folder.iterdir()) == [".image", ".json"]


def test_two_processes_that_want_the_same_image_fetch_it_once(kept: Kept, now: Now) -> None:
    second = Kept(kept.folder, now)
    with origin(serving(IMAGE)) as there:

        async def story(cache: Cache) -> None:
            async def other(cache: Cache) -> None:
                await cache.ensure(Image(there.url, SHA256))
                assert octets(cache.lookup(Image(there.url, SHA256), "k")) == IMAGE

            async with asyncio.TaskGroup() as both:
                both.create_task(cache.fetch(Image(there.url, SHA256)))
                both.create_task(asyncio.to_thread(second.run, other))
            assert octets(cache.lookup(Image(there.url, SHA256), "k")) == IMAGE

        kept.run(story)
        assert len(there.heads) == 1


def test_what_another_process_fetched_meanwhile_is_found(kept: Kept, now: Now) -> None:
    with origin(serving(IMAGE)) as there:

        async def story(cache: Cache) -> None:
            assert cache.lookup(Image(there.url, SHA256), "k") is None
            await asyncio.to_thread(Kept(kept.folder, now).run, lambda other: other.ensure(Image(there.url, SHA256)))
            await cache.ensure(Image(there.url, SHA256))
            assert octets(cache.lookup(Image(there.url, SHA256), "k")) == IMAGE

        kept.run(story)
        assert len(there.heads) == 1


# --- through a proxy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://localhost:1/", "http://127.1:1/", "http://0x7f000001:1/"])
def test_a_name_that_leads_into_this_machine_is_refused_through_a_proxy_too(url: str) -> None:
    assert "this machine itself" in refused(url, proxy="http://127.0.0.1:9")


def test_a_proxy_of_this_machine_may_be_used_for_what_a_service_names() -> None:
    with origin(serving(IMAGE)) as proxy:
        at = proxy.url.replace("127.0.0.1", "localhost")
        assert refused("http://images.invalid/kernel", proxy=at) == ""
        assert proxy.heads[0].startswith("GET http://images.invalid/kernel HTTP/1.1")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"proxy": "ftp://user:secret@h:1"}, "--upstream-proxy h:1 is no URL of an HTTP proxy"),
        ({"proxy": "squid:3128"}, "--upstream-proxy squid:3128 is no URL of an HTTP proxy"),
        ({"ca": "/nowhere.pem"}, "--upstream-ca /nowhere.pem: No such file"),
        ({"ca": "/dev/null"}, "there is no certificate in it"),
        ({"proxy": "http://user:secret@h:1"}, ""),
    ],
)
def test_settings_that_cannot_work_are_told_at_the_start(settings: dict[str, str], says: str) -> None:
    found = check(Settings(**settings))  # type: ignore[arg-type]
    assert says in found if says else found == ""
    assert "secret" not in found
