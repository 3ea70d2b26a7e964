"""Checkpoints: what a node was after some round, as one file that is there whole or not at all.

A checkpoint is one safetensors file: the tensors, and in its header's metadata a JSON text with
everything that is no tensor. Its name holds the round and a digest of its bytes::

    checkpoints/node-0003/round-00000040-9f1c2b3a4d5e6f70.safetensors

It is written beside and moved into place. On reading, digest, protocol and the model's shape are
checked; one that does not pass is left out and the one before is taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tidings.runtime.plan import NodePlan
from tidings.runtime.snapshot import BadTree, flatten, unflatten

VERSION = "1"

_NAME = re.compile(r"round-(\d{8,})-([0-9a-f]{16})\.safetensors")
_PART = ".part"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; says why."""


@dataclass(frozen=True)
class Checkpoint:
    """A node after a round."""

    #: rounds (or local steps) that are complete
    round: int
    #: emulated time
    time_s: float
    #: what the protocol wants to find again, by name
    parts: dict[str, Any]
    #: what belongs to the node itself, see tidings.runtime.keeping
    node: dict[str, Any]


def encode(checkpoint: Checkpoint, digest: bytes) -> bytes:
    """The file's bytes; ``digest`` is the codec's. Unkeepable for what cannot be written down."""
    from safetensors.torch import save

    body, tensors = flatten(vars(checkpoint), "kept")
    metadata = {"version": VERSION, "digest": digest.hex(), "state": json.dumps(body)}
    return bytes(save(tensors, metadata))


def decode(data: bytes, digest: bytes, dim: int) -> Checkpoint:
    """The checkpoint in a file's bytes, of a protocol of that digest, models being (dim,) float32.

    Raises CheckpointError for anything else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        if metadata["version"] != VERSION:
            raise CheckpointError(f"written by another version ({metadata['version']})")
        if metadata["digest"] != digest.hex():
            raise CheckpointError("of another protocol, or of a model of another size")
        found = Checkpoint(**unflatten(json.loads(metadata["state"]), tensors))
    except CheckpointError:
        raise
    except (SafetensorError, BadTree, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"broken: {error}") from error
    model = found.node.get("model") if isinstance(found.node, dict) else None
    if not isinstance(found.parts, dict) or not isinstance(model, torch.Tensor):
        raise CheckpointError("broken: no model in it")
    if model.shape != (dim,) or model.dtype != torch.float32:
        raise CheckpointError(f"its model is {tuple(model.shape)} {model.dtype}, not ({dim},)")
    return found


# -- where they lie --------------------------------------------------------------------------------


class Store(ABC):
    """A place for one node's checkpoints. Raises OSError where it cannot be read or written."""

    @abstractmethod
    def names(self) -> list[str]:
        """What is there."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of one."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Put one there, whole or not at all."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Take one away."""


class Folder(Store):
    """A folder of files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The files in the folder; none where there is no folder."""
        try:
            return [entry.name for entry in self.path.iterdir()]
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write beside, have it on the disk, move it into place."""
        self.path.mkdir(parents=True, exist_ok=True)
        beside = self.path / (name + _PART)
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path / name)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self.path / name).unlink(missing_ok=True)


class Shelf(Store):
    """In memory, for simulated runs that leave nothing behind."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def names(self) -> list[str]:
        """What is there."""
        return list(self._files)

    def read(self, name: str) -> bytes:
        """The bytes of one."""
        return self._files[name]

    def write(self, name: str, data: bytes) -> None:
        """Keep the bytes."""
        self._files[name] = data

    def remove(self, name: str) -> None:
        """Forget one."""
        self._files.pop(name, None)


def place_of(plan: NodePlan) -> Folder | None:
    """Where the node of a plan has its checkpoints, if anywhere."""
    if plan.checkpoint is None or not plan.checkpoint.directory:
        return None
    return folder_of(plan.checkpoint.directory, plan.node)


def folder_of(directory: str | Path, node: int) -> Folder:
    """Where a node's checkpoints are, below a run's."""
    return Folder(Path(directory) / f"node-{node:04d}")


def save(store: Store, round_: int, data: bytes, keep: int) -> int:
    """Add a checkpoint of that round and take away all but the last ``keep``; bytes written."""
    name = f"round-{round_:08d}-{_digest(data)}.safetensors"
    store.write(name, data)
    # half written ones of a process that died, and others of the same round
    for old in store.names():
        match = _NAME.fullmatch(old)
        if old != name and (match is None or int(match[1]) == round_):
            store.remove(old)
    for _, old in sorted(_found(store))[:-keep]:
        store.remove(old)
    return len(data)


def rounds(store: Store) -> list[int]:
    """The rounds of which there are checkpoints, sound or not, in order."""
    return sorted(round_ for round_, _ in _found(store))


def load(
    store: Store, digest: bytes, dim: int, at: int | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The last checkpoint that is sound (of round ``at``, where given), and what was wrong.

    None where there is none.
    """
    wrong: list[str] = []
    for round_, name in sorted(_found(store), reverse=True):
        if at is not None and round_ != at:
            continue
        try:
            data = store.read(name)
            if _digest(data) != _NAME.fullmatch(name)[2]:  # type: ignore[index]
                raise CheckpointError("broken: its bytes do not agree with its name")
            return decode(data, digest, dim), wrong
        except (CheckpointError, OSError) as error:
            wrong.append(f"{name}: {error}")
    return None, wrong


def _found(store: Store) -> Iterator[tuple[int, str]]:
    for name in store.names():
        match = _NAME.fullmatch(name)
        if match is not None:
            yield int(match[1]), name


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
