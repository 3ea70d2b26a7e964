"""The ``expect`` section: in an experiment, and in a file of its own for an old run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydantic import ValidationInfo, field_validator

from tidings.errors import ConfigError, nearest
from tidings_coordinator.checks.base import Check
from tidings_coordinator.experiment.section import Section, refuse
from tidings_coordinator.experiment.selectors import Resolver


class Expectations(Section):
    """The section alone; validated with a :class:`Resolver` and the event ids as context."""

    expect: tuple[Check, ...]
    """What the run is expected to have done."""

    @field_validator("expect")
    @classmethod
    def _resolve(cls, expect: tuple[Check, ...], info: ValidationInfo) -> tuple[Check, ...]:
        context = info.context or {}
        return resolved(expect, context["resolver"], context["events"])


def resolved(
    expect: Sequence[Check], resolver: Resolver, events: Collection[str]
) -> tuple[Check, ...]:
    """Checks with nodes as numbers; raises, for a validator, what they name that is not there.

    ``events``: ids of the fault events that there are.
    """
    found = tuple(check.resolved(resolver, index) for index, check in enumerate(expect))
    resolver.finish()
    refuse(
        [
            ConfigError(f"there is no fault event '{event}'; {nearest(event, events)}", (i, key))
            for i, check in enumerate(expect)
            for key, event in check.events.items()
            if event not in events
        ]
    )
    return found
