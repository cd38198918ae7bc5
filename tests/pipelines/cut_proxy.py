"""A bad line: passes bytes on to a server, until it is cut for some seconds."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit


class CutProxy:
    """Listens on a port of its own while in a `with`.

    Attributes:
        url: Where it listens.
        num_cut: Connections that were cut.
    """

    def __init__(self, url):
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.num_cut = 0
        self._pairs = []
        self._is_cut = False

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._listener.close()
        self.cut(0)

    def cut(self, seconds):
        """End all connections, and refuse new ones for some time."""
        self._is_cut = True
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            self.num_cut += self._end(pair)
        time.sleep(seconds)
        self._is_cut = False

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            if self._is_cut:
                client.close()
                continue
            try:
                pair = (client, socket.create_connection(self._server))
            except OSError:  # no server any more
                client.close()
                continue
            self._pairs.append(pair)
            for source, target in (pair, pair[::-1]):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source, target):
        with suppress(OSError):
            while part := source.recv(65536):
                target.sendall(part)
        self._end((source, target))

    @staticmethod
    def _end(pair):
        """Close both sides; whether they were open."""
        was_open = pair[0].fileno() >= 0
        for side in pair:
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()
        return was_open
