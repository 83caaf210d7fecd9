"""Another HTTP server, as a program of its own: it counts what is asked, holds answers back, and dies half-way.

/held/… answers once /go was asked for; /dies/… breaks off half-way the first time; /chunked has no length;
/away leads to http; /calls lists what was answered.
python3 -c PROGRAM SIZE [PEM] listens on 10.9.0.3:8000, on 127.0.0.1:8001 for a proxy beside it, and with a key and
certificate on 10.9.0.3:8443 for https.
"""

from __future__ import annotations

import random

PROGRAM = r"""
import http.server, json, random, re, socketserver, ssl, sys, threading
SIZE = int(sys.argv[1])
WHERE = [("10.9.0.3", 8000, ""), ("127.0.0.1", 8001, "")] + [("10.9.0.3", 8443, pem) for pem in sys.argv[2:]]
IMAGE = bytearray(b"".join(random.Random(n).randbytes(1 << 20) for n in range(-(-SIZE >> 20)))[:SIZE])
IMAGE[:4096] = bytes(4096)
IMAGE[0x1F1:0x1F2] = b"\1"; IMAGE[0x1FE:0x200] = b"\x55\xaa"
IMAGE[0x202:0x206] = b"HdrS"; IMAGE[0x206:0x208] = b"\x0f\2"
calls, died, go = [], set(), threading.Event()

class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/calls":
            return self.say(200, json.dumps(calls).encode())
        if self.path == "/go":
            go.set()
            return self.say(200, b"")
        if self.path == "/away":
            return self.say(302, b"", ("Location", "http://10.9.0.3:8000/image"))
        asked = self.headers.get("Range", "")
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        first, last = (int(part[1]), min(int(part[2] or SIZE), SIZE - 1)) if part else (0, SIZE - 1)
        if self.path.startswith("/held") and not part:
            go.wait(60)
        if self.headers.get("If-None-Match") == '"one"':
            return self.say(304, b"", ("ETag", '"one"'))
        body = memoryview(IMAGE)[first : last + 1]
        calls.append([self.path, asked, len(body)])
        fields = [("ETag", '"one"'), ("Accept-Ranges", "bytes")]
        if self.path == "/chunked" and not part:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, SIZE, 1 << 20):
                piece = IMAGE[at : at + (1 << 20)]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            return self.wfile.write(b"0\r\n\r\n")
        if part:
            fields.append(("Content-Range", f"bytes {first}-{last}/{SIZE}"))
        dies = self.path.startswith("/dies") and not part and self.path not in died
        died.update([self.path] if dies else [])
        self.say(206 if part else 200, body, *fields, dies=dies)

    def say(self, status, body, *fields, dies=False):
        self.send_response(status)
        for name, value in fields: self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if dies else body)
        self.close_connection = dies or self.close_connection

    def log_message(self, *_): pass

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 500

servers = [Server((host, port), Origin) for host, port, pem in WHERE]
for one, (_, _, pem) in zip(servers, WHERE):
    if pem:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        one.socket = tls.wrap_socket(one.socket, server_side=True)
for one in servers[1:]: threading.Thread(target=one.serve_forever, daemon=True).start()
servers[0].serve_forever()
"""


def octets(size: int) -> bytes:
    """The image it serves: chance, with a bzImage's header where one is looked for."""
    image = bytearray(b"".join(random.Random(n).randbytes(1 << 20) for n in range(-(-size >> 20)))[:size])
    image[:4096] = bytes(4096)
    image[0x1F1] = 1
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = b"\x0f\x02"
    return bytes(image)
