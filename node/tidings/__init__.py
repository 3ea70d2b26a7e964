"""Tidings: a testbed for distributed learning over real networks.

A protocol author needs only what this module exports; see docs/tutorial.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tidings.api import *  # noqa: F403
    from tidings.api import __all__ as _api
    from tidings.units import Duration, Rate, Ratio, Size

    __all__ = [*_api, "Duration", "Rate", "Ratio", "Size"]
else:

    def __getattr__(name: str) -> object:
        """Imported when it is asked for: a node process may have to start itself again before it
        has torch, which takes seconds."""
        api, units = import_module("tidings.api"), import_module("tidings.units")
        places = dict.fromkeys(api.__all__, api)
        places |= dict.fromkeys(("Duration", "Rate", "Ratio", "Size"), units)
        if name == "__all__":
            return list(places)
        if name not in places:
            raise AttributeError(f"module 'tidings' has no attribute '{name}'")
        return getattr(places[name], name)
