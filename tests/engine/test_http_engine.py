"""The server's side of a connection as a script of octets and moments, and the answers to GET and HEAD."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.engine import S
from bootwire.engine.http import HEAD_TIME, IDLE_TIME, Answer, Connection, Refusal, answer, keeps, plain, plain_fields
from bootwire.wire import http
from bootwire.wire.http import Request

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def request(method: str = "GET", version: int = 11, **headers: str) -> Request:
    return Request(method, "/a", (), {name.replace("_", "-"): value for name, value in headers.items()}, version)


def path(result: Request | Refusal | None) -> str:
    assert isinstance(result, Request)
    return result.path


# --- connections -------------------------------------------------------------------------------------------------


def test_a_request_in_one_piece() -> None:
    connection = Connection(0)
    assert path(connection.receive(GET, 0)) == "/a"
    assert connection.finish(0) is None


def test_a_request_octet_by_octet() -> None:
    connection = Connection(0)
    for octet in GET[:-1]:
        assert connection.receive(bytes([octet]), 0) is None
    assert path(connection.receive(GET[-1:], 0)) == "/a"


def test_pipelined_requests_come_one_at_a_time() -> None:
    connection = Connection(0)
    assert path(connection.receive(GET + GET.replace(b"/a", b"/b") + GET[:5], 0)) == "/a"
    assert path(connection.finish(0)) == "/b"
    assert connection.leftover() == GET[:5]
    assert connection.finish(0) is None
    assert path(connection.receive(GET[5:], 0)) == "/a"


def test_empty_lines_before_a_request_are_passed_over() -> None:
    connection = Connection(0)
    assert connection.receive(b"\r\n", 0) is None
    assert path(connection.receive(b"\r\n" + GET, 0)) == "/a"


@given(st.lists(st.integers(1, 60), max_size=30), st.integers(1, 5))
def test_how_octets_are_cut_does_not_matter(cuts: list[int], requests: int) -> None:
    data = b"".join(GET.replace(b"/a", b"/%d" % n) for n in range(requests))
    connection, pieces, got = Connection(0), [], []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    for piece in filter(None, [*pieces, data]):
        result = connection.receive(piece, 0)
        while result is not None:
            got.append(path(result))
            result = connection.finish(0)
    assert got == [f"/{n}" for n in range(requests)]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\n\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\n", 400),
        (b"\x16\x03\x01\x00\x05\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 4000 + b"\r\n") * 9, 431),
        (b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        (b"get / HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
    ],
)
def test_refusals(data: bytes, status: int) -> None:
    result = Connection(0).receive(data, 0)
    assert isinstance(result, Refusal)
    assert result.status == status


def test_a_refusal_does_not_wait_for_more() -> None:
    connection = Connection(0)
    assert connection.receive(b"GET / HTTP/1.1\r\nA: ", 0) is None
    assert connection.receive(b"b\r", 0) is None
    assert isinstance(connection.receive(b"x\n", 0), Refusal)


def test_an_empty_body_is_no_body() -> None:
    assert path(Connection(0).receive(b"GET /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 0)) == "/a"


def test_no_octet_moves_the_deadline_of_a_head() -> None:
    connection = Connection(0)
    for second in range(1, 10):
        connection.receive(b"G", second * S)
    assert connection.deadline == HEAD_TIME


def test_a_kept_connection_may_idle_and_then_has_as_long_for_its_head() -> None:
    connection = Connection(0)
    connection.receive(GET, 1 * S)
    connection.finish(2 * S)
    assert connection.deadline == 2 * S + IDLE_TIME
    connection.receive(b"G", 50 * S)
    connection.receive(b"E", 55 * S)
    assert connection.deadline == 50 * S + HEAD_TIME


def test_a_head_begun_behind_a_request_has_its_deadline_from_the_answer_on() -> None:
    connection = Connection(0)
    connection.receive(GET + b"GET", 0)
    connection.finish(30 * S)
    assert connection.deadline == 30 * S + HEAD_TIME


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (11, None, True),
        (11, "keep-alive", True),
        (11, "close", False),
        (11, "Close", False),
        (11, "foo, close", False),
        (10, None, False),
        (10, "Keep-Alive", True),
        (10, "keep-alive, close", False),
    ],
)
def test_which_connections_are_kept(version: int, connection: str | None, kept: bool) -> None:
    headers = {} if connection is None else {"connection": connection}
    assert keeps(request(version=version, **headers)) is kept


# --- answers -----------------------------------------------------------------------------------------------------


def answered(asked: Request, size: int = 100, etag: str = '"v1"', modified: str = DATE) -> Answer:
    return answer(asked, LATER, size, "application/efi", etag, modified)


def test_the_whole() -> None:
    assert answered(request()) == Answer(
        200,
        b"HTTP/1.1 200 OK\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
        b"Server: bootwire\r\n"
        b"Content-Type: application/efi\r\n"
        b"Content-Length: 100\r\n"
        b"Accept-Ranges: bytes\r\n"
        b'ETag: "v1"\r\n'
        b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"\r\n",
        0,
        100,
    )


@pytest.mark.parametrize(
    "headers", [{}, {"if_none_match": '"v2"'}, {"if_none_match": '"v1"'}, {"if_match": '"v2"'}, {"connection": "close"}]
)
def test_a_head_is_the_head_of_the_get(headers: dict[str, str]) -> None:
    of_get, of_head = answered(request(**headers)), answered(request("HEAD", **headers))
    assert of_head == Answer(of_get.status, of_get.head, 0, 0)


def test_a_range_counts_for_get_only() -> None:
    assert answered(request("HEAD", range="bytes=0-1")) == answered(request("HEAD"))


def test_a_part() -> None:
    part = answered(request(range="bytes=10-19"))
    assert (part.status, part.start, part.stop) == (206, 10, 20)
    assert b"\r\nContent-Length: 10\r\n" in part.head
    assert b"\r\nContent-Range: bytes 10-19/100\r\n" in part.head


def test_a_part_beyond_the_end() -> None:
    part = answered(request(range="bytes=100-"))
    assert (part.status, part.start, part.stop) == (416, 0, 0)
    assert b"\r\nContent-Range: bytes */100\r\n" in part.head
    assert b"\r\nContent-Length: 0\r\n" in part.head


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_match": '"v1"'}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": '"v2"'}, 412),
        ({"if_match": 'W/"v1"'}, 412),
        ({"if_match": '"v1"', "if_unmodified_since": EARLIER}, 200),
        ({"if_unmodified_since": EARLIER}, 412),
        ({"if_unmodified_since": DATE}, 200),
        ({"if_unmodified_since": "no date"}, 200),
        ({"if_none_match": '"v1"'}, 304),
        ({"if_none_match": 'W/"v1"'}, 304),
        ({"if_none_match": '"v2"'}, 200),
        ({"if_none_match": '"v2"', "if_modified_since": LATER}, 200),
        ({"if_modified_since": DATE}, 304),
        ({"if_modified_since": EARLIER}, 200),
        ({"if_modified_since": "no date"}, 200),
        ({"if_match": '"v1"', "if_none_match": '"v1"'}, 304),
        ({"if_match": '"v2"', "if_none_match": '"v1"'}, 412),
        ({"range": "bytes=0-1", "if_match": '"v1"'}, 206),
        ({"range": "bytes=0-1", "if_match": '"v2"'}, 412),
        ({"range": "bytes=0-1", "if_none_match": '"v1"'}, 304),
        ({"range": "bytes=0-1", "if_unmodified_since": DATE}, 206),
        ({"range": "bytes=0-1", "if_range": '"v1"'}, 206),
        ({"range": "bytes=0-1", "if_range": '"v2"'}, 200),
        ({"range": "bytes=0-1", "if_range": 'W/"v1"'}, 200),
        ({"range": "bytes=0-1", "if_range": DATE}, 206),
        ({"range": "bytes=0-1", "if_range": "Sunday, 06-Nov-94 08:49:37 GMT"}, 206),
        ({"range": "bytes=0-1", "if_range": EARLIER}, 200),
        ({"range": "bytes=0-1", "if_range": LATER}, 200),
        ({"range": "bytes=0-1", "if_range": "nonsense"}, 200),
        ({"if_range": '"v2"'}, 200),
        ({"range": "bytes=0-1,5-6"}, 200),
        ({"range": "lines=0-1"}, 200),
    ],
)
def test_preconditions(headers: dict[str, str], status: int) -> None:
    assert answered(request(**headers)).status == status


@pytest.mark.parametrize("headers", [{"if_unmodified_since": EARLIER}, {"if_modified_since": LATER}])
def test_dates_decide_nothing_about_content_without_a_date(headers: dict[str, str]) -> None:
    assert answered(request(**headers), modified="").status == 200


def test_a_part_is_not_given_to_if_range_without_validators() -> None:
    assert answered(request(range="bytes=0-1", if_range='""'), etag="", modified="").status == 200


def test_nothing_has_a_length_too() -> None:
    assert b"\r\nContent-Length: 0\r\n" in answered(request(), size=0).head


def test_connections_that_end_or_are_kept_by_favour_are_told_so() -> None:
    assert b"Connection" not in answered(request()).head
    assert b"Connection" not in answered(request(version=10)).head
    assert b"\r\nConnection: close\r\n" in answered(request(connection="close")).head
    assert b"\r\nConnection: keep-alive\r\n" in answered(request(version=10, connection="keep-alive")).head


def test_a_plain_request_gets_the_plain_fields() -> None:
    for asked in (request(), request(connection="Keep-Alive"), request(accept="*/*")):
        assert plain(asked)
        whole = answered(asked).head
        assert whole.endswith(plain_fields(100, "application/efi", '"v1"', DATE))
        assert whole.startswith(f"HTTP/1.1 200 OK\r\nDate: {LATER}\r\nServer".encode())


@pytest.mark.parametrize(
    "asked",
    [
        request("HEAD"),
        request(version=10),
        request(connection="close"),
        request(range="bytes=0-1"),
        request(if_none_match="*"),
        request(if_modified_since=DATE),
    ],
)
def test_requests_that_are_not_plain(asked: Request) -> None:
    assert not plain(asked)


@given(
    st.dictionaries(
        st.sampled_from(["range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"]),
        st.text(st.characters(max_codepoint=0xFF), max_size=30)
        | st.sampled_from(['"v1"', "*", DATE, "bytes=0-", "bytes=-1", "bytes=5-9"]),
    ),
    st.integers(0, 20),
)
def test_any_header_values_get_an_answer_within_the_content(headers: dict[str, str], size: int) -> None:
    got = answer(http.Request("GET", "/", (), headers), LATER, size, "text/plain", '"v1"', DATE)
    assert 0 <= got.start <= got.stop <= size
    assert got.status in (200, 206, 304, 412, 416)
    assert got.head.endswith(b"\r\n\r\n")


def test_a_small_body_is_read_and_thrown_away() -> None:
    connection = Connection(0)
    assert connection.receive(b"POST /done/x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel", 0) is None
    request = connection.receive(b"loGET / HTTP/1.1\r\n\r\n", 0)
    assert isinstance(request, Request)
    assert (request.method, request.path) == ("POST", "/done/x")
    following = connection.finish(0)
    assert isinstance(following, Request)
    assert (following.method, following.path) == ("GET", "/")
