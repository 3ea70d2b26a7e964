"""The one error for an experiment that cannot be read."""

from __future__ import annotations

from tidings.errors import UserError


class ExperimentError(UserError):
    """Everything that is wrong with an experiment, one line each: file, line, key, what is valid.

    >>> print(ExperimentError("q.yaml:12: network.rat: unknown key; did you mean 'rate'?"))
    q.yaml:12: network.rat: unknown key; did you mean 'rate'?
    """
