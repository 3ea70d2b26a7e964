"""What a reproduction declares: a claim, the runs, what is measured, and what must hold of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tidings_coordinator.records.reading import Run

#: the runs that were made, by the label of their variant
Runs = Mapping[str, Run]
#: a row of the measured table: column -> text or number
Row = dict[str, str | float]


@dataclass(frozen=True)
class Variant:
    """One run: an experiment file in the reproduction's folder, and what is changed in it."""

    label: str
    #: ``key=value``, as for ``--set``
    settings: tuple[str, ...] = ()
    file: str = "experiment.yaml"


@dataclass(frozen=True)
class Check:
    """A property that the claim implies, and whether it was found."""

    text: str
    passed: bool


@dataclass(frozen=True)
class Panel:
    """One plot of the figure: an <svg> element, and what it shows."""

    title: str
    svg: str
    #: what its lines are, in the order of their series
    labels: tuple[str, ...] = ()
    #: these, where they are not 0, 1, 2, ...; from 8 on the same colours come again, dashed
    series: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reproduction:
    """One published claim. A module ``claim.py`` holds one as ``REPRODUCTION``.

    ``measure`` makes the table from the run directories, ``verdict`` looks at nothing but the
    table, so whoever reads the table can follow it. The claim is reproduced where all checks
    passed.
    """

    #: one line, as a heading
    title: str
    #: what the authors say, in our words
    claim: str
    #: who says it, and where
    source: str
    variants: Sequence[Variant]
    measure: Callable[[Runs], list[Row]]
    verdict: Callable[[Sequence[Row]], list[Check]]
    figure: Callable[[Runs], list[Panel]]
    #: where the runs are made: "simulator" for claims about rounds, bytes and virtual time, a real
    #: one for claims about seconds
    launcher: str = "simulator"
    #: what differs from the paper's own experiment, and what was not found
    remarks: str = ""
