"""Where a run's nodes live: as processes here, in one process on virtual time, ..."""

from __future__ import annotations

from typing import ClassVar

from tidings.registry import Plugin, Registry


class Launcher(Plugin):
    """A way to run an experiment."""

    registry: ClassVar[Registry[Launcher]]
    #: whether time is virtual: nothing is started, the simulator runs the plans itself
    virtual: ClassVar[bool] = False


launchers: Registry[Launcher] = Registry("launchers", "tidings_coordinator.launchers")
Launcher.registry = launchers
