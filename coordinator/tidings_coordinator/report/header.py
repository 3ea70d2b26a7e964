"""The head of a run's page: what was run, the verdict, the key figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidings_coordinator.records.reading import Run, metric_order
from tidings_coordinator.report import wording

_LAUNCHERS = {"local": "local processes", "simulator": "simulated on virtual time"}


@dataclass(frozen=True)
class Verdict:
    """One of the three parts of a verdict; ``level`` is good, warn or bad."""

    about: str
    says: str
    level: str


@dataclass(frozen=True)
class Figure:
    """A key figure."""

    label: str
    value: str
    note: str = ""


def one_line(run: Run) -> list[str]:
    """Protocol, problem, topology, network and launcher in a few words each."""
    parts = []
    if protocol := run.at("protocol"):
        parts.append(_member(protocol))
    if problem := run.at("problem", "kind"):
        model = run.at("problem", "model")
        parts.append(f"{problem} ({model})" if isinstance(model, str) else str(problem))
    if run.node_count:
        parts.append(f"{run.at('topology', 'kind') or 'graph'} of {run.node_count} nodes")
    if network := run.at("network"):
        parts.append(_network(network))
    if run.byzantine:
        attack = run.at("byzantine", "attack", "kind")
        parts.append(f"{len(run.byzantine)} Byzantine" + (f" ({attack})" if attack else ""))
    if launcher := run.at("launcher", "kind"):
        parts.append(_LAUNCHERS.get(launcher, str(launcher)))
    if (seed := run.at("seed")) is not None:
        parts.append(f"seed {seed}")
    return parts


def _member(chosen: Mapping[str, Any]) -> str:
    """'choco_sgd (lr 0.05, gamma 0.3, compressor top_k)'."""
    words = []
    for key, value in chosen.items():
        if isinstance(value, Mapping):
            value = value.get("kind")
        if key != "kind" and value is not None and not isinstance(value, list):
            words.append(f"{key} {value}")
    listed = ", ".join(words[:4])
    return f"{chosen.get('kind')} ({listed})" if words else str(chosen.get("kind"))


def _network(network: Mapping[str, Any]) -> str:
    asked = [network.get("rate"), network.get("delay")]
    words = [str(value) for value in asked if value not in (None, "unlimited", "0s")]
    if network.get("jitter") not in (None, "0s"):
        words.append(f"±{network['jitter']}")
    if network.get("loss") not in (None, "0%"):
        words.append(f"{network['loss']} loss")
    text = " ".join(words) or "links without limits"
    return text + (", some links differ" if network.get("links") or network.get("nics") else "")


# -- verdict -----------------------------------------------------------------------------------


def verdicts(run: Run) -> list[Verdict]:
    """Run, faults and network."""
    if run.result is None:
        return [Verdict("Run", "interrupted", "bad"), *_unjudged(run)]
    found = run.result
    levels = {"completed": "good", "aborted": "warn"}
    of_run = Verdict("Run", str(found["run"]), levels.get(found["run"], "bad"))
    if not run.at("faults"):
        faults = Verdict("Faults", "none asked for", "good")
    else:
        applied = {"all": "all as asked", "partial": "NOT all as asked", "none": "NOT applied"}
        says = applied.get(found["faults"], str(found["faults"]))
        faults = Verdict("Faults", says, "good" if found["faults"] == "all" else "bad")
    # runs from before there were other checks have the network's verdict there
    network = str((found.get("fidelity") or {}).get("verdict", found["checks"]))
    return [of_run, faults, _of_network(run, network), *_of_checks(found.get("expect") or ())]


def _of_checks(judged: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Nothing where nothing was expected."""
    if not judged:
        return []
    counts = Counter(check["verdict"] for check in judged)
    words = [f"{counts[v]} {v}" for v in ("pass", "fail", "unknown") if counts[v]]
    level = "bad" if counts["fail"] else "warn" if counts["unknown"] else "good"
    return [Verdict("Checks", ", ".join(words), level)]


def _of_network(run: Run, verdict: str) -> Verdict:
    if verdict == "fail":
        return Verdict("Network", "NOT as asked for", "bad")
    if run.simulated:
        return Verdict("Network", "simulated", "good")
    if verdict == "pass":
        return Verdict("Network", "as asked for", "good")
    return Verdict("Network", "not measured", "warn")


def _unjudged(run: Run) -> list[Verdict]:
    if run.fidelity and run.fidelity.get("verdict") == "fail":
        return [_of_network(run, "fail")]
    return [] if run.simulated else [Verdict("Network", "not judged", "warn")]


def banners(run: Run) -> list[tuple[str, str, list[str], str]]:
    """What nobody may overlook: (level, headline, problems, explanation)."""
    found = []
    if any(v.about == "Network" and v.level == "bad" for v in verdicts(run)):
        found.append(
            (
                "bad",
                "Invalid: the network was not what was asked for",
                problems(run),
                "What was learned may be right. Bytes may be right. Times are not those of the "
                "network in the experiment file.",
            )
        )
    if run.result is None:
        explanation = (
            "There is no result.json: the run was broken off before it could be summed up. "
            "What follows was written down until then."
        )
        found.append(("bad", "Interrupted", [], explanation))
    elif run.result["run"] != "completed":
        level = "warn" if run.result["run"] == "aborted" else "bad"
        reason = str(run.result["reason"] or "no reason is recorded")
        found.append((level, str(run.result["run"]).capitalize(), [reason], ""))
    return found


def problems(run: Run) -> list[str]:
    """What is wrong with the network, in plain words."""
    of_result = ((run.result or {}).get("fidelity") or {}).get("problems")
    return [str(text) for text in (run.fidelity or {}).get("problems") or of_result or ()]


# -- key figures -------------------------------------------------------------------------------


def key_figures(run: Run) -> list[Figure]:
    """Accuracy, loss, cost and agreement, as far as they are known."""
    last, found = run.last, run.result or {}
    figures = []
    metrics = last.metrics if last else {}
    for name in sorted(metrics, key=metric_order)[:2]:
        spread = metrics[name]
        low, high = wording.metric(name, spread.low), wording.metric(name, spread.high)
        note = f"{low} to {high} over nodes" if low != high else ""
        note = note if wording.known(spread.mean) else "not a finite number"
        figures.append(Figure(name, wording.metric(name, spread.mean), note))
    total = sum(node["total"] for node in run.sent().values())
    if last or run.links:
        note = "all nodes, every kind" if run.closed else "as far as it was recorded"
        figures.append(Figure("bytes sent", wording.size(total), note))
    time_s = found.get("time_s", last.time_s if last else None)
    time_note = "virtual time" if run.simulated else _scale_note(run)
    if time_s is not None:
        figures.append(Figure("emulated time", wording.seconds(time_s), time_note))
    if "wall_s" in found:
        figures.append(Figure("wall time", wording.seconds(found["wall_s"]), "with start and end"))
    if last:
        label = "rounds" if run.synchronous else "local steps"
        note = "" if run.synchronous else "mean over nodes"
        figures.append(Figure(label, wording.count(last.round), note))
        mean_size = f"{wording.size(total / run.messages)} on average" if run.messages else ""
        figures.append(Figure("messages", wording.count(run.messages), mean_size))
        distance = wording.number(last.consensus_distance)
        figures.append(Figure("consensus distance", distance, "mean squared, at the end"))
    return figures


def _scale_note(run: Run) -> str:
    scale = run.at("network", "time_scale")
    return f"1 s took {scale:g} s" if wording.known(scale) and scale != 1 else ""
