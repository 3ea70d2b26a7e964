"""Whole runs under TLS, with strangers at every door."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from support.runs import (
    DEADLINE_S,
    SMALL,
    command,
    descendants,
    finish,
    lines,
    listening_ports,
    node,
    node_processes,
    result,
    started,
    tidings,
    wait_for_event,
    wait_until_gone,
)
from support.strangers import EVERYBODY, SlowLoris
from support.warm import Command, Process

from tidings.runtime.enrolment import ENROL, TOKEN, make_request
from tidings.transports.credentials import COORDINATOR
from tidings.v1 import control_pb2 as pb
from tidings_coordinator.control.authority import Authority

pytestmark = pytest.mark.process

TLS = ["--set", "security.tls=always"]
EXTERNAL = [*TLS, "--launcher", "external", "--set", "launcher.port=0"]
#: long enough for strangers to be heard, whatever else the machine does
LONG = ["--set", "stop.rounds=800", "--set", "network.delay=15ms", "--set", "evaluate.every=400"]
LORISES = 25


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def simulated(file: Path, *setting: str) -> list[str]:
    """What the final weights must be."""
    out = file.parent / "simulated"
    done = tidings("simulate", str(file), "--out", str(out), "--quiet", *setting)
    assert done.returncode == 0, done.stderr
    assert result(out)["security"] == {"tls": False, "refused": {}}
    return result(out)["weights_sha256"]  # type: ignore[no-any-return]


def completed(run: Command, out: Path) -> None:
    """Wait for the run's end; whether its links kept time is a question for other tests."""
    _, text, err = finish(run)
    assert result(out)["run"] == "completed", text + err


def invitation(out: Path) -> dict[str, str]:
    """What join.env says."""
    text = (out / "join.env").read_text()
    return dict(line.split("=", 1) for line in text.splitlines())  # type: ignore[misc]


def enrol(
    environment: Mapping[str, str], number: int, token: str, csr: bytes
) -> tuple[grpc.StatusCode, str]:
    """Ask for a seat by hand; how that is answered."""
    der = environment["TIDINGS_CA"]
    pem = f"-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n".encode()
    options = [("grpc.ssl_target_name_override", COORDINATOR)]
    credentials = grpc.ssl_channel_credentials(pem)
    address = environment["TIDINGS_COORDINATOR"]
    with grpc.secure_channel(address, credentials, options=options) as channel:
        method = channel.unary_unary(
            ENROL, pb.EnrolRequest.SerializeToString, pb.EnrolReply.FromString
        )
        try:
            method(pb.EnrolRequest(node=number, token=token, csr=csr), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            return error.code(), error.details()  # type: ignore[attr-defined]
        return grpc.StatusCode.OK, ""


def test_strangers_at_every_door_of_a_run(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    setting = [*LONG, *TLS, "--set", "metrics.serve=false", "--set", "monitor.serve=false"]
    knocked: Counter[int | None] = Counter()
    with started("run", str(file), "--out", str(out), "--quiet", *setting) as run:
        wait_for_event(out, "started")
        doors: list[tuple[int | None, int]] = [(None, port) for port in listening_ports(run.pid)]
        assert len(doors) == 2
        for number, pid in node_processes(out).items():
            doors += [(number, port) for port in listening_ports(pid)]
        assert len(doors) == 2 + 4
        with ExitStack() as stack:
            for owner, port in doors:
                stack.enter_context(SlowLoris(f"127.0.0.1:{port}", LORISES))
                knocked[owner] += LORISES
            pool = stack.enter_context(ThreadPoolExecutor(len(doors) * len(EVERYBODY)))
            knocks = [
                pool.submit(knock, f"127.0.0.1:{port}") for _, port in doors for knock in EVERYBODY
            ]
            knocked.update(owner for owner, _ in doors for _ in EVERYBODY)
            for each in knocks:
                each.result(DEADLINE_S)
            # all of that happened while the run went on
            assert [e["event"] for e in lines(out, "events")][-1] != "over"
            completed(run, out)
    assert result(out)["weights_sha256"] == simulated(file, *setting)
    assert result(out)["security"] == {"tls": True, "refused": {"unauthenticated": knocked[None]}}
    for line in lines(out, "nodes"):
        assert line["refused"] == {"unauthenticated": knocked[line["node"]]}, line["node"]


def test_only_the_runs_token_opens_and_only_once_a_seat(file: Path, tmp_path: Path) -> None:
    """Wrong and replayed tokens, two nodes for a seat, oversized and senseless requests."""
    out, small = tmp_path / "run", ["--set", "nodes=2", "--set", "topology=line"]
    denied, exhausted = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED
    with ExitStack() as stack:
        setting = [*small, *EXTERNAL, "--out", str(out)]
        run = stack.enter_context(started("run", str(file), *setting))
        wait_for_event(out, "launching")
        right = invitation(out)
        assert stat.S_IMODE((out / "join.env").stat().st_mode) == 0o600
        token, csr = right["TIDINGS_TOKEN"], make_request(0)[1]
        other = Authority()
        assert enrol(right, 0, other.token, csr)[0] == denied
        assert enrol(right, 0, "", csr)[0] == denied
        assert enrol(right, 2, token, csr)[0] == denied
        assert enrol(right, 0, token, os.urandom(400))[0] == denied
        # refused by their length, before anything is read of them
        assert enrol(right, 0, "x" * (1 << 20), csr)[0] == exhausted
        assert enrol(right, 0, token, b"\0" * (1 << 20))[0] == exhausted
        # whoever trusts another run's authority does not speak to this one
        assert (
            enrol(right | {"TIDINGS_CA": other.line}, 0, token, csr)[0]
            == grpc.StatusCode.UNAVAILABLE
        )
        logs = (tmp_path / f"{number}.log" for number in range(10))

        def joined(number: int, environment: Mapping[str, str]) -> Process:
            return node(stack, "--node", str(number), log=next(logs), join=environment)

        half = joined(0, {k: v for k, v in right.items() if k != TOKEN})
        # node 1 is there twice: the later one is refused
        zero, one, twin = (joined(i, right) for i in (0, 1, 1))
        wait_for_event(out, "connected")
        # all seats are taken: the right token is worth nothing any more
        for number in range(2):
            code, text = enrol(right, number, token, csr)
            assert (code, text) == (denied, f"node {number} has been admitted already")
        completed(run, out)
        assert half.wait(DEADLINE_S) == 2
        assert zero.wait(DEADLINE_S) == 0
        # a twin that comes when all is over finds nobody
        assert sorted([one.wait(DEADLINE_S), twin.wait(DEADLINE_S)]) == [0, 3]
    refused = Counter(result(out)["security"]["refused"])
    assert refused["seat_taken"] in (2, 3)
    refused["seat_taken"] = 2
    assert refused == Counter(
        wrong_token=2, no_such_seat=1, bad_request=1, seat_taken=2, unauthenticated=3
    )
    logged = Counter(e["reason"] for e in lines(out, "events") if e["event"] == "refused")
    assert logged["wrong_token"] == 2
    assert result(out)["weights_sha256"] == simulated(file, *small)
    assert not (out / "join.env").exists()
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert token.encode() not in everything
    assert b"PRIVATE KEY" not in everything


def test_secrets_are_in_no_arguments_and_gone_after_an_abort(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    setting = [*TLS, "--set", "stop={time: 600s}"]
    # with arguments of its own, which a forked command has not
    run = subprocess.Popen(command("run", str(file), "--out", str(out), "--quiet", *setting))
    try:
        wait_for_event(out, "started")
        below = descendants(run.pid)
        token = invitation(out)["TIDINGS_TOKEN"]
        assert len(below) == 5
        for pid in below | {run.pid}:
            assert token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        run.send_signal(signal.SIGINT)
        assert run.wait(DEADLINE_S) == 130
    finally:
        run.kill()
        run.wait()
    wait_until_gone(below)
    assert not (out / "join.env").exists()


# -- off loopback ----------------------------------------------------------------------------------

ADDRESS = "10.77.0.1"


@pytest.fixture
def elsewhere() -> list[str]:
    """A command prefix: a network of its own, that ends with the command, with a real address."""
    enter = ["unshare", "--net", "sh", "-c"]
    setup = f"ip link set lo up && ip addr add {ADDRESS}/32 dev lo"
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    if subprocess.run([*enter, setup], capture_output=True, check=False).returncode:
        pytest.skip("making a network namespace needs root")
    return [*enter, f'{setup} && exec "$@"', "sh"]


@pytest.mark.parametrize("choice", ["auto", "never"])
def test_off_loopback_tls_is_the_default_and_its_lack_is_said(
    file: Path, tmp_path: Path, elsewhere: list[str], choice: str
) -> None:
    out = tmp_path / "run"
    words = ["--set", f"launcher.host={ADDRESS}", "--set", f"security.tls={choice}"]
    done = subprocess.run(
        [*elsewhere, *command("run", str(file), "--out", str(out), *words)],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert result(out)["run"] == "completed", done.stderr
    on = choice == "auto"
    assert result(out)["security"] == {"tls": on, "refused": {}}
    assert f'"tls": {str(on).lower()}' in (out / "environment.json").read_text()
    warning = f"security.tls is off: whoever reaches {ADDRESS} can read"
    assert (warning in done.stderr) is not on
    launching, discovery = (wait_for_event(out, name)[0] for name in ("launching", "discovery"))
    assert re.fullmatch(rf"{re.escape(ADDRESS)}:\d+", launching["coordinator"])
    # what is for looking only stays on this machine
    assert discovery["url"].startswith("http://127.0.0.1:")
    assert result(out)["weights_sha256"] == simulated(file)
