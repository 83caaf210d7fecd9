"""What a server may answer: answers that a client takes, and answers that it refuses, and why."""

from __future__ import annotations

END = object()  # the server closes
SILENT = object()  # the server says nothing more


def answer(*fields: str, body: bytes = b"", status: str = "200 OK", version: str = "1.1") -> bytes:
    return "\r\n".join((f"HTTP/{version} {status}", *fields, "", "")).encode("latin-1") + body


def sized(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    return answer(f"Content-Length: {len(body)}", *fields, body=body, status=status)


def chunked(body: bytes) -> bytes:
    return answer("Transfer-Encoding: chunked", body=body)


LONG = bytes(range(256)) * 40

TAKEN: dict[str, tuple[object, bytes]] = {
    "content-length": (sized(b"hello"), b"hello"),
    "body until close": ((answer(body=b"hello"), END), b"hello"),
    "long body": (sized(LONG), LONG),
    "empty body": (sized(b""), b""),
    "chunked": (chunked(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), b"hello world"),
    "chunk extensions and trailers": (chunked(b'5;a=b;c="d"\r\nhello\r\n0;x\r\nDigest: 1\r\nB: 2\r\n\r\n'), b"hello"),
    "chunk size in capitals with zeros": (chunked(b"00A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    "the same content-length twice": (answer("Content-Length: 5", "Content-Length: 5", body=b"hello"), b"hello"),
    "identity": (sized(b"hello", "Content-Encoding: identity"), b"hello"),
    "HTTP/1.0": ((answer(body=b"hello", version="1.0"), END), b"hello"),
    "no reason phrase": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "interim answers": (answer(status="100 Continue") + answer(status="103 Early Hints") + sized(b"hello"), b"hello"),
    "white space around a value": (b"HTTP/1.1 200 OK\r\nContent-Length: \t 5 \r\n\r\nhello", b"hello"),
}

REFUSED: dict[str, tuple[object, str]] = {
    "gzip": (sized(b"xx", "Content-Encoding: gzip"), "encoding"),
    "two content-lengths": (answer("Content-Length: 5", "Content-Length: 6", body=b"hello!"), "malformed"),
    "two content-lengths in one field": (answer("Content-Length: 5, 5", body=b"hello"), "malformed"),
    "negative content-length": (answer("Content-Length: -1"), "malformed"),
    "content-length with a sign": (answer("Content-Length: +5", body=b"hello"), "malformed"),
    "content-length in hexadecimal": (answer("Content-Length: 0x5", body=b"hello"), "malformed"),
    "content-length beyond 64 bits": (answer("Content-Length: 99999999999999999999"), "malformed"),
    "content-length beside chunked": (answer("Content-Length: 5", "Transfer-Encoding: chunked"), "malformed"),
    "transfer-encoding gzip": (answer("Transfer-Encoding: gzip"), "malformed"),
    "chunked, identity": (answer("Transfer-Encoding: chunked, identity"), "malformed"),
    "gzip, chunked": (answer("Transfer-Encoding: gzip, chunked"), "malformed"),
    "two transfer-encodings": (answer("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), "malformed"),
    "header without a colon": (answer("Content-Length 5", body=b"hello"), "malformed"),
    "space before the colon": (answer("Content-Length : 5", body=b"hello"), "malformed"),
    "folded header": (answer("X: a", " b", "Content-Length: 0"), "malformed"),
    "NUL in a header": (answer("X: a\0b", "Content-Length: 0"), "malformed"),
    "not HTTP": (b"220 mail.example ESMTP\r\n\r\n", "malformed"),
    "HTTP/2": (b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n", "malformed"),
    "status of two digits": (b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", "malformed"),
    "switching protocols": (answer("Upgrade: x", status="101 Switching"), "malformed"),
    "interim answers without an end": (answer(status="100 Continue") * 20, "malformed"),
    "a header line of 100 KB": (answer("X: " + "a" * 100_000), "malformed"),
    "5,001 header lines": (answer(*(f"X{n}: {n}" for n in range(5001))), "malformed"),
    "101 header lines": (answer(*(f"X{n}: {n}" for n in range(101)), "Content-Length: 0"), "malformed"),
    "a chunk size that is no number": (chunked(b"zz\r\nhello\r\n0\r\n\r\n"), "malformed"),
    "a negative chunk size": (chunked(b"-5\r\nhello\r\n0\r\n\r\n"), "malformed"),
    "an empty chunk size": (chunked(b"\r\nhello\r\n0\r\n\r\n"), "malformed"),
    "a chunk size that overflows": (chunked(b"ffffffffffffffffff\r\nhello\r\n"), "malformed"),
    "a chunk over the limit": (chunked(b"fffffffffffffff\r\nhello\r\n"), "too big"),
    "a chunk without its CRLF": (chunked(b"5\r\nhelloXX0\r\n\r\n"), "malformed"),
    "a chunk size line without an end": (chunked(b"5;" + b"x" * 9000), "malformed"),
    "trailers without an end": (chunked(b"0\r\n" + b"X: y\r\n" * 9000), "malformed"),
    "a trailer that is none": (chunked(b"0\r\nnonsense\r\n\r\n"), "malformed"),
    "truncated body": ((answer("Content-Length: 10", body=b"hello"), END), "truncated"),
    "truncated chunk": ((chunked(b"a\r\nhello"), END), "truncated"),
    "chunks without the last one": ((chunked(b"5\r\nhello\r\n"), END), "truncated"),
    "truncated head": ((b"HTTP/1.1 200 OK\r\nContent-Le", END), "closed"),
    "nothing at all": ((END,), "closed"),
    "a server that stalls in the head": ((b"HTTP/1.1 200 OK\r\n", SILENT), "timeout"),
    "a server that stalls in the body": ((answer("Content-Length: 10", body=b"hello"), SILENT), "timeout"),
}
