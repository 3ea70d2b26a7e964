"""Tidings: a testbed for distributed learning over real networks.

A protocol author needs only what this module exports; see docs/tutorial.
"""

from tidings.api import *  # noqa: F403
from tidings.api import __all__ as _api
from tidings.units import Duration, Rate, Ratio, Size

__version__ = "0.1.0"

__all__ = [*_api, "Duration", "Rate", "Ratio", "Size"]
