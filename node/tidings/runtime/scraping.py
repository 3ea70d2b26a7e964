"""A small HTTP server for Prometheus, which knows which scrapes have been answered whole."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

#: a client that says nothing for so long is hung up on
_CLIENT_S = 10.0


class Scrapes:
    """Counts scrapes. They are numbered from 1 in the order in which they begin."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: how many have begun
        self.begun = 0
        #: the highest number that was answered to the last byte; 0 for none
        self.served = 0

    def begin(self) -> int:
        """A scrape begins: nothing has been collected for it yet; its number."""
        with self._lock:
            self.begun += 1
            return self.begun

    def end(self, number: int) -> None:
        """Its answer was written out."""
        with self._lock:
            self.served = max(self.served, number)


class QuietHandler(BaseHTTPRequestHandler):
    """Writes whole answers; who connects and says nothing is hung up on."""

    timeout = _CLIENT_S

    def answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        """Write an answer of a content type."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def answer_scrape(self, registry: CollectorRegistry, scrapes: Scrapes) -> None:
        """Write all metrics, in the format that the client likes best."""
        number = scrapes.begin()
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        self.answer(200, kind, encode(registry))
        scrapes.end(number)

    def log_message(self, *arguments: object) -> None:
        """Scrapes are not news."""


class QuietServer(ThreadingHTTPServer):
    """One thread a client. Clients that hang up are not news either."""

    daemon_threads = True
    # a client that does not read must not keep the process from ending
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections; anything else shows up in what the client gets."""


def serve_metrics(registry: CollectorRegistry, scrapes: Scrapes, host: str, port: int) -> int:
    """Serve ``/metrics`` for as long as the process lives; the port, by default any free one.

    OSError where that port is taken.
    """

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            if self.path.split("?")[0] == "/metrics":
                self.answer_scrape(registry, scrapes)
            else:
                self.answer(404, "text/plain", b"see /metrics\n")

    server = QuietServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="tidings-metrics", daemon=True).start()
    return int(server.server_address[1])
