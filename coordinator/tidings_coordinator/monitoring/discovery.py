"""Prometheus service discovery: where the nodes of a run can be scraped (http_sd)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tidings.errors import UserError
from tidings_coordinator.planning import RunPlan

#: metrics address by node, of those that serve
Targets = Callable[[], Mapping[int, str]]


class Discovery:
    """Serves ``GET /sd``: one target per node, labelled with run, node, role and protocol."""

    def __init__(self, run: RunPlan, targets: Targets) -> None:
        self._run = run
        self._targets = targets
        self._server: ThreadingHTTPServer | None = None

    def document(self) -> list[dict[str, object]]:
        """The targets as http_sd wants them."""
        run = self._run
        return [
            {
                "targets": [address],
                "labels": {
                    "run": run.run,
                    "experiment": run.experiment.name,
                    "node": str(node),
                    "role": run.roles[node],
                    "protocol": run.experiment.protocol.kind,
                },
            }
            for node, address in sorted(self._targets().items())
        ]

    def serve(self, host: str) -> str:
        """Serve on a free port; the URL. UserError for an address that is not ours."""
        document = self.document

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path.split("?")[0] == "/sd"
                body = json.dumps(document() if found else {"see": "/sd"}).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Scrapes are not news."""

        try:
            self._server = ThreadingHTTPServer((host, 0), Handler)
        except OSError as error:
            raise UserError(
                f"cannot listen on {host}: {error.strerror}; choose another with launcher.host"
            ) from error
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://{host}:{self._server.server_address[1]}/sd"

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
