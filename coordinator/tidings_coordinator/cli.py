"""``tidings``: the command line.

Exit codes: 0 the run completed over the network and under the faults that were asked for, and every
check of ``expect`` passed (for other commands: done); 1 a run failed or its network was not what
was asked for; 2 the request cannot be carried out as it stands, and nothing was started; 3 a check
failed or could not be judged; 4 a fault was not applied as asked; 130 aborted by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from tidings_coordinator.experiment.load import load
from tidings_coordinator.judging import told
from tidings_coordinator.planning import plan
from tidings_coordinator.showing import code_of, run_one, see_through, write_report

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A testbed for distributed learning over real networks.",
)

P = ParamSpec("P")

File = Annotated[Path, typer.Argument(help="the experiment file", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="change a key of the file; repeatable"),
]
Out = Annotated[Path | None, typer.Option("--out", help="the run directory, to be made")]
LauncherName = Annotated[
    str | None,
    typer.Option("--launcher", metavar="KIND", help="run it there instead of where the file says"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress display")]


def _reported(command: Callable[P, None]) -> Callable[P, None]:
    """Tell the user of errors that are part of the contract in one message, not a traceback."""

    @wraps(command)
    def wrapper(*arguments: P.args, **options: P.kwargs) -> None:
        def work() -> int:
            command(*arguments, **options)
            return 0

        if code := code_of(work):
            raise typer.Exit(code)

    return wrapper


@app.command()
@_reported
def run(
    file: File,
    overrides: Overrides = None,
    launcher: LauncherName = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Run an experiment with the launcher that the file names, and write its report."""
    outcome = run_one(load(file, _settings(overrides, launcher)), file, out, quiet)
    raise typer.Exit(outcome.exit_code)


@app.command()
@_reported
def simulate(
    file: File,
    overrides: Overrides = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Run an experiment on virtual time: same file, same protocol code, no network."""
    experiment = load(file, _settings(overrides, "simulator"))
    outcome = run_one(experiment, file, out, quiet)
    raise typer.Exit(outcome.exit_code)


@app.command()
@_reported
def resume(
    directory: Annotated[Path, typer.Argument(help="the run directory of an interrupted run")],
    quiet: Quiet = False,
) -> None:
    """Go on with an interrupted run from its checkpoints, into the same directory."""
    from tidings_coordinator.resuming import resume as go_on

    raise typer.Exit(see_through(go_on, directory, quiet))


@app.command()
@_reported
def adopt(
    directory: Annotated[Path, typer.Argument(help="the run directory of a killed coordinator")],
    quiet: Quiet = False,
) -> None:
    """Take over the nodes of a run whose coordinator was killed, and see it to its end."""
    from tidings_coordinator.adopting import adopt as take_over

    raise typer.Exit(see_through(take_over, directory, quiet))


@app.command()
@_reported
def replay(
    directory: Annotated[Path, typer.Argument(help="a run directory, with records.order")],
) -> None:
    """Do a real run again on virtual time, everything in its turn; compare the weights.

    Exit code 3 where they are not the same.
    """
    from tidings_coordinator.replaying import replay as again

    found = again(directory)
    if found.differ:
        nodes = ", ".join(map(str, found.differ))
        print(f"not the same: the weights of nodes {nodes} differ")
        raise typer.Exit(3)
    print(f"the same: {len(found.recorded)} nodes end with the weights that they had")


@app.command()
@_reported
def render(
    file: File,
    overrides: Overrides = None,
    instance: Annotated[
        str, typer.Option(help="the label of its objects; runs side by side need different ones")
    ] = "tidings",
    out: Annotated[
        Path | None, typer.Option("--out", help="a directory to be made, for kubectl apply -k")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="only objects of this kind; Secret: new ones for kept manifests")
    ] = "",
) -> None:
    """Print the Kubernetes manifests of an experiment, for kubectl apply -f -."""
    from tidings_coordinator.kubernetes.kustomize import manifests, only, write

    objects = manifests(load(file, _settings(overrides, "kubernetes")), instance)
    write(only(kind, objects), out)


@app.command()
@_reported
def coordinate(
    file: File,
    run_id: Annotated[str, typer.Option("--run", help="the run's id; made up if not given")] = "",
    out: Annotated[Path, typer.Option("--out", help="the run directory, to be made")] = Path("run"),
) -> None:
    """Run an experiment in a container: progress and the run directory go to the log."""
    from tidings_coordinator.kubernetes.pod import coordinate as run_and_ship

    raise typer.Exit(run_and_ship(file, run_id, out))


@app.command()
@_reported
def ship(directory: Annotated[Path, typer.Argument(help="a run directory")]) -> None:
    """Write a run directory to standard output as lines that 'tidings collect' understands."""
    from tidings_coordinator.kubernetes.pod import ship as write_lines

    write_lines(directory)


@app.command()
@_reported
def collect(
    directory: Annotated[Path, typer.Argument(help="the run directory, to be made")],
) -> None:
    """Take a run directory out of a coordinator's log: kubectl logs JOB | tidings collect DIR."""
    from tidings_coordinator.kubernetes.pod import collect as take

    take(sys.stdin, directory)
    write_report(directory)


def _settings(overrides: Sequence[str] | None, launcher: str | None) -> list[str]:
    """What is changed in the file: the launcher first, so that --set can add to it."""
    return [*([] if launcher is None else [f"launcher={launcher}"]), *(overrides or ())]


@app.command()
@_reported
def check(file: File, overrides: Overrides = None, launcher: LauncherName = None) -> None:
    """Validate an experiment and print what it resolves to; start nothing.

    Refuses what 'run' would refuse: what the launcher cannot do, and what this machine lacks.
    """
    from tidings_coordinator.checking import describe, refuse

    run = plan(load(file, _settings(overrides, launcher)), "check")
    print(describe(run), flush=True)
    refuse(run)


@app.command()
@_reported
def sweep(
    file: File,
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option(help="runs per setting, with consecutive seeds")] = 1,
    launcher: LauncherName = None,
    out: Out = None,
    simulated: Annotated[bool, typer.Option("--simulate", help="on virtual time")] = False,
    quiet: Quiet = False,
) -> None:
    """Run every combination of comma-separated values, and compare them.

    --set protocol.kind=d_psgd,choco_sgd --set network.rate=10Mbit,100Mbit --seeds 3: 12 runs.
    """
    from tidings_coordinator.sweeping import sweep as run_sweep

    fixed = _settings(None, "simulator" if simulated else launcher)
    directory, runs, worst = run_sweep(
        file, fixed, overrides or [], seeds, out, lambda e, f, o: run_one(e, f, o, quiet)
    )
    _write_comparison(runs, directory)
    raise typer.Exit(worst)


@app.command()
@_reported
def reproduce(
    name: Annotated[str, typer.Argument(help="the reproduction, a folder of reproductions/")] = "",
    launcher: LauncherName = None,
    out: Out = None,
    root: Annotated[Path, typer.Option("--root", help="where they are")] = Path("reproductions"),
    listed: Annotated[bool, typer.Option("--list", help="only say which there are")] = False,
    quiet: Quiet = False,
) -> None:
    """Show a published claim: make its runs, print claim, measurement and verdict.

    Writes measured.json and figure.svg beside the claim; exit code 1 where it was not reproduced.
    """
    from tidings_coordinator.reproducing import carrying_out

    if listed or not name:
        for known in carrying_out.names(root):
            print(f"{known:32}{carrying_out.declared(root, known).title}")
        return
    found = carrying_out.reproduce(
        root, name, launcher, out, lambda e, f, o: run_one(e, f, o, quiet, report=False)
    )
    print(carrying_out.summary(carrying_out.declared(root, name), found))
    raise typer.Exit(0 if found.reproduced else 1)


@app.command()
@_reported
def compare(
    directories: Annotated[list[Path], typer.Argument(help="run directories")],
    out: Annotated[Path, typer.Option("--out", help="where to write it")] = Path("comparison"),
) -> None:
    """Overlay runs: accuracy against bytes, seconds and rounds, and the cost to target."""
    _write_comparison(directories, out)


def _write_comparison(directories: list[Path], out: Path) -> None:
    from tidings_coordinator.report.comparison import compare as compare_runs

    table, page = compare_runs(directories, out)
    print(table)
    print(f"comparison: {page}")


@app.command()
@_reported
def report(
    directory: Annotated[Path, typer.Argument(help="a run directory")],
    out: Annotated[Path | None, typer.Option("--out", help="the page, if not in there")] = None,
) -> None:
    """Write the report of a run, and its trace.json, again, also of one that was broken off."""
    from tidings_coordinator.report import page
    from tidings_coordinator.report.trace import write_trace

    print(f"report: {page.write_report(directory, out)}")
    write_trace(directory, None if out is None else out.with_name("trace.json"))


@app.command()
@_reported
def judge(
    directory: Annotated[Path, typer.Argument(help="a run directory")],
    expect: Annotated[
        Path | None, typer.Option("--expect", help="a file whose `expect` is judged instead")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Judge an old run again by its checks, or by those of another file."""
    from tidings_coordinator.judging import judge as judge_run

    judged = judge_run(directory, expect)
    print(json.dumps(judged, indent=1) if as_json else "\n".join(told(judged)))
    raise typer.Exit(0 if all(each["verdict"] == "pass" for each in judged) else 3)


@app.command("list")
@_reported
def list_(
    family: Annotated[str, typer.Argument(help="protocols, compressors, topologies, ...")],
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """What an experiment file can choose from."""
    from tidings_coordinator.experiment.listing import listing, text

    members = listing(family)
    print(json.dumps(members, indent=1) if as_json else text(members))


@app.command()
@_reported
def reap(
    dry: Annotated[bool, typer.Option("--dry-run", help="only list it")] = False,
) -> None:
    """Remove what killed runs have left on this machine: namespaces, bridges, containers."""
    from tidings_coordinator.launchers.reaping import reap as reap_all

    reap_all(dry, print)


@app.command()
@_reported
def schema() -> None:
    """Print the JSON Schema of the experiment file, for editors."""
    from tidings_coordinator.experiment.schema import schema as make

    print(json.dumps(make(), indent=1))


def main() -> None:
    """Entry point."""
    # gRPC reports errors that it also raises, in its own words
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


if __name__ == "__main__":
    main()
