"""Any state as tensors and JSON, and back. No pickle: nothing is imported or run on reading.

What can be kept: numbers, text, bytes, tensors, arrays, random generators, tuples, lists, dicts
with numbers or text as keys, and dataclasses of these. Dataclasses come back as the class of that
name in a module that is loaded already.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tidings.errors import UserError

#: what stands for a state: scalars as they are, all else as {kind: ...}
Tree = Any


class Unkeepable(UserError):
    """A state that holds something which cannot be written down."""


class BadTree(ValueError):
    """A tree that stands for no state here."""


def flatten(value: object, place: str = "state") -> tuple[Tree, dict[str, torch.Tensor]]:
    """The tree of a state, and its tensors by place, copied; Unkeepable names what cannot be kept.

    Copies are contiguous, on the CPU, and share no memory, as safetensors asks for.
    """
    found = _Found()
    return found.flatten(value, place), found.tensors


class _Found:
    """The tensors of a state; one that is there twice is kept once."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._places: dict[int, str] = {}
        #: so that no id is given twice
        self._seen: list[torch.Tensor] = []

    def _add(self, tensor: torch.Tensor, place: str) -> str:
        if id(tensor) in self._places:
            return self._places[id(tensor)]
        while place in self.tensors:
            # {"a.b": ...} beside {"a": {"b": ...}}
            place += "'"
        self._places[id(tensor)] = place
        self._seen.append(tensor)
        self.tensors[place] = tensor.detach().cpu().clone().contiguous()
        return place

    def flatten(self, value: Any, place: str) -> Tree:
        """The tree of a value."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, torch.Tensor):
            return {"tensor": self._add(value, place)}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.random.Generator):
            return {"rng": _plain_rng(value.bit_generator.state)}
        if isinstance(value, np.ndarray) and value.dtype != object:
            held = torch.from_numpy(np.ascontiguousarray(value))
            return {"array": self._add(held, place)}
        if type(value) in (bytes, bytearray):
            held = torch.frombuffer(bytearray(value) or bytearray(1), dtype=torch.uint8)
            return {"bytes": [self._add(held, place), len(value)]}
        return self._flatten_group(value, place)

    def _flatten_group(self, value: Any, place: str) -> Tree:
        if type(value) in (tuple, list):
            items = [self.flatten(item, f"{place}.{i}") for i, item in enumerate(value)]
            return {type(value).__name__: items}
        if type(value) is dict and all(type(key) in (int, str) for key in value):
            return {"dict": [[key, self.flatten(value[key], f"{place}.{key}")] for key in value]}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            fields = {n: self.flatten(getattr(value, n), f"{place}.{n}") for n in names}
            kind = type(value)
            return {"record": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}
        raise Unkeepable(
            f"{place}: a {type(value).__name__} cannot be kept in a checkpoint; use tensors, "
            "numbers, text, tuples, lists, dicts and dataclasses of these"
        )


def unflatten(tree: Tree, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The state that a tree stands for; BadTree where it stands for none."""
    if not isinstance(tree, dict):
        return tree
    try:
        return _unflatten(tree, tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadTree(f"{error!r}") from error


def _unflatten(tree: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    kind = next(iter(tree))
    held = tree[kind]
    if kind == "tensor":
        return tensors[held].clone()
    if kind == "array":
        return tensors[held].clone().numpy()
    if kind == "bytes":
        return tensors[held[0]].numpy().tobytes()[: held[1]]
    if kind == "rng":
        return rng_of(held)
    if kind in ("tuple", "list"):
        items = [unflatten(item, tensors) for item in held]
        return tuple(items) if kind == "tuple" else items
    if kind == "dict":
        return {key: unflatten(item, tensors) for key, item in held}
    if kind == "record":
        return _record(held, {n: unflatten(t, tensors) for n, t in tree["fields"].items()})
    raise BadTree(f"unknown kind '{kind}'")


def _record(name: str, fields: dict[str, Any]) -> Any:
    module, _, path = name.partition(":")
    found: Any = sys.modules[module]
    for part in path.split("."):
        # a class inside of a function is found by nobody
        found = getattr(found, part)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise BadTree(f"{name} is no dataclass")
    if {field.name for field in dataclasses.fields(found)} != set(fields):
        raise BadTree(f"{name} has other fields now")
    record = object.__new__(found)
    for key, value in fields.items():
        object.__setattr__(record, key, value)
    return record


def _plain_rng(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {key: _plain_rng(item) for key, item in state.items()}
    if isinstance(state, np.ndarray):
        return {"uint64": [int(item) for item in state]}
    return state if isinstance(state, str) else int(state)


def _numpy_rng(state: Any) -> Any:
    if isinstance(state, dict):
        if set(state) == {"uint64"}:
            return np.array(state["uint64"], dtype=np.uint64)
        return {key: _numpy_rng(item) for key, item in state.items()}
    return state


def rng_of(state: Any) -> np.random.Generator:
    """The generator that goes on where the one of that state was; ValueError for no such state."""
    philox = np.random.Philox()
    philox.state = _numpy_rng(state)
    return np.random.Generator(philox)
