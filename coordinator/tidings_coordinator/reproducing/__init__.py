"""Published claims, each with the runs that show it: what ``reproductions/NAME/claim.py`` uses."""

from tidings_coordinator.reproducing.declaration import (
    Check,
    Panel,
    Reproduction,
    Row,
    Runs,
    Variant,
)
from tidings_coordinator.reproducing.drawing import curves, over, points
from tidings_coordinator.reproducing.reading import (
    best,
    cell,
    costs_to,
    final,
    of_node,
    value,
)

__all__ = [
    "Check",
    "Panel",
    "Reproduction",
    "Row",
    "Runs",
    "Variant",
    "best",
    "cell",
    "costs_to",
    "curves",
    "final",
    "of_node",
    "over",
    "points",
    "value",
]
