"""Which cluster and as whom: kubeconfig files as kubectl reads them, and real TLS with them."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidings.errors import UserError
from tidings_coordinator.kubernetes.api import Api, ApiError
from tidings_coordinator.kubernetes.config import Cluster, find_cluster

pytestmark = pytest.mark.unit

PLUGIN = """
import json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["apiVersion"] == "client.authentication.k8s.io/v1", info
if sys.argv[1] == "fail":
    sys.exit("no such account")
status = {"token": os.environ["ACCOUNT"] + "-token"}
print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential", "status": status}))
"""


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kubeconfig but the test's."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def config(path: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "lab",
                "contexts": [
                    {"name": "lab", "context": {"cluster": "c", "user": "u", "namespace": "team"}},
                    {"name": "bare", "context": {"cluster": "c"}},
                ],
                "clusters": [{"name": "c", "cluster": cluster or {"server": "http://here:1"}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return path


def test_token_namespace_and_context(tmp_path: Path) -> None:
    file = str(config(tmp_path / "config", {"token": "abc"}))
    found = find_cluster(file)
    assert (found.server, found.namespace, found.bearer()) == ("http://here:1", "team", "abc")
    found = find_cluster(file, "bare", "mine")
    assert (found.namespace, found.bearer()) == ("mine", None)
    assert find_cluster(file, "bare").namespace == "default"


def test_the_environment_names_files_and_the_first_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = config(tmp_path / "first", {"token": "one"})
    second = config(tmp_path / "second", {"token": "two"})
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")
    assert find_cluster().bearer() == "one"
    home = tmp_path / "home" / ".kube"
    home.mkdir(parents=True)
    config(home / "config", {"token": "at home"})
    monkeypatch.delenv("KUBECONFIG")
    assert find_cluster().bearer() == "at home"


def test_token_files_are_read_anew(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old\n")
    found = find_cluster(str(config(tmp_path / "config", {"tokenFile": "token"})))
    assert found.bearer() == "old"
    (tmp_path / "token").write_text("new\n")
    assert found.bearer() == "new"


def test_credential_plugins(tmp_path: Path) -> None:
    def user(word: str) -> dict[str, Any]:
        return {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": sys.executable,
                "args": ["-c", PLUGIN, word],
                "env": [{"name": "ACCOUNT", "value": "ada"}],
            }
        }

    assert find_cluster(str(config(tmp_path / "good", user("ok")))).bearer() == "ada-token"
    with pytest.raises(UserError, match="failed: no such account"):
        find_cluster(str(config(tmp_path / "bad", user("fail"))))
    with pytest.raises(UserError, match="gave no token"):
        find_cluster(str(config(tmp_path / "none", {"exec": {"command": "/nowhere/plugin"}})))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "cannot read"),
        ("- 1", "is no kubeconfig file"),
        ("current-context: lab", "has no context 'lab'"),
        (
            "{current-context: a, contexts: [{name: a, context: {cluster: b}}]}",
            "has no cluster 'b'",
        ),
        (
            "{current-context: a, contexts: [{name: a, context: {cluster: b}}],"
            " clusters: [{name: b, cluster: {}}]}",
            "has no server",
        ),
        (
            "{current-context: a, contexts: [{name: a, context: {cluster: b}}], clusters:"
            " [{name: b, cluster: {server: 'https://x', certificate-authority: nope}}]}",
            "cannot be used",
        ),
    ],
)
def test_broken_files_are_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(UserError, match=says):
        find_cluster(str(tmp_path / "config"))


def test_no_cluster_at_all() -> None:
    with pytest.raises(UserError, match="no Kubernetes cluster is known"):
        find_cluster()


# -- TLS -------------------------------------------------------------------------------------------


def pair(directory: Path, name: str, *options: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", str(key),
            "-out", str(certificate), *options,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[int]:
    """A server that wants client certificates of 'me'; its port."""
    certificate, key = pair(tmp_path, "server", "-addext", "subjectAltName=IP:127.0.0.1")
    mine, _ = pair(tmp_path, "me")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"items": [], "path": self.path}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that are refused are the point."""

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.load_verify_locations(mine)
    tls.verify_mode = ssl.CERT_REQUIRED
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_certificates_in_files_and_inline(secure: int, tmp_path: Path) -> None:
    server = f"https://127.0.0.1:{secure}/clusters/7"
    files = {"client-certificate": "me.crt", "client-key": "me.key"}
    inline = {f"{name}-data": _data(tmp_path / file) for name, file in files.items()}
    for user, authority in (
        (files, {"certificate-authority": "server.crt"}),
        (inline, {"certificate-authority-data": _data(tmp_path / "server.crt")}),
        (files, {"insecure-skip-tls-verify": True}),
    ):
        found = find_cluster(str(config(tmp_path / "config", user, {"server": server} | authority)))
        path = Api(found).list("Pod", "a=b")["path"]
        assert path == "/clusters/7/api/v1/namespaces/team/pods?labelSelector=a%3Db"


def test_strangers_are_not_believed(secure: int, tmp_path: Path) -> None:
    server = f"https://127.0.0.1:{secure}"
    user = {"client-certificate": "me.crt", "client-key": "me.key"}
    for without in (
        find_cluster(str(config(tmp_path / "a", user, {"server": server}))),
        find_cluster(
            str(
                config(
                    tmp_path / "b", {}, {"server": server, "certificate-authority": "server.crt"}
                )
            )
        ),
    ):
        with pytest.raises(ApiError, match="cannot reach the Kubernetes API at https"):
            Api(without).list("Pod", "")


def test_what_answers_is_no_api(tmp_path: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            cluster = Cluster(f"http://127.0.0.1:{server.server_address[1]}", "x", None)
            with pytest.raises(ApiError, match="is no Kubernetes API server"):
                Api(cluster).list("Pod", "")
        finally:
            server.shutdown()
            thread.join()
