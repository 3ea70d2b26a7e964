"""Writing experiments with every default in plain sight."""

from __future__ import annotations

from typing import Any

import yaml

from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.experiment.yaml_loader import add_scalars


class _Dumper(yaml.SafeDumper):
    """Quotes text that is something else in YAML 1.1 or in 1.2, so that any reader gets text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out each time."""
        return True


add_scalars(_Dumper)


def dump(experiment: Experiment) -> str:
    """The experiment as YAML: keys in the order of the model, every default, units in values.

    ``loads(dump(e)) == e``. Files of the user appear with absolute paths, nodes one by one.
    """
    return dump_data(experiment.model_dump(mode="json", by_alias=True))


def dump_data(data: Any) -> str:
    """An experiment's plain data as YAML."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def inline(value: Any) -> str:
    """Plain data as YAML on one line: ``{kind: top_k, ratio: 5%}``."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10**6,
        default_flow_style=True,
    )
    return str(text).removesuffix("\n...\n").rstrip("\n")
