"""Where in the file, or on the command line, a mistake was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidings.errors import ConfigError
from tidings_coordinator.experiment.errors import ExperimentError
from tidings_coordinator.experiment.overrides import Override
from tidings_coordinator.experiment.yaml_loader import Document, Path


@dataclass(frozen=True)
class Locator:
    """Knows who wrote which key; all are equal, for this is no part of what was written.

    Without a document, mistakes are named by their key only.
    """

    name: str = field(default="", compare=False)
    document: Document | None = field(default=None, compare=False)
    #: what ``--set`` has changed, by path
    changed: Mapping[Path, Override] = field(default_factory=dict, compare=False)

    def line_number(self, path: Path) -> int | None:
        """The line of the key, or of the nearest one around it."""
        return None if self.document is None else self.document.line(path)

    def describe(self, path: Path, message: str) -> str:
        """One line of an error: whose fault it is, where, and what is wrong."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.changed:
                override = self.changed[path[:end]]
                label = "" if tuple(map(str, path)) == override.keys else f"{label_of(path)}: "
                return f"--set {override.text}: {label}{message}"
        line = self.line_number(path)
        place = self.name if line is None else f"{self.name}:{line}"
        return f"{place}: {label_of(path)}: {message}" if place else f"{label_of(path)}: {message}"

    def locate(self, error: ConfigError) -> ExperimentError:
        """The error with the place where it was made."""
        return ExperimentError(self.describe(error.path, error.message))


def label_of(path: Path) -> str:
    """A key as it is written with ``--set``."""
    return ".".join(map(str, path))
