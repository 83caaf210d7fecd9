#!/usr/bin/python3
"""A boot service in fifty lines: it says what each machine boots, and Bootwire asks it.

    python3 docs/examples/boot_service.py 127.0.0.1 8000
    sudo ./bootwire api http://127.0.0.1:8000

Nothing but the standard library. Pixiecore asks it just as well: what Bootwire tells beyond the MAC is optional.
"""

from __future__ import annotations

import http.server
import json
import sys
import urllib.parse

MACHINES = {
    "52:54:00:12:34:56": {
        "kernel": "https://deb.debian.org/debian/dists/stable/main/installer-amd64/current/images/netboot/"
        "debian-installer/amd64/linux",
        "initrd": [
            "https://deb.debian.org/debian/dists/stable/main/installer-amd64/current/images/netboot/"
            "debian-installer/amd64/initrd.gz"
        ],
        "cmdline": 'auto=true url={{ URL "http://127.0.0.1:8000/preseed.cfg" }} console=ttyS0',
        "message": "Installing Debian",
    },
    "52:54:00:12:34:57": {"local": True, "because": "it is installed already"},
}
ARM64 = {"kernel": "file:///srv/arm64/Image", "cmdline": "console=ttyAMA0"}


class Service(http.server.BaseHTTPRequestHandler):
    """GET /v1/boot/MAC?arch=…&stage=…: 200 with JSON boots it, 404 leaves it alone."""

    def do_GET(self) -> None:
        """Answer one question."""
        path, _, query = self.path.partition("?")
        said = dict(urllib.parse.parse_qsl(query))
        if path == "/preseed.cfg":
            return self.say(200, b"d-i debian-installer/locale string en_US\n", "text/plain")
        answer = MACHINES.get(path.removeprefix("/v1/boot/").lower())
        if answer is None and said.get("arch") == "arm64":
            answer = ARM64
        if answer is None:
            return self.say(404, b"not one of ours\n", "text/plain")
        return self.say(200, json.dumps(answer).encode(), "application/json")

    def say(self, status: int, body: bytes, media_type: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    address, port = sys.argv[1:3]
    http.server.ThreadingHTTPServer((address, int(port)), Service).serve_forever()
