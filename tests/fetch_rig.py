"""Servers that say exactly what they are told to, over the kernel's sockets or our own."""

from __future__ import annotations

import contextlib
import socket
import threading

from http_cases import END, SILENT


class Server:
    """Answers the connections it gets, each by `script(connection)` in a thread; over the kernel or our own stack.

    heads: every request head, as text.
    """

    def __init__(self, listener, host, script):
        self.heads: list[str] = []
        self.connections = 0
        self._listener, self._script = listener, script
        self.netloc = f"{host}:{listener.getsockname()[1]}"
        self.url = f"http://{self.netloc}"
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(20)
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), contextlib.closing(connection):
            self._script(self, connection)

    def head(self, connection):
        """The next request's head, "" at the end."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return ""
            head += data
        self.heads.append(head.decode())
        return head.decode()

    def close(self):
        if isinstance(self._listener, socket.socket):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


class Place:
    """A transport, and servers that it reaches. bind: makes a datagram socket on a port of the server's."""

    def __init__(self, transport, host, listen, bind=None):
        self.transport, self.host, self._listen, self.bind = transport, host, listen, bind
        self._servers: list[Server] = []

    def serve(self, script):
        self._servers.append(Server(self._listen(), self.host, script))
        return self._servers[-1]

    def says(self, *answers):
        """A server that answers one request after the other: octets, or several things in order."""
        todo = list(answers)

        def script(server, connection):
            while todo and server.head(connection):
                said = todo.pop(0)
                for part in said if isinstance(said, tuple) else (said,):
                    if part is END:
                        return
                    if part is SILENT:
                        while connection.recv(1000):
                            pass
                        return
                    connection.sendall(part)

        return self.serve(script)

    def close(self):
        for server in self._servers:
            server.close()
