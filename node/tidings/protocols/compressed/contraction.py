"""The contraction of a compressor, for protocols whose theory rests on it."""

from __future__ import annotations

from tidings.api import Compressor, LocalProblem, Protocol


def require_contraction(protocol: Protocol, compressor: Compressor, problem: LocalProblem) -> float:
    """delta of ``compressor`` for models of this problem; ValueError where it has none."""
    delta = compressor.delta(problem.dim)
    if delta is None:
        raise ValueError(
            f"{protocol.kind} needs a contractive compressor, and {compressor.kind} is none for "
            f"{problem.dim} parameters: use {{kind: contraction, of: {compressor.kind}}}"
        )
    return delta
