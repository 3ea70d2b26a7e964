"""Which cluster, and as whom: kubeconfig files, or the service account of the pod that we are in.

Client certificates, bearer tokens, token files and credential plug-ins (``exec``, v1 and v1beta1,
which is how the managed clusters log in). Nothing of it is written anywhere.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tidings.errors import UserError, nearest

_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EXEC_S = 60.0


@dataclass(frozen=True)
class Cluster:
    """How to reach an API server."""

    #: https://host:port, perhaps with a path
    server: str
    namespace: str
    tls: ssl.SSLContext | None
    token: str | None = None
    #: read anew for every request, for it is replaced now and then
    token_file: Path | None = None

    def bearer(self) -> str | None:
        """The token of the next request."""
        if self.token_file is not None:
            return self.token_file.read_text(encoding="utf-8").strip()
        return self.token


def find_cluster(kubeconfig: str = "", context: str = "", namespace: str = "") -> Cluster:
    """What the arguments, KUBECONFIG, ~/.kube/config or the pod's service account name.

    UserError where there is none, or it is broken.
    """
    named = kubeconfig or os.environ.get("KUBECONFIG", "")
    paths = [Path(name).expanduser() for name in named.split(os.pathsep) if name]
    default = Path("~/.kube/config").expanduser()
    if not paths and default.exists():
        paths = [default]
    if paths:
        return _from_files(paths, context, namespace)
    if (_POD / "token").exists() and "KUBERNETES_SERVICE_HOST" in os.environ:
        return _from_pod(namespace)
    raise UserError(
        "no Kubernetes cluster is known: there is no ~/.kube/config, KUBECONFIG is not set, "
        "and this is no pod; or render the manifests with 'tidings render'"
    )


def _from_pod(namespace: str) -> Cluster:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    own = (_POD / "namespace").read_text(encoding="utf-8").strip()
    tls = ssl.create_default_context(cafile=str(_POD / "ca.crt"))
    host = f"[{host}]" if ":" in host else host
    server = f"https://{host}:{port}"
    return Cluster(server, namespace or own, tls, token_file=_POD / "token")


def _from_files(paths: list[Path], context_name: str, namespace: str) -> Cluster:
    found: dict[str, dict[str, Any]] = {"clusters": {}, "users": {}, "contexts": {}}
    current = context_name
    for path in paths:
        data = _read(path)
        current = current or str(data.get("current-context") or "")
        for family, members in found.items():
            for entry in data.get(family) or ():
                # the first file that says something wins, as kubectl has it
                value = entry.get(family.removesuffix("s")) or {}
                members.setdefault(str(entry.get("name")), (path.parent, value))
    _, context = _member(found["contexts"], current, "context", paths)
    base, cluster = _member(found["clusters"], str(context.get("cluster")), "cluster", paths)
    user_base, user = (
        _member(found["users"], str(context["user"]), "user", paths)
        if context.get("user")
        else (base, {})
    )
    if not cluster.get("server"):
        raise UserError(f"the cluster of context '{current}' has no server; see {paths[0]}")
    try:
        return _cluster(cluster, base, user, user_base, namespace or context.get("namespace"))
    except (OSError, ssl.SSLError, binascii.Error, UnicodeDecodeError) as error:
        raise UserError(f"context '{current}' of {paths[0]} cannot be used: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} is no kubeconfig file")
    return data


def _member(members: Mapping[str, Any], name: str, what: str, paths: list[Path]) -> Any:
    if name not in members:
        raise UserError(f"{paths[0]} has no {what} '{name}'; {nearest(name, members)}")
    return members[name]


def _cluster(
    cluster: Mapping[str, Any],
    base: Path,
    user: Mapping[str, Any],
    user_base: Path,
    namespace: str | None,
) -> Cluster:
    credentials = _credentials(user)
    server = str(cluster["server"]).rstrip("/")
    tls: ssl.SSLContext | None = None
    if server.startswith("https://"):
        tls = _trust(cluster, base)
        certificate = _text(user, user_base, "client-certificate")
        key = _text(user, user_base, "client-key")
        if "clientCertificateData" in credentials:
            certificate = credentials["clientCertificateData"]
            key = credentials["clientKeyData"]
        if certificate and key:
            _load(tls, certificate, key)
    file = user.get("tokenFile")
    return Cluster(
        server,
        namespace or "default",
        tls,
        credentials.get("token") or user.get("token"),
        user_base / file if file else None,
    )


def _trust(cluster: Mapping[str, Any], base: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(cadata=_text(cluster, base, "certificate-authority"))
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


def _text(entry: Mapping[str, Any], base: Path, name: str) -> str | None:
    """A PEM text that is given in the file itself, or as the name of another one."""
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(data).decode()
    if file := entry.get(name):
        return (base / str(file)).read_text(encoding="utf-8")
    return None


def _load(tls: ssl.SSLContext, certificate: str, key: str) -> None:
    """``load_cert_chain`` reads files only: one that none else can read, and that is gone again."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{certificate}\n{key}\n")
        file.flush()
        tls.load_cert_chain(file.name)


def _credentials(user: Mapping[str, Any]) -> dict[str, str]:
    """What the user's credential plug-in says; empty where there is none."""
    plugin = user.get("exec")
    if not plugin:
        return {}
    command = [str(plugin["command"]), *map(str, plugin.get("args") or ())]
    version = str(plugin.get("apiVersion"))
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    own = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or ()}
    environment = os.environ | own | {"KUBERNETES_EXEC_INFO": json.dumps(info)}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=_EXEC_S, check=True
        )
        return dict(json.loads(done.stdout)["status"])
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise UserError(f"the credential plug-in {command[0]} failed: {said}") from error
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the credential plug-in {command[0]} gave no token: {error}") from error
