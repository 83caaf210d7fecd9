"""fetch over real sockets, the kernel's and our own: hostile servers, broken transfers, TLS, TFTP, FTP."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

from bootwire.preboot.fetch import Fetcher, FetchError, Options, fetch
from bootwire.preboot.nic import cable
from bootwire.preboot.proxies import Proxies
from bootwire.preboot.sockets import Socket
from bootwire.preboot.stack import Stack
from bootwire.preboot.transport import KernelTransport, SecureStream, StackTransport, connect
from bootwire.wire import ftp as ftp_wire
from bootwire.wire import tftp as tftp_wire
from fetch_rig import Place
from http_cases import END, REFUSED, SILENT, TAKEN, answer, sized

PATIENT = Options(idle=20, tries=1)
HASTY = Options(idle=0.2, tries=1)


@pytest.fixture
def kernel():

    def bind():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        return sock

    place = Place(KernelTransport(), "127.0.0.1", lambda: socket.create_server(("127.0.0.1", 0)), bind)
    yield place
    place.close()


@pytest.fixture
def own():
    left, right = cable(b"\2\0\0\0\0\1", b"\2\0\0\0\0\2")
    with Stack(left) as a, Stack(right) as b:
        a.add_address("10.0.0.1/24")
        b.add_address("10.0.0.2/24")

        def listen():
            listener = Socket(b)
            listener.bind(("", 0))
            listener.listen()
            return listener

        def bind():
            sock = Socket(b, socket.SOCK_DGRAM)
            sock.bind(("", 0))
            return sock

        place = Place(StackTransport(a), "10.0.0.2", listen, bind)
        yield place
        place.close()


@pytest.fixture(params=["kernel", "own"])
def place(request):
    return request.getfixturevalue(request.param)


def get(place, url, options=PATIENT, **more):
    body = bytearray()
    fetched = fetch(url, body.extend, place.transport, options, **more)
    assert fetched.octets == len(body)
    return bytes(body), fetched


def why(place, url, options=PATIENT, **more):
    with pytest.raises(FetchError) as caught:
        get(place, url, options, **more)
    return caught.value.why


# --- what servers may answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAKEN)
def test_taken(place, name):
    said, body = TAKEN[name]
    assert get(place, place.says(said).url + "/file")[0] == body


@pytest.mark.parametrize("name", REFUSED)
def test_refused(place, name):
    said, reason = REFUSED[name]
    server = place.says((*said, END) if isinstance(said, tuple) and said[-1] is not SILENT else said)
    assert why(place, server.url + "/file", HASTY if reason == "timeout" else PATIENT) == reason


@pytest.mark.parametrize(
    ("status", "reason"),
    [("404 Not Found", "missing"), ("403 No", "denied"), ("401 Who", "denied"), ("503 -", "server")],
)
def test_an_error_page_is_not_the_file(kernel, status, reason):
    server = kernel.says(sized(b"sorry", status=status), sized(b"x"))
    body = bytearray()
    with Fetcher(kernel.transport, PATIENT) as fetcher:
        with pytest.raises(FetchError) as caught:
            fetcher.fetch(server.url + "/a", body.extend)
        fetcher.fetch(server.url + "/b", body.extend)
    assert (caught.value.why, caught.value.status) == (reason, int(status[:3]))
    assert (bytes(body), server.connections) == (b"x", 1)  # the connection was kept


def test_a_failed_download_leaves_no_file(kernel, tmp_path):
    server = kernel.says((answer("Content-Length: 10", body=b"hello"), END))
    with pytest.raises(FetchError), Fetcher(kernel.transport, PATIENT) as fetcher:
        fetcher.save(server.url + "/a", str(tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


def test_a_whole_download_replaces_the_file(kernel, tmp_path):
    (tmp_path / "a").write_text("old")
    said: list[tuple[int, int | None]] = []
    with Fetcher(kernel.transport, PATIENT) as fetcher:
        url = kernel.says(sized(b"hello")).url + "/a"
        fetched = fetcher.save(url, str(tmp_path / "a"), progress=lambda *now: said.append(now))
    assert (tmp_path / "a").read_bytes() == b"hello"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (said[-1], fetched.sha256) == ((5, 5), hashlib.sha256(b"hello").hexdigest())


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_a_digest_decides(kernel, name):
    digest = hashlib.new(name, b"hello").hexdigest()
    server = kernel.says(sized(b"hello"), sized(b"hellO"), sized(b"hello"))
    assert get(kernel, server.url, digest=digest)[0] == b"hello"
    assert why(kernel, server.url, digest=f"{name}:{digest}") == "digest"


def test_what_is_no_digest_asks_nobody(kernel):
    assert why(kernel, "http://127.0.0.1:1/", digest="md5:00") == "digest"


@pytest.mark.parametrize("url", ["gopher://127.0.0.1/", "http://127.0.0.1/a b", "file:///etc/passwd", "", "ftp://"])
def test_what_is_no_url_asks_nobody(kernel, url):
    assert why(kernel, url) == "url"


def test_nobody_there(place):
    assert why(place, f"http://{place.host}:1/") == "connect"


def test_credentials_of_the_url_answer_a_challenge(kernel):
    wants = sized(b"", 'WWW-Authenticate: Basic realm="x"', status="401 Unauthorized")
    server = kernel.says(wants, sized(b"x"))
    assert get(kernel, f"http://me:secret@{server.netloc}/a")[0] == b"x"
    assert "Authorization: Basic bWU6c2VjcmV0" in server.heads[1]


# --- connections ------------------------------------------------------------------------------------------------


def test_a_kept_connection_serves_many_files(place):
    server = place.says(*[sized(b"%d" % n) for n in range(10)])
    with Fetcher(place.transport, PATIENT) as fetcher:
        assert [fetcher.read(f"{server.url}/{n}") for n in range(10)] == [b"%d" % n for n in range(10)]
    assert server.connections == 1


def test_a_server_that_closes_each_connection(place):
    server = place.says(*[(sized(b"%d" % n, "Connection: close"), END) for n in range(5)])
    with Fetcher(place.transport, PATIENT) as fetcher:
        assert [fetcher.read(f"{server.url}/{n}") for n in range(5)] == [b"%d" % n for n in range(5)]
    assert server.connections == 5


def test_a_server_that_closes_without_a_word(place):
    server = place.says(*[(sized(b"%d" % n), END) for n in range(5)])
    with Fetcher(place.transport, PATIENT) as fetcher:
        assert [fetcher.read(f"{server.url}/{n}") for n in range(5)] == [b"%d" % n for n in range(5)]
    assert server.connections == 5


DATA = bytes(range(256)) * 2000


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_broken_transfer_goes_on_where_it_stopped(kernel, how):
    def script(server, connection):
        head = server.head(connection)
        start = int(head.partition("bytes=")[2].partition("-")[0] or 0)
        rest = DATA[start:]
        fields = ['ETag: "1"', f"Content-Length: {len(rest)}"]
        if start:
            fields.append(f"Content-Range: bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        connection.sendall(answer(*fields, status="206 Partial Content" if start else "200 OK") + rest[:200_000])
        if len(rest) > 200_000 and how == "reset":
            time.sleep(0.05)  # a reset destroys what was not read yet
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server = kernel.serve(script)
    body, fetched = get(kernel, server.url + "/a", Options(idle=20, tries=2))
    assert body == DATA
    assert fetched.head.size == len(DATA)
    assert server.connections >= 3


def test_a_body_until_close_that_is_reset_is_not_whole(kernel):
    def script(server, connection):
        server.head(connection)
        connection.sendall(answer(body=b"hello"))
        time.sleep(0.05)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert why(kernel, kernel.serve(script).url) == "connect"


def test_a_part_and_a_server_that_knows_no_parts(kernel):
    ranged = answer("Content-Length: 3", "Content-Range: bytes 2-4/9", body=b"cde", status="206 Partial Content")
    server = kernel.says(ranged, sized(b"abcdefghi"))
    got: list[tuple[int, int | None, bytes]] = []
    with Fetcher(kernel.transport, PATIENT) as fetcher:
        for _ in range(2):
            body = bytearray()
            head = fetcher.stream(server.url, lambda head, body=body: body.extend, (2, 5))
            got.append((head.start, head.size, bytes(body)))
    assert got == [(2, 9, b"cde"), (0, 9, b"abcdefghi")]


def test_head_tells_size_date_and_kind(kernel):
    said = answer("Content-Length: 7", "Last-Modified: Thu, 01 Jan 1970 00:01:00 GMT", "Content-Type: Text/HTML; a=b")
    with Fetcher(kernel.transport, PATIENT) as fetcher:
        head = fetcher.head(kernel.says(said).url)
    assert (head.size, head.modified, head.media_type) == (7, 60, "text/html")


# --- TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 and 10.0.0.2, with its key in one file."""
    directory = tmp_path_factory.mktemp("tls")
    key, both = directory / "key.pem", directory / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,IP:10.0.0.2", "-days", "2",
               "-keyout", str(key), "-out", str(both)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(both.read_text() + key.read_text())
    return str(both)


class TlsServer:
    """The serving side of TLS over any stream."""

    def __init__(self, inner, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.inner, self.coming, self.going = inner, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.coming, self.going, server_side=True)
        self.do(self.tls.do_handshake)

    def do(self, action, *arguments):
        while True:
            try:
                result = action(*arguments)
            except ssl.SSLWantReadError:
                self.inner.sendall(self.going.read())
                data = self.inner.recv(65536)
                if not data:
                    raise ConnectionResetError from None
                self.coming.write(data)
            else:
                self.inner.sendall(self.going.read())
                return result

    def recv(self, size):
        return self.do(self.tls.read, size)

    def sendall(self, data):
        self.do(self.tls.write, data)


def secure(place, certificate, body, *fields, polite=True):
    def script(server, connection):
        tls = TlsServer(connection, certificate)
        server.head(tls)
        tls.sendall(answer(*fields, body=body))
        if polite:
            with contextlib.suppress(ssl.SSLError):
                tls.do(tls.tls.unwrap)

    return place.serve(script)


def test_https(place, certificate):
    server = secure(place, certificate, DATA, f"Content-Length: {len(DATA)}")
    options = Options(idle=20, tries=1, trust=certificate)
    assert get(place, f"https://{server.netloc}/a", options)[0] == DATA


def test_a_certificate_that_nobody_vouches_for(kernel, certificate):
    server = secure(kernel, certificate, b"x", "Content-Length: 1")
    with pytest.raises(FetchError, match="certificate is not trusted"):
        get(kernel, f"https://{server.netloc}/a")
    assert server.heads == []


def test_a_certificate_of_another_host(kernel, certificate):
    server = secure(kernel, certificate, b"x", "Content-Length: 1")
    with pytest.raises(FetchError, match="certificate is not trusted"):
        get(kernel, f"https://localhost:{server.netloc.split(':')[1]}/a", Options(tries=1, trust=certificate))
    assert server.heads == []


@pytest.mark.parametrize(("polite", "reason"), [(True, ""), (False, "connect")])
def test_a_body_until_close_is_whole_only_if_tls_was_closed(kernel, certificate, polite, reason):
    server = secure(kernel, certificate, b"hello", polite=polite)
    url, options = f"https://{server.netloc}/a", Options(idle=20, tries=1, trust=certificate)
    if reason:
        assert why(kernel, url, options) == reason
    else:
        assert get(kernel, url, options)[0] == b"hello"


def test_a_server_that_speaks_no_tls(kernel):
    server = kernel.serve(lambda server, connection: connection.sendall(b"220 hello\r\n"))
    assert why(kernel, f"https://{server.netloc}/") == "connect"


def test_tls_is_verified_through_a_tunnel_too(kernel, certificate):
    origin = secure(kernel, certificate, b"hello", "Content-Length: 5")

    def tunnel(server, connection):
        host, _, port = server.head(connection).split()[1].partition(":")
        connection.sendall(answer(status="200 Connection established"))
        with socket.create_connection((host, int(port))) as other:
            copy = threading.Thread(target=pump, args=(connection, other))
            copy.start()
            pump(other, connection)
            copy.join()

    proxies = Proxies.all(kernel.serve(tunnel).netloc)
    url = f"https://{origin.netloc}/a"
    assert get(kernel, url, Options(tries=1, trust=certificate, proxies=proxies))[0] == b"hello"
    assert why(kernel, url, Options(tries=1, proxies=proxies)) == "connect"


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_tls_by_hand(kernel, certificate):
    def echo(server, connection):
        tls = TlsServer(connection, certificate)
        while data := tls.recv(65536):
            tls.sendall(data)

    host, _, port = kernel.serve(echo).netloc.partition(":")
    stream = connect(kernel.transport, host, int(port), 20)
    with SecureStream(stream, ssl.create_default_context(cafile=certificate), host) as tls:
        tls.sendall(DATA[:100_000])
        got = b""
        while len(got) < 100_000:
            got += tls.recv(65536)
    assert got == DATA[:100_000]


# --- TFTP -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tftp(place, answer_to):
    """A TFTP server of one socket: `answer_to(message)` gives the datagrams to send back."""
    with place.bind() as sock:
        sock.settimeout(0.05)
        heard: list[object] = []
        over = threading.Event()

        def run():
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    data, source = sock.recvfrom(2000)
                    heard.append(tftp_wire.parse(data))
                    for packet in answer_to(heard[-1]):
                        sock.sendto(tftp_wire.emit(packet), source)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"tftp://{place.host}:{sock.getsockname()[1]}", heard
        finally:
            over.set()
            thread.join()


def test_tftp(place):
    def server(message):
        match message:
            case tftp_wire.ReadRequest():
                yield tftp_wire.OptionAck(((b"tsize", b"1500"), (b"blksize", b"1000")))
            case tftp_wire.Ack(block) if block < 2:
                yield tftp_wire.Data(block + 1, DATA[block * 1000 : min(1500, block * 1000 + 1000)])

    with tftp(place, server) as (url, heard):
        body, fetched = get(place, url + "/dir/a%20b;mode=octet")
    assert (body, fetched.head.size) == (DATA[:1500], 1500)
    assert heard[0].filename == b"dir/a b"


def test_an_empty_file_by_tftp(kernel):
    def server(message):
        if isinstance(message, tftp_wire.ReadRequest):
            yield tftp_wire.Data(1, b"")

    with tftp(kernel, server) as (url, _):
        assert get(kernel, url + "/a")[0] == b""


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (tftp_wire.Error(1, b"no such file"), "missing"),
        (tftp_wire.Error(2, b"no"), "denied"),
        (tftp_wire.Error(0, b"?"), "server"),
        (tftp_wire.OptionAck(((b"tsize", b"99999999999"),)), "malformed"),
        (tftp_wire.OptionAck(((b"tsize", b"1001"),)), "too big"),
        (tftp_wire.OptionAck(((b"blksize", b"9000"),)), "malformed"),
    ],
)
def test_tftp_refusals(kernel, said, reason):
    with tftp(kernel, lambda message: [said] if isinstance(message, tftp_wire.ReadRequest) else []) as (url, _):
        assert why(kernel, url + "/a", Options(limit=1000)) == reason


def test_a_tftp_file_shorter_than_announced(kernel):
    def server(message):
        match message:
            case tftp_wire.ReadRequest():
                yield tftp_wire.OptionAck(((b"tsize", b"1500"),))
            case tftp_wire.Ack(0):
                yield tftp_wire.Data(1, b"short")

    with tftp(kernel, server) as (url, _):
        assert why(kernel, url + "/a") == "truncated"


def test_a_silent_tftp_server(kernel):
    with tftp(kernel, lambda message: []) as (url, _):
        assert why(kernel, url + "/a", Options(idle=0.1)) == "timeout"


# --- FTP --------------------------------------------------------------------------------------------------------


class FtpServer:
    """A scripted FTP server. answers: what to say instead, by verb ("" for the greeting)."""

    def __init__(self, place, files, answers=None, cut=None):
        self.commands: list[str] = []
        self._files, self._answers, self._cut = files, dict(answers or {}), list(cut or [])
        self._place = place
        self.server = place.serve(self._serve)
        self.url = self.server.url.replace("http:", "ftp:")

    def _serve(self, server, control):
        with contextlib.ExitStack() as listeners:
            self._converse(control, listeners)

    def _converse(self, control, listeners):
        buffer, start, data = b"", 0, None
        control.sendall(self._answers.get("", "220-Welcome\r\n220-220 is not the end\r\n220 here\r\n").encode())
        while True:
            while b"\r\n" not in buffer:
                more = control.recv(4096)
                if not more:
                    return
                buffer += more
            line, _, buffer = buffer.partition(b"\r\n")
            self.commands.append(line.decode())
            verb, _, argument = line.decode().partition(" ")
            if verb in self._answers:
                control.sendall(self._answers[verb].encode())
                continue
            match verb:
                case "USER":
                    said = "331 password"
                case "PASS":
                    said = "230 in"
                case "TYPE":
                    said = "200 binary"
                case "SIZE":
                    said = f"213 {len(self._files[argument])}" if argument in self._files else "550 none"
                case "EPSV" | "PASV":
                    data = listeners.enter_context(self._place._listen())
                    port = data.getsockname()[1]
                    said = f"229 go (|||{port}|)" if verb == "EPSV" else f"227 go (192,0,2,1,{port >> 8},{port & 255})"
                case "REST":
                    start, said = int(argument), "350 go on"
                case "RETR" if argument in self._files:
                    connection, _ = data.accept()
                    control.sendall(b"150 here it comes\r\n")
                    octets = self._files[argument][start:]
                    cut = self._cut.pop(0) if self._cut else len(octets)
                    connection.sendall(octets[:cut])
                    connection.close()
                    if cut < len(octets):
                        return
                    said = "226 done"
                case "RETR":
                    said = "550 no such file"
                case _:
                    said = "221 bye"
            control.sendall(said.encode() + b"\r\n")


def test_ftp(place):
    server = FtpServer(place, {"dir/a b": DATA})
    body, fetched = get(place, server.url + "/dir/a%20b")
    assert (body, fetched.head.size) == (DATA, len(DATA))
    assert server.commands[:3] == ["USER anonymous", "PASS bootwire@", "TYPE I"]


def test_ftp_with_a_login(kernel):
    server = FtpServer(kernel, {"a": b"x"})
    assert get(kernel, server.url.replace("//", "//me:se%40cret@") + "/a")[0] == b"x"
    assert server.commands[:2] == ["USER me", "PASS se@cret"]


def test_ftp_data_come_from_the_server_itself(kernel):
    server = FtpServer(kernel, {"a": b"x"}, {"EPSV": "500 what?\r\n"})  # its PASV names 192.0.2.1
    assert get(kernel, server.url + "/a")[0] == b"x"


def test_a_broken_ftp_transfer_goes_on_where_it_stopped(kernel):
    server = FtpServer(kernel, {"a": DATA}, cut=[1000, 2000])
    assert get(kernel, server.url + "/a", Options(idle=20, tries=2))[0] == DATA
    assert [line for line in server.commands if line.startswith("REST")] == ["REST 1000", "REST 3000"]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"USER": "530 go away\r\n"}, "denied"),
        ({"PASS": "530 go away\r\n"}, "denied"),
        ({"": "421 full\r\n"}, "server"),
        ({"": "SSH-2.0-x\r\n"}, "malformed"),
        ({"": "220-" + "x" * 9000}, "malformed"),
        ({"": "220-x\r\n" * 9000}, "malformed"),
        ({"SIZE": "213 99999\r\n"}, "truncated"),
        ({"SIZE": "213 9999999\r\n"}, "too big"),
        ({"EPSV": "229 (|||0|)\r\n"}, "malformed"),
        ({"EPSV": "229 (|||99999|)\r\n"}, "malformed"),
        ({"EPSV": "502 no\r\n", "PASV": "227 (1,2,3,4,5)\r\n"}, "malformed"),
        ({"EPSV": "502 no\r\n", "PASV": "227 (1,2,3,4,0,999)\r\n"}, "malformed"),
        ({"EPSV": "229 (|||1|)\r\n"}, "server"),
        ({"RETR": "550 no\r\n"}, "missing"),
    ],
)
def test_ftp_refusals(kernel, answers, reason):
    server = FtpServer(kernel, {"a": b"hello"}, answers)
    assert why(kernel, server.url + "/a", Options(idle=20, tries=1, limit=100_000)) == reason


def test_an_ftp_path_of_two_lines_is_refused(kernel):
    server = FtpServer(kernel, {"a": b"hello"})
    assert why(kernel, server.url + "/a%0d%0aDELE%20a") == "url"
    assert not any("DELE" in line for line in server.commands)


def test_ftp_replies_are_read_however_they_are_cut():
    whole = b"123-one\r\n 123 two\r\n124 three\r\n123 four\r\n"
    assert [ftp_wire.parse_reply(whole[:n]) for n in range(len(whole))] == [None] * len(whole)
    assert ftp_wire.parse_reply(whole) == (ftp_wire.Reply(123, "one\n 123 two\n124 three\nfour"), len(whole))
