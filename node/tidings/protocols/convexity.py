"""The constants of strongly convex problems, for protocols whose steps are made of them."""

from __future__ import annotations

from tidings.api import LocalProblem


def constants(
    protocol: str, problem: LocalProblem, mu: float | None, smoothness: float | None
) -> tuple[float, float]:
    """The constants given, or else the problem's own; ValueError where it knows none."""
    known = problem.constants
    if known is not None:
        mu, smoothness = mu or known.mu, smoothness or known.smoothness
    if mu is None or smoothness is None:
        raise ValueError(f"{protocol}: this problem does not know its mu and smoothness; give both")
    return mu, smoothness
