"""A Slurm of two machines on this one: real munge, slurmctld and two slurmd, in a directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.runs import free_ports

_PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch")
_DEADLINE_S = 60.0
#: sbatch --wait lasts as long as the job
_COMMAND_S = 180.0

_CONF = """\
ClusterName=tidings
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.sock
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=20
SchedulerParameters=sched_interval=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def cluster(directory: Path) -> Iterator[Mapping[str, str]]:
    """The environment in which srun and sbatch find it; all daemons are gone afterwards."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"Slurm on one machine needs root and {', '.join(missing or _PROGRAMS)}")
    for name in ("state", "spool-n1", "spool-n2"):
        (directory / name).mkdir()
    key = directory / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    conf = directory / "slurm.conf"
    conf.write_text(
        _CONF.format(host=socket.gethostname(), directory=directory, ports=free_ports(3))
    )
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    for name in ("socket=munge.sock", "pid-file=munge.pid", "log-file=munge.log"):
        option, _, file = name.partition("=")
        munge.append(f"--{option}={directory / file}")
    munge.append(f"--seed-file={directory / 'munge.seed'}")
    with ExitStack() as stack:
        stack.enter_context(_daemon(munge, environment, directory))
        _until(lambda: (directory / "munge.sock").exists())
        for command in (
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "n1"],
            ["slurmd", "-D", "-Nn2"],
        ):
            stack.enter_context(_daemon(command, environment, directory))
        _until(lambda: _idle(environment) == 2)
        yield environment
        slurm(environment, "scancel", "--user=root")
        # also those that are just ending: their daemons would wait for ours for ever
        _until(lambda: not slurm(environment, "squeue", "--noheader"))


def slurm(environment: Mapping[str, str], *command: str) -> str:
    """What a command of Slurm says."""
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_COMMAND_S, check=False
    )
    return done.stdout.strip()


@contextmanager
def _daemon(command: list[str], environment: Mapping[str, str], directory: Path) -> Iterator[None]:
    with (directory / f"{command[0]}.out").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _idle(environment: Mapping[str, str]) -> int:
    text = slurm(environment, "sinfo", "--noheader", "--states=idle", "--format=%D")
    return int(text) if text.isdecimal() else 0


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "Slurm does not come up"
        time.sleep(0.01)
