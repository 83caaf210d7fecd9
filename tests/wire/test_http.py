"""HTTP heads, ranges, entity tags and dates: tables from RFC 9110 and RFC 9112, and totality."""

import contextlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import http
from bootwire.wire.reader import WireError

IPXE = (
    b"GET /boot.ipxe?mac=52%3a54%3A00:12:34:56&product=Standard%20PC&version=1.21.1+ HTTP/1.1\r\n"
    b"Host: 192.0.2.1:8080\r\nUser-Agent: iPXE/1.21.1+\r\nConnection: keep-alive\r\n\r\n"
)


def head(*lines: str, request: str = "GET / HTTP/1.1") -> bytes:
    return "".join(f"{line}\r\n" for line in (request, *lines, "")).encode("latin-1")


def test_request_of_ipxe() -> None:
    assert http.parse_request(IPXE) == http.Request(
        "GET",
        "/boot.ipxe",
        (("mac", "52:54:00:12:34:56"), ("product", "Standard PC"), ("version", "1.21.1+")),
        {"host": "192.0.2.1:8080", "user-agent": "iPXE/1.21.1+", "connection": "keep-alive"},
    )


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ()),
        ("/a/b.efi", "/a/b.efi", ()),
        ("/%61%2Fb", "/a/b", ()),
        ("/../../etc/passwd", "/../../etc/passwd", ()),
        ("/%2e%2e/x", "/../x", ()),
        ("//double", "//double", ()),
        ("/nul%00byte", "/nul\0byte", ()),
        ("/gr%C3%BCn", "/grün", ()),
        ("/%ff", "/\udcff", ()),
        ("/raw\xfc", "/raw\udcfc", ()),
        ("/100%", "/100%", ()),
        ("/%zz%4", "/%zz%4", ()),
        ("/?", "/", ()),
        ("/?a", "/", (("a", ""),)),
        ("/?a=1&&b=2=3&a=", "/", (("a", "1"), ("b", "2=3"), ("a", ""))),
        ("/?x=%26%3D%00", "/", (("x", "&=\0"),)),
        ("/a?b?c", "/a", (("b?c", ""),)),
    ],
)
def test_targets(target: str, path: str, query: tuple[tuple[str, str], ...]) -> None:
    request = http.parse_request(head(request=f"GET {target} HTTP/1.1"))
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    ("target", "authority", "path"),
    [
        ("http://192.0.2.1/x", "192.0.2.1", "/x"),
        ("HTTP://example:8080?q=1", "example:8080", "/"),
        ("https://[2001:db8::1]:443/", "[2001:db8::1]:443", "/"),
    ],
)
def test_absolute_form_keeps_its_authority(target: str, authority: str, path: str) -> None:
    request = http.parse_request(head("Host: other", request=f"GET {target} HTTP/1.1"))
    assert (request.authority, request.path) == (authority, path)


@pytest.mark.parametrize(("said", "version"), [("1.0", 10), ("1.1", 11), ("1.2", 11)])
def test_versions(said: str, version: int) -> None:
    assert http.parse_request(head(request=f"GET / HTTP/{said}")).version == version


def test_old_loaders_send_no_host() -> None:
    assert http.parse_request(head()).headers == {}


def test_fields_are_joined_trimmed_and_lower_case() -> None:
    request = http.parse_request(head("X-A: 1", "x-a:\t2 ", "X-Empty:", "X-High: \xe4"))
    assert request.headers == {"x-a": "1, 2", "x-empty": "", "x-high": "ä"}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "request line that is not"),
        (b"\r\n\r\n", "request line that is not"),
        (b"GET /\r\n\r\n", "request line that is not"),  # HTTP/0.9
        (b"GET  / HTTP/1.1\r\n\r\n", "request line that is not"),
        (b"GET / x HTTP/1.1\r\n\r\n", "request line that is not"),
        (b"GET / http/1.1\r\n\r\n", "request line that is not"),
        (b" GET / HTTP/1.1\r\n\r\n", "request line that is not"),
        (b"G\x7fT / HTTP/1.1\r\n\r\n", "request line that is not"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", "NUL in the request line"),  # a TLS ClientHello
        (b"GET / HTTP/1.1\n\n", "bare line feed"),
        (b"GET /\rx HTTP/1.1\r\n\r\n", "carriage return in the request line"),
        (b"GET /\0 HTTP/1.1\r\n\r\n", "NUL in the request line"),
        (b"GET / HTTP/2.0\r\n\r\n", http.OTHER_VERSION),
        (b"PRI * HTTP/2.0\r\n\r\n", http.OTHER_VERSION),
        (b"CONNECT 192.0.2.1:22 HTTP/1.1\r\n\r\n", "not a path"),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", "not a path"),
        (b"GET ftp://192.0.2.1/ HTTP/1.1\r\n\r\n", "not a path"),
        (b"GET http:///x HTTP/1.1\r\n\r\n", "without a valid host"),
        (b"GET http://a@b/x HTTP/1.1\r\n\r\n", "not a path"),
        (head("A: 1", " folded"), "folded header field"),
        (head("A : 1"), "not NAME: VALUE"),
        (head(": 1"), "not NAME: VALUE"),
        (head("no colon"), "not NAME: VALUE"),
        (head("A: \x00"), "NUL in a header field"),
        (head("A: x\ry"), "carriage return in a header field"),
        (b"GET / HTTP/1.1\r\nA: 1\nB: 2\r\n\r\n", "bare line feed"),
        (head("A: \x1b[2J"), "not NAME: VALUE"),
        (b"GET / HTTP/1.1\r\nA: 1\r\n", "not NAME: VALUE"),
        (head() + b"more", "octets after the head"),
        (head("Host: a", "Host: a"), "second host"),
        (head("Host: a b"), "not host[:port]"),
        (head("Host: a/../b"), "not host[:port]"),
        (head("Host: a:99999999"), "not host[:port]"),
        (head("Content-Length: 1", "Content-Length: 1"), "second content-length"),
        (head("Content-Length: 1, 1"), "not a number"),
        (head("Content-Length: +1"), "not a number"),
        (head("Content-Length: -1"), "not a number"),
        (head("Content-Length: 1_0"), "not a number"),
        (head("Content-Length: \xb2"), "not a number"),
        (head("Content-Length: " + "9" * 5000), "not a number"),
        (head("Content-Length: 1", "Transfer-Encoding: chunked"), "beside transfer-encoding"),
        (head("Transfer-Encoding: chunked", "Transfer-Encoding: x"), "second transfer-encoding"),
        (head(request=f"GET /{'a' * 9000} HTTP/1.1"), http.LONG_TARGET),
        (b"GET /" + b"a" * 9000, http.LONG_TARGET),
        (head("A: " + "a" * 9000), http.LONG_LINE),
        (head("a" * 9000), http.LONG_LINE),
        (head(*(f"A{n}: 1" for n in range(101))), http.MANY_FIELDS),
        (head(*(f"A{n}: {'a' * 4000}" for n in range(9))), http.LONG_HEAD),
    ],
)
def test_refusals(data: bytes, what: str) -> None:
    with pytest.raises(WireError, match=re.escape(what)):
        http.parse_request(data)


def test_the_largest_head_is_taken() -> None:
    request = http.parse_request(
        head(*(f"A{n}: 1" for n in range(100)), request=f"GET /{'a' * (http.MAX_LINE - 14)} HTTP/1.1")
    )
    assert len(request.headers) == 100


@given(
    st.binary(max_size=400) | st.lists(st.sampled_from([*IPXE.split(b" "), b"\r\n", b" ", b"\n", b":"])).map(b"".join)
)
def test_any_octets_are_a_request_or_an_error(data: bytes) -> None:
    for candidate in (data, data + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n"):
        try:
            request = http.parse_request(candidate)
        except WireError as error:
            assert 0 <= error.at <= len(candidate)
        else:
            assert request.path.startswith("/")


@given(st.data())
def test_a_damaged_request_is_a_request_or_an_error(data: st.DataObject) -> None:
    octets = bytearray(IPXE[: data.draw(st.integers(0, len(IPXE)))])
    if octets:
        octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(WireError):
        http.parse_request(bytes(octets))


@pytest.mark.parametrize(
    "data",
    [
        head("A:" + " " * 32_000 + "\x01"),
        b"GET / HTTP/1.1\r\n" + b"a" * 32_000,
        b"GET / HTTP/1.1\r\n" + b"A:\r\n" * 8000,
        b"GET /" + b"%" * 32_000,
        b"GET /?" + b"&=" * 4000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_work_is_linear(data: bytes) -> None:
    started = time.process_time()
    for _ in range(10):
        with contextlib.suppress(WireError):
            http.parse_request(data)
    assert time.process_time() - started < 1  # quadratic work on 32 KB takes minutes


# --- responses ---------------------------------------------------------------------------------------------------


def test_a_response_head() -> None:
    assert http.emit_head(206, [("Content-Length", "5"), ("ETag", '"x"')]) == (
        b'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n'
    )


def test_an_unknown_status_keeps_the_space_that_ipxe_needs() -> None:
    assert http.emit_head(299, []) == b"HTTP/1.1 299 \r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nb", "\0", "\u20ac", "\x7f"])
def test_a_header_field_cannot_become_two(value: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        http.emit_head(200, [("X", value)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x86_64/snponly.efi", "application/efi"),
        ("BOOTX64.EFI", "application/efi"),
        ("cd.iso", "application/vnd.efi-iso"),
        ("disk.img", "application/vnd.efi-img"),
        ("boot.ipxe", "text/plain"),
        ("vmlinuz", "application/octet-stream"),
        ("initrd.zst", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_media_types(name: str, expected: str) -> None:
    assert http.media_type(name) == expected


# --- ranges and preconditions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-", (10, 100)),
        ("bytes=10-1000", (10, 100)),
        ("bytes=99-99", (99, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("BYTES = 1-2", (1, 3)),
        ("bytes=100-", (100, 100)),
        ("bytes=100-200", (100, 100)),
        ("bytes=-0", (100, 100)),
        (f"bytes={2**62}-", (100, 100)),
        ("bytes=2-1", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=0-1,3-4", None),
        ("bytes=0-0," * 1300, None),
        ("octets=0-1", None),
        ("bytes=0x1-0x2", None),
        ("bytes=+1-2", None),
        ("bytes=1_0-20", None),
        ("bytes=\u0661-", None),
        ("bytes= -1 -2", None),
        (f"bytes={'9' * 30}-", None),
        ("", None),
    ],
)
def test_ranges(value: str, expected: tuple[int, int] | None) -> None:
    assert http.parse_range(value, 100) == expected


@pytest.mark.parametrize(("value", "expected"), [("bytes=0-", (0, 0)), ("bytes=-5", None), ("bytes=-0", (0, 0))])
def test_ranges_of_nothing(value: str, expected: tuple[int, int] | None) -> None:
    assert http.parse_range(value, 0) == expected


@given(st.text(max_size=40) | st.from_regex(r"bytes=[0-9]{0,3}-[0-9]{0,3}", fullmatch=True), st.integers(0, 300))
def test_a_range_lies_within_the_content(value: str, size: int) -> None:
    part = http.parse_range(value, size)
    assert part is None or 0 <= part[0] <= part[1] <= size


@pytest.mark.parametrize(
    ("field", "weak", "expected"),
    [
        ('"a"', False, True),
        ('"b", "a"', False, True),
        (' ,, "a" ,', False, True),
        ("*", False, True),
        ('W/"a"', False, False),
        ('W/"a"', True, True),
        ('"b"', True, False),
        ('"b" "a"', True, False),
        ("a", True, False),
        ('"a', True, False),
        ("", True, False),
        ('"x,"a""', True, False),
    ],
)
def test_entity_tags(field: str, weak: bool, expected: bool) -> None:
    assert http.matches(field, '"a"', weak=weak) is expected


def test_content_without_a_tag_matches_only_the_star() -> None:
    assert http.matches("*", "", weak=True)
    assert not http.matches('""', "", weak=True)


# --- dates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_the_three_dates_of_rfc_9110(text: str) -> None:
    assert http.parse_date(text) == 784_111_777


@pytest.mark.parametrize(
    "text",
    ["", "now", "784111777", "Sun, 06 Nov 1994 08:49:37", "Sun, 31 Feb 1994 08:49:37 GMT",
     "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT",
     "Sun, ٠٦ Nov 1994 08:49:37 GMT"],
)  # fmt: skip
def test_what_is_no_date(text: str) -> None:
    assert http.parse_date(text) is None


@given(st.integers(0, 253_402_300_799))
def test_a_date_survives(seconds: int) -> None:
    assert http.parse_date(http.format_date(seconds)) == seconds


@pytest.mark.parametrize("seconds", [-1, 1e20, -1e20])
def test_a_clock_that_is_wrong_still_has_a_date(seconds: float) -> None:
    assert http.parse_date(http.format_date(seconds)) in (0, 253_402_300_799)
