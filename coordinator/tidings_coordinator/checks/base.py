"""The family of checks: what a run is expected to have done."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from tidings.registry import Plugin, Registry

if TYPE_CHECKING:
    # the experiment's model has checks in it
    from tidings_coordinator.experiment.selectors import Resolver
    from tidings_coordinator.records.reading import Run

Verdict = Literal["pass", "fail", "unknown"]


@dataclass(frozen=True)
class Judged:
    """What a check came to. ``measured`` and ``asked`` are plain data for other tools."""

    verdict: Verdict
    measured: Any
    asked: Any
    #: one sentence for people
    text: str


@dataclass(frozen=True, kw_only=True)
class Check(Plugin):
    """What a run is expected to have done: ``expect: [{check: accuracy, ">=": 85%}]``.

    A check is a pure function of a run directory: `tidings judge DIR` judges an old run again. It
    passes, fails, or is unknown where the records do not tell.
    """

    registry: ClassVar[Registry[Check]]
    tag = "check"

    @abstractmethod
    def judge(self, run: Run) -> Judged:
        """Judge a run by what it has written down."""

    def resolved(self, resolver: Resolver, *path: str | int) -> Self:
        """The same with node names as numbers; ``path`` is where it stands, for mistakes."""
        return self

    @property
    def events(self) -> dict[str, str]:
        """Fault events that are referred to: the parameter's key, and the event's id."""
        return {}


checks: Registry[Check] = Registry("checks", "tidings_coordinator.checks")
Check.registry = checks


def unknown(text: str, asked: Any = None, measured: Any = None) -> Judged:
    """The records do not tell."""
    return Judged("unknown", measured, asked, text)


def judge_all(expected: tuple[Check, ...], run: Run) -> list[dict[str, Any]]:
    """``expect`` of result.json: each check with its verdict, in the order of the file."""
    return [{"check": check.kind} | asdict(_judge(check, run)) for check in expected]


def _judge(check: Check, run: Run) -> Judged:
    try:
        return check.judge(run)
    except (KeyError, TypeError, ValueError) as error:
        # records of a broken-off run, or of another version
        return unknown(f"the records cannot be read: {error!r}")
