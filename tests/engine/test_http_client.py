"""HTTP client: what a hostile server may do, and how requests follow each other (redirects, challenges, continuing)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from bootwire.engine import S
from bootwire.engine import http_client as client
from bootwire.engine.http_client import Fetch, Wanted
from http_cases import END, REFUSED, SILENT, TAKEN, answer, chunked, sized

URL = "http://192.0.2.1/file"


@dataclass
class Run:
    """What came of a fetch."""

    body: bytes = b""
    end: client.Finished | client.Failed | None = None
    requests: list[bytes] = field(default_factory=list)
    opened: list[tuple[str, int, bool]] = field(default_factory=list)  # host, port, whether it was a kept connection
    began: list[client.Began] = field(default_factory=list)
    secured: list[str] = field(default_factory=list)
    released: list[bool] = field(default_factory=list)

    @property
    def why(self) -> str:
        return self.end.why if isinstance(self.end, client.Failed) else ""

    @property
    def heads(self) -> list[str]:
        """The first line of each request."""
        return [request.split(b"\r\n", 1)[0].decode() for request in self.requests]

    def fields(self, number: int) -> dict[str, str]:
        lines = self.requests[number].decode().split("\r\n")[1:-2]
        return dict(line.split(": ", 1) for line in lines)


def fetch(wanted: Wanted | str, *answers: bytes | tuple[object, ...], cut: int = 0) -> Run:
    """Fetch from a server that answers each request in turn: octets, or several things in order (octets, END, SILENT).

    cut: octets a piece that arrives at once; 0 for all of them.
    """
    wanted = Wanted(wanted) if isinstance(wanted, str) else wanted
    engine, run, now = Fetch(wanted, lambda: "c0ffee"), Run(), 0
    script = list(answers)
    kept: set[str] = set()
    key = ""
    pending = list(engine.start(now))
    todo: list[object] = []
    while run.end is None:
        while pending:
            effect = pending.pop(0)
            match effect:
                case client.Open(host, port, key):
                    reused = key in kept
                    kept.discard(key)
                    run.opened.append((host, port, reused))
                    todo = []
                    pending += engine.opened(now, reused=reused)
                case client.Write(data):
                    run.requests.append(data)
                    answer = script.pop(0)
                    todo = list(answer) if isinstance(answer, tuple) else [answer]
                case client.Secure(host):
                    run.secured.append(host)
                    pending += engine.secured(now)
                case client.Release(keep):
                    run.released.append(keep)
                    if keep:
                        kept.add(key)
                case client.Began():
                    run.began.append(effect)
                case client.Body(data):
                    run.body += bytes(data)
                case client.Finished() | client.Failed():
                    run.end = effect
        if run.end is not None:
            break
        if not todo or todo[0] is SILENT:
            assert engine.deadline is not None
            now = engine.deadline
            pending += engine.tick(now)
            continue
        said = todo.pop(0)
        if said is END:
            pending += engine.closed(now)
        elif isinstance(said, bytes) and cut and len(said) > cut:
            todo.insert(0, said[cut:])
            pending += engine.receive(said[:cut], now)
        else:
            assert isinstance(said, bytes)
            pending += engine.receive(said, now)
    return run


# --- what is taken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize("name", TAKEN)
def test_taken(name, cut):
    said, body = TAKEN[name]
    run = fetch(URL, said, cut=cut)
    assert isinstance(run.end, client.Finished), run.end
    assert run.body == body
    assert run.end.octets == len(body)


def test_a_percent_encoded_path_is_sent_as_it_is():
    assert fetch("http://192.0.2.1/a%20b%2Fc", sized(b"")).heads == ["GET /a%20b%2Fc HTTP/1.1"]


# --- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1000])
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, cut):
    said, why = REFUSED[name]
    assert fetch(URL, said, cut=cut).why == why


@pytest.mark.parametrize(
    "url",
    ["http://192.0.2.1/a b", "http://192.0.2.1/a\r\nX: y", "http://192.0.2.1/\t", "http://192.0.2.1/\u00e4",
     "ftp://192.0.2.1/a", "//192.0.2.1/a", "http:///a", "http://192.0.2.1:0/", "http://192.0.2.1:99999/", "http://[::1/",
     "http://a b/", ""],
)  # fmt: skip
def test_urls_that_are_refused_open_no_connection(url):
    run = fetch(url)
    assert (run.why, run.opened) == ("url", [])


def test_an_endless_head_is_refused_while_it_comes():
    engine = Fetch(Wanted(URL), lambda: "")
    engine.start(0)
    engine.opened(0)
    effects: list[client.Effect] = engine.receive(b"HTTP/1.1 200 OK\r\n", 0)
    for _ in range(40):
        effects += engine.receive(b"X: y\r\n" * 200, 0)
    assert any(isinstance(effect, client.Failed) for effect in effects)


def test_a_body_over_the_limit_is_refused_before_it_comes():
    run = fetch(Wanted(URL, limit=4), sized(b"hello"))
    assert (run.why, run.body) == ("too big", b"")


def test_a_body_without_a_length_is_cut_at_the_limit():
    run = fetch(Wanted(URL, limit=100_000), (answer(), b"x" * 60_000, b"x" * 60_000, END))
    assert run.why == "too big"
    assert len(run.body) <= 100_000


def test_stall_times_out_after_idle_since_the_last_octet():
    engine = Fetch(Wanted(URL, idle=5 * S), lambda: "")
    engine.start(0)
    engine.opened(1 * S)
    engine.receive(answer("Content-Length: 10", body=b"he"), 4 * S)
    assert engine.deadline == 9 * S
    assert engine.tick(8 * S) == []
    assert isinstance(engine.tick(9 * S)[-1], client.Failed)


# --- connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (sized(b"x"), True),
        (sized(b"x", "Connection: close"), False),
        (sized(b"x", "Connection: Keep-Alive, Close"), False),
        (chunked(b"0\r\n\r\n"), True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx", True),
        (sized(b"x") + b"more", False),
        ((answer(body=b"x"), END), False),
    ],
)
def test_a_connection_is_kept_only_where_both_know_where_the_answer_ended(said, kept):
    assert fetch(URL, said).released == [kept]


def test_a_kept_connection_that_the_server_had_closed_is_replaced_once():
    engine = Fetch(Wanted(URL), lambda: "")
    engine.start(0)
    engine.opened(0, reused=True)
    effects = engine.closed(1)
    assert [type(effect) for effect in effects] == [client.Release, client.Open]
    engine.opened(1)
    assert isinstance(engine.closed(2)[-1], client.Failed)


def test_head_takes_the_length_and_waits_for_no_body():
    run = fetch(Wanted(URL, method="HEAD"), answer("Content-Length: 5"))
    assert isinstance(run.end, client.Finished)
    assert (run.began[0].size, run.body, run.released) == (5, b"", [True])


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_that_have_no_body(status):
    assert isinstance(fetch(URL, answer(status=status)).end, client.Finished)


def test_the_host_field_has_the_port_and_brackets():
    assert fetch("http://[2001:db8::1]:8080/", sized(b"")).fields(0)["Host"] == "[2001:db8::1]:8080"
    assert fetch("http://Example.ORG:80/", sized(b"")).fields(0)["Host"] == "example.org"


# --- redirects --------------------------------------------------------------------------------------------------


def moved(to: str, status: str = "302 Found", body: bytes = b"over there") -> bytes:
    return sized(body, f"Location: {to}", status=status)


@pytest.mark.parametrize(
    ("to", "target"),
    [
        ("http://192.0.2.1/other", "/other"),
        ("/other?a=b#c", "/other?a=b"),
        ("other", "/dir/other"),
        ("../up", "/up"),
        ("./a/../b", "/dir/b"),
        ("?q", "/dir/file?q"),
        ("//192.0.2.1/x", "/x"),
    ],
)
def test_a_redirect_is_followed(to, target):
    run = fetch("http://192.0.2.1/dir/file", moved(to), sized(b"here"))
    assert run.heads[1] == f"GET {target} HTTP/1.1"
    assert (run.body, run.began[0].url) == (b"here", f"http://192.0.2.1{target}")
    assert run.opened == [("192.0.2.1", 80, False), ("192.0.2.1", 80, True)]


def test_redirects_without_an_end_are_given_up():
    run = fetch(URL, *(moved(f"/{n}") for n in range(9)))
    assert (run.why, len(run.requests)) == ("redirects", 6)


def test_a_redirect_is_handed_over_where_none_shall_be_followed():
    run = fetch(Wanted(URL, redirects=0), moved("/other"))
    assert isinstance(run.end, client.Finished)
    assert run.end.response.status == 302


@pytest.mark.parametrize("to", ["ftp://192.0.2.1/", "javascript:x", "http://192.0.2.1/a b", "http://192.0.2.1/\xe4"])
def test_a_redirect_to_what_is_no_http_url_is_refused(to):
    assert fetch(URL, moved(to)).why == "redirects"


def test_a_redirect_from_https_to_http_is_refused():
    assert fetch("https://192.0.2.1/", moved("http://192.0.2.1/")).why == "redirects"


def test_a_redirects_endless_body_is_not_read():
    run = fetch(URL, (answer("Location: /other", status="302 Found"), b"x" * 70_000), sized(b"here"))
    assert (run.body, run.opened[1]) == (b"here", ("192.0.2.1", 80, False))


# --- authentication ---------------------------------------------------------------------------------------------


def asks(challenge: str) -> bytes:
    return sized(b"no", f"WWW-Authenticate: {challenge}", status="401 Unauthorized")


def test_basic():
    run = fetch("http://Aladdin:open%20sesame@192.0.2.1/", asks('Basic realm="x"'), sized(b"yes"))
    assert "Authorization" not in run.fields(0)
    assert run.fields(1)["Authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert run.body == b"yes"


RFC7616 = 'realm="http-auth@example.org", qop="auth, auth-int", algorithm={0}, nonce="{1}", opaque="{2}"'
NONCE, OPAQUE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digest_is_what_rfc_7616_section_3_9_1_computes(algorithm, response):
    from bootwire.engine.http_auth import digest

    challenge = {"realm": "http-auth@example.org", "qop": "auth, auth-int", "algorithm": algorithm, "nonce": NONCE}
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    text = digest(challenge, "Mufasa", "Circle of Life", "GET", "/dir/index.html", cnonce, 1)
    assert f'response="{response}"' in text
    assert "nc=00000001" in text


def test_the_strongest_challenge_is_answered():
    digests = (f"Digest {RFC7616.format(algorithm, NONCE, OPAQUE)}" for algorithm in ("MD5", "SHA-256"))
    both = ", ".join(("Basic realm=x", *digests))
    run = fetch(Wanted(URL, username="a", password="b"), asks(both), sized(b"yes"))
    said = run.fields(1)["Authorization"]
    assert said.startswith("Digest ")
    assert "algorithm=SHA-256" in said
    assert f'opaque="{OPAQUE}"' in said


def test_refused_credentials_are_not_sent_again():
    run = fetch(Wanted(URL, username="a", password="b"), asks("Basic realm=x"), asks("Basic realm=x"))
    assert isinstance(run.end, client.Finished)
    assert (run.end.response.status, len(run.requests)) == (401, 2)


def test_a_stale_nonce_is_answered_with_the_new_one_counted_from_one():
    stale = 'Digest realm="r", nonce="two", qop="auth", stale=true'
    first = 'Digest realm="r", nonce="one", qop="auth"'
    run = fetch(Wanted(URL, username="a", password="b"), asks(first), asks(stale), sized(b"yes"))
    assert 'nonce="two"' in run.fields(2)["Authorization"]
    assert "nc=00000001" in run.fields(2)["Authorization"]


def test_a_nonce_that_is_stale_for_ever_is_given_up():
    stale = asks('Digest realm="r", nonce="two", qop="auth", stale=true')
    assert len(fetch(Wanted(URL, username="a", password="b"), *([stale] * 9)).requests) == 5


def test_credentials_go_to_nobody_else():
    there = moved("http://198.51.100.1/")
    run = fetch("http://a:b@192.0.2.1/", there, asks("Basic realm=x"))
    assert "Authorization" not in run.fields(1)
    assert len(run.requests) == 2


@pytest.mark.parametrize("field", ["Basic", "Negotiate", "Digest realm=", 'Digest qop="', ",,,", "=", "Bearer x=y"])
def test_challenges_of_any_form_end_in_an_answer_or_a_refusal(field):
    run = fetch(Wanted(URL, username="a", password="b"), asks(field), asks(field))
    assert isinstance(run.end, client.Finished | client.Failed)


# --- through a proxy --------------------------------------------------------------------------------------------

PROXY = "http://198.51.100.9:3128"


def test_http_through_a_proxy_is_asked_in_absolute_form():
    run = fetch(Wanted("http://192.0.2.1:8080/a?b", proxy=PROXY), sized(b"x"))
    assert run.opened == [("198.51.100.9", 3128, False)]
    assert run.heads == ["GET http://192.0.2.1:8080/a?b HTTP/1.1"]
    assert run.fields(0)["Host"] == "192.0.2.1:8080"


def test_https_through_a_proxy_goes_through_a_tunnel():
    run = fetch(Wanted("https://192.0.2.1/a", proxy=PROXY), answer(status="200 Connected"), sized(b"x"))
    assert run.heads == ["CONNECT 192.0.2.1:443 HTTP/1.1", "GET /a HTTP/1.1"]
    assert (run.secured, run.body) == (["192.0.2.1"], b"x")


def test_a_proxy_that_refuses_the_tunnel():
    run = fetch(Wanted("https://192.0.2.1/a", proxy=PROXY), sized(b"no", status="403 Forbidden"))
    assert run.why == "proxy"
    assert run.secured == []


@pytest.mark.parametrize("url", ["http://192.0.2.1/a", "https://192.0.2.1/a"])
def test_a_proxy_gets_its_own_credentials_when_it_asks(url):
    wants = sized(b"no", 'Proxy-Authenticate: Basic realm="p"', status="407 Proxy Authentication Required")
    answers = [wants, answer(status="200 Connected"), sized(b"x")] if url.startswith("https") else [wants, sized(b"x")]
    run = fetch(Wanted(url, proxy="http://u:p@198.51.100.9:3128"), *answers)
    assert run.fields(1)["Proxy-Authorization"] == "Basic dTpw"
    assert "Proxy-Authorization" not in run.fields(0)
    assert run.body == b"x"
    assert all("Authorization" not in run.fields(n) for n in range(len(run.requests)))


def test_a_redirect_asks_again_which_proxy():
    moved = sized(b"", "Location: http://198.51.100.1/b", status="302 Found")
    run = fetch(
        Wanted("http://192.0.2.1/a", proxy=lambda url: PROXY if url.host == "192.0.2.1" else ""), moved, sized(b"x")
    )
    assert [host for host, _, _ in run.opened] == ["198.51.100.9", "198.51.100.1"]
    assert run.heads == ["GET http://192.0.2.1/a HTTP/1.1", "GET /b HTTP/1.1"]


def test_a_proxy_is_spoken_to_in_http():
    assert fetch(Wanted("http://192.0.2.1/a", proxy="https://198.51.100.9:3128")).why == "url"


# --- parts and continuing ---------------------------------------------------------------------------------------


def part(body: bytes, first: int, total: int, *fields: str) -> bytes:
    return sized(
        body, f"Content-Range: bytes {first}-{first + len(body) - 1}/{total}", *fields, status="206 Partial Content"
    )


def test_a_part_is_asked_for_and_checked():
    run = fetch(Wanted(URL, part=(2, 5)), part(b"cde", 2, 10))
    assert run.fields(0)["Range"] == "bytes=2-4"
    assert run.body == b"cde"


@pytest.mark.parametrize(
    "said",
    [
        part(b"cde", 3, 10),
        sized(b"cde", status="206 Partial Content"),
        sized(b"cde", "Content-Range: bytes 2-9/10", status="206 Partial Content"),
    ],
)
def test_a_wrong_part_is_refused(said):
    assert fetch(Wanted(URL, part=(2, 5)), said).why == "range"


CUT = (answer("Content-Length: 10", 'ETag: "v1"', body=b"01234"), END)


def test_a_broken_transfer_goes_on_where_it_stopped():
    run = fetch(Wanted(URL, tries=2), CUT, part(b"56789", 5, 10, 'ETag: "v1"'))
    assert (run.fields(1)["Range"], run.fields(1)["If-Range"]) == ("bytes=5-", '"v1"')
    assert run.body == b"0123456789"
    assert isinstance(run.end, client.Finished)


@pytest.mark.parametrize(
    "said",
    [
        sized(b"0123456789", 'ETag: "v1"'),
        part(b"56789", 5, 10, 'ETag: "v2"'),
        part(b"456789", 4, 10, 'ETag: "v1"'),
        part(b"56789", 5, 11, 'ETag: "v1"'),
    ],
)
def test_the_rest_of_another_file_is_refused(said):
    assert fetch(Wanted(URL, tries=2), CUT, said).why == "changed"


def test_a_transfer_that_cannot_be_known_again_is_not_continued():
    bare = (answer("Content-Length: 10", body=b"01234"), END)
    assert fetch(Wanted(URL, tries=2), bare).why == "truncated"


def test_tries_are_counted_anew_after_progress():
    one_octet_each = [(part(b"56789"[n:], 5 + n, 10, 'ETag: "v1"')[: n - 4], END) for n in range(4)]
    run = fetch(Wanted(URL, tries=2), CUT, *one_octet_each, part(b"9", 9, 10, 'ETag: "v1"'))
    assert run.body == b"0123456789"
    assert isinstance(run.end, client.Finished)
