"""Every error that Tidings raises on purpose.

::

    TidingsError
    ├── UserError                 what was asked for cannot be done; nothing was started
    │   ├── ConfigError           a place in the experiment file: line, key, nearest valid choice
    │   ├── UnknownKind           a name that no registry knows
    │   └── MissingExtra          an optional package is not installed; names the extra
    ├── WireError                 a frame was refused; the sender is at fault, the node goes on
    │   ├── MalformedFrame        does not parse, or says something impossible
    │   ├── OversizedFrame        longer than any message of this run can be
    │   ├── TruncatedFrame        ended before its announced length
    │   └── WrongShape            a tensor that does not have the declared shape or dtype
    └── RunError                  the run as a whole cannot go on
        ├── BarrierTimeout        names the nodes that did not arrive
        ├── NodeDied              a node ended that nobody asked to end
        ├── Deadlock              nothing can run and no timer is pending; says who waits for what
        └── RecordError           the run directory could not be written (disk full, no permission)

    BaseException
    └── NodeCrashed               the fence: this node is dead, no effect of it may be seen any more

NodeCrashed derives from BaseException, so that ``except Exception`` in a protocol cannot swallow
it. Whether an outcome is definite is said by :class:`tidings.api.Outcome`, not by an exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Self


class TidingsError(Exception):
    """Base of all errors that are part of Tidings' contract."""


class UserError(TidingsError):
    """The request cannot be carried out as it stands."""


class ConfigError(UserError):
    """A value in the experiment file is not valid.

    ``path`` is the key's place from the root of the file, e.g. ``("network", "links", 0, "on")``.
    The loader adds the file and the line, which this package does not know.
    """

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.path = path

    def under(self, *prefix: str | int) -> ConfigError:
        """The same error, seen from further up the file."""
        return ConfigError(self.message, (*prefix, *self.path))


class UnknownKind(UserError):
    """A name was asked for that the registry does not have."""


class MissingExtra(UserError):
    """A feature needs a package that the core install does not bring."""

    def __init__(self, feature: str, extra: str, *others: str) -> None:
        either = "".join(f" (or '{other}', never both)" for other in others)
        super().__init__(
            f"{feature} needs the extra '{extra}'{either}: pip install 'tidings[{extra}]'"
        )


class WireError(TidingsError):
    """A frame from a peer was refused. ``reason`` is the label under which it is counted."""

    reason = "malformed"


class MalformedFrame(WireError):
    """The bytes do not parse, or parse to something that this run cannot contain."""


class OversizedFrame(WireError):
    """The announced length is above what any message of this run can have."""

    reason = "oversized"


class TruncatedFrame(WireError):
    """The frame or one of its sections ends early."""

    reason = "truncated"


class WrongShape(WireError):
    """A section's length does not fit the shape and dtype that the message declares."""

    reason = "wrong_shape"


class RunError(TidingsError):
    """The run as a whole failed; the message says why in one line."""


class BarrierTimeout(RunError):
    """Some nodes did not reach a barrier in time; the message names them."""


class NodeDied(RunError):
    """A node's process ended without being asked to."""


class Deadlock(RunError):
    """Nothing can run and no timer is pending."""

    @classmethod
    def of(cls, waits: Mapping[int, Sequence[str]]) -> Self:
        """The verdict, with what each node waits for, in words."""
        lines = [f"  node {node}: {'; '.join(texts)}" for node, texts in waits.items() if texts]
        return cls("\n".join(["nothing can run and no timer is pending; waiting:", *lines]))


class RecordError(RunError):
    """The run directory cannot be written."""


class NodeCrashed(BaseException):
    """Raised inside a node that is dead: every effect it tries from now on raises this."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint for an error message: the closest valid choice, then all of them.

    >>> nearest("rng", ["ring", "line"])
    "did you mean 'ring'? (valid: line, ring)"
    """
    valid = sorted(set(choices))
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}(valid: {', '.join(valid) or 'none'})"


def shown(value: object) -> str:
    """A value as it is written in a file, cut where it is long.

    >>> shown(None), shown(True), shown("1")
    ('nothing', 'true', "'1'")
    """
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
