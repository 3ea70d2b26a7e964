"""The experiment file: strict YAML, pydantic models, errors that name file, line and key."""

from tidings_coordinator.experiment.dump import dump
from tidings_coordinator.experiment.errors import ExperimentError
from tidings_coordinator.experiment.load import load, loads
from tidings_coordinator.experiment.model import Experiment
from tidings_coordinator.experiment.overrides import expand

__all__ = ["Experiment", "ExperimentError", "dump", "expand", "load", "loads"]
