"""An HTTP server that speaks enough of the Kubernetes API to run an experiment, for real.

It accepts, lists, watches and deletes the objects of a run, refuses invalid ones (422), strangers
(401) and what a test forbids (403), collects the garbage of deleted owners, makes pods for Jobs,
and runs their containers as processes (kube_node.py). What it is not: a cluster. There is no
scheduler, no network policy, no container; names are resolved by it and not by DNS.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from support.kube_node import NodeAgent
from support.kube_schemas import Invalid, Object, check
from support.kube_store import Refused, Store

TOKEN = "a-token-of-the-test"
_PATH = re.compile(
    r"/(?:api/v1|apis/[^/]+/[^/]+)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?P<sub>/log|/eviction)?$"
)
_VERBS = {"GET": "list", "POST": "create", "DELETE": "delete"}


class KubeApi:
    """The server, its store and its one machine; a context manager that leaves nothing behind."""

    namespace = "lab"

    def __init__(self, directory: Path) -> None:
        self.store = Store()
        self.machine = NodeAgent(self.store, directory / "pods")
        #: (verb, plural) that this user may not do
        self.forbidden: set[tuple[str, str]] = set()
        #: every request: verb, plural, name
        self.requests: list[tuple[str, str, str]] = []
        self.kubeconfig = directory / "kubeconfig"
        self._down = False
        self._server = self._listen(0)
        self.port = self._server.server_address[1]
        self._write_config()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.machine.close()
        self.store.close()
        self.stop()

    def stop(self) -> None:
        """Go down: nobody answers any more."""
        if not self._down:
            self._down = True
            self.store.hang_up()
            self._server.shutdown()
            self._server.server_close()

    def objects(self) -> list[str]:
        """All that there is, as kind/name."""
        return [f"{kind}/{name}" for kind, name in self.store.names()]

    def _listen(self, port: int) -> ThreadingHTTPServer:
        api = self

        class Handler(_Handler):
            owner = api

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def _write_config(self) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [
                {
                    "name": "test",
                    "context": {"cluster": "here", "user": "me", "namespace": self.namespace},
                }
            ],
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "me", "user": {"token": TOKEN}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: KubeApi

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *arguments: object) -> None:
        """Requests are kept in a list."""

    def _serve(self) -> None:
        try:
            self._route()
        except Refused as refused:
            status = {
                "kind": "Status", "apiVersion": "v1", "status": "Failure",
                "message": str(refused), "reason": refused.reason, "code": refused.code,
            }  # fmt: skip
            self._answer(status, refused.code)
        except OSError:
            # the client has hung up on a stream
            self.close_connection = True

    def _route(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused("Unauthorized", 401, "Unauthorized")
        found = _PATH.match(url.path)
        if found is None or found["namespace"] != self.owner.namespace:
            raise Refused("the server could not find the requested resource", 404, "NotFound")
        plural, name = found["plural"], found["name"] or ""
        verb = "watch" if query.get("watch") else _VERBS[self.command]
        if found["sub"]:
            verb = {"/log": "log", "/eviction": "evict"}[found["sub"]]
        self.owner.requests.append((verb, plural, name))
        if (verb, plural) in self.owner.forbidden:
            text = f'{plural} is forbidden: User "me" cannot {verb} resource "{plural}"'
            raise Refused(text, 403, "Forbidden")
        store = self.owner.store
        if verb == "create":
            self._answer(self._create(plural, body), 201)
        elif verb == "delete":
            store.delete(plural, name, body.get("gracePeriodSeconds"))
            self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        elif verb == "evict":
            self.owner.machine.evict(name, body["deleteOptions"]["gracePeriodSeconds"])
            self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"}, 201)
        elif verb == "watch":
            self._stream(store.watch(plural, query))
        elif verb == "log":
            follow = query.get("follow") == "true"
            self._stream(self.owner.machine.log(name, follow, query), chunked=follow)
        else:
            self._answer(store.list(plural, query.get("labelSelector", "")))

    def _create(self, plural: str, manifest: Object) -> Object:
        store = self.owner.store
        if store.plural(manifest.get("kind", "")) != plural:
            raise Refused(f"this is no place for a {manifest.get('kind')}", 400, "BadRequest")
        given = {"namespace": self.owner.namespace}
        manifest["metadata"] = given | manifest["metadata"]
        try:
            check(manifest)
        except Invalid as invalid:
            name = manifest["metadata"].get("name")
            text = f'{manifest["kind"]} "{name}" is invalid: {invalid}'
            raise Refused(text, 422, "Invalid") from invalid
        stamps = {"uid": str(uuid.uuid4()), "creationTimestamp": _now()}
        made = copy.deepcopy(manifest)
        made["metadata"] |= stamps
        return store.create(made)

    def _answer(self, data: Object, code: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, lines: Any, chunked: bool = True) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in lines:
            data = line.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
