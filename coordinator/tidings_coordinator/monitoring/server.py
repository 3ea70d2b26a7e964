"""The coordinator's web server: live page, its events, metrics, service discovery."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from tidings.errors import UserError
from tidings.runtime.scraping import QuietHandler, QuietServer, Scrapes
from tidings_coordinator.control.watch import RunView, Watcher
from tidings_coordinator.monitoring.discovery import Targets, document
from tidings_coordinator.monitoring.live import LiveRun
from tidings_coordinator.monitoring.metrics import RunMetrics
from tidings_coordinator.monitoring.page import page
from tidings_coordinator.planning import RunPlan

#: silence after which a comment is sent, to find out who has left
_SILENCE_S = 5.0
#: how long browsers may take to hear of the end
_GOODBYE_S = 0.5


class Monitor(Watcher):
    """Serves a run to browsers and Prometheus, by threads that the run never waits for.

    ``GET /`` the live page, ``/events`` its events, ``/metrics`` the coordinator's metrics, ``/sd``
    the targets of service discovery.
    """

    def __init__(self, run: RunPlan, parts: list[str]) -> None:
        self._run = run
        self._with_page = run.experiment.monitor.page
        self._server: QuietServer | None = None
        self._address = ""
        self._streams: set[threading.Thread] = set()
        self.live = LiveRun(run, parts)
        self.scrapes = Scrapes()
        self.registry = CollectorRegistry()
        self.registry.register(RunMetrics(run, self.live))
        #: where the nodes' metrics are
        self.targets: Targets = dict

    def serve(self, host: str, port: int) -> str:
        """Begin; the URL. UserError where the address is taken or not ours."""
        monitor = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                monitor.get(self)

        try:
            self._server = QuietServer((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"cannot serve the live page on {host}:{port}: {error}; "
                "choose another with monitor.host and monitor.port, or monitor.serve=false"
            ) from error
        threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="tidings-monitor", daemon=True
        ).start()
        self._address = f"{host}:{self._server.server_address[1]}"
        return f"http://{self._address}"

    def seen_from(self, host: str) -> str:
        """The URL of the targets for who sees this machine as ``host``; empty if there is none."""
        own, _, port = self._address.rpartition(":")
        return f"http://{host}:{port}/sd" if own in (host, "0.0.0.0") else ""

    # -- the run's side ------------------------------------------------------------------------

    def show(self, view: RunView) -> None:
        self.live.show(view)

    def say(self, text: str) -> None:
        self.live.say(text)

    def finish(self, result: Mapping[str, Any]) -> None:
        """The run has come to its result; stay for its last scrape, as long as nodes would."""
        self.live.finish(result)
        enough = self.scrapes.begun + 2
        if result["run"] == "aborted":
            return
        deadline = time.monotonic() + self._run.experiment.metrics.linger
        # Ctrl-C ends the waiting; the run has ended already
        with contextlib.suppress(KeyboardInterrupt):
            while self.scrapes.served < enough and time.monotonic() < deadline:
                time.sleep(0.05)

    def close(self) -> None:
        """Tell who watches, and stop serving."""
        self.live.close()
        deadline = time.monotonic() + _GOODBYE_S
        for thread in list(self._streams):
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    # -- the readers' side, each in a thread of its own ----------------------------------------

    def get(self, request: QuietHandler) -> None:
        """Answer a request."""
        path = request.path.split("?")[0]
        if path == "/metrics":
            request.answer_scrape(self.registry, self.scrapes)
        elif path == "/sd":
            request.answer(200, "application/json", self._discovery(request))
        elif path == "/" and self._with_page:
            body, policy = page(self._run.experiment.name)
            request.answer(200, "text/html; charset=utf-8", body, Content_Security_Policy=policy)
        elif path == "/events" and self._with_page:
            self._stream(request)
        else:
            known = b"see / /events /metrics /sd\n" if self._with_page else b"see /metrics /sd\n"
            request.answer(404, "text/plain", known)

    def _discovery(self, request: QuietHandler) -> bytes:
        # whoever asks has reached us, and the same way will do for scraping
        own = request.headers.get("Host") or self._address
        return json.dumps(document(self._run, self.targets(), own)).encode()

    def _stream(self, request: QuietHandler) -> None:
        client = self.live.hub.join()
        if client is None:
            request.answer(503, "text/plain", b"too many watch already\n")
            return
        self._streams.add(threading.current_thread())
        try:
            request.send_response(200)
            request.send_header("Content-Type", "text/event-stream")
            request.send_header("Cache-Control", "no-store")
            request.end_headers()
            while (message := client.next(_SILENCE_S)) is not None:
                request.wfile.write(message or b":\n\n")
        finally:
            self.live.hub.leave(client)
            self._streams.discard(threading.current_thread())
