"""Checkpoints: what goes in comes out, and what is broken is left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tidings.protocols.compressed.choco_sgd import State
from tidings.runtime import checkpoint as files
from tidings.runtime.checkpoint import Checkpoint, CheckpointError, Folder
from tidings.runtime.snapshot import Unkeepable, flatten, unflatten

pytestmark = pytest.mark.unit

DIGEST = b"\1" * 32


@dataclass(frozen=True)
class Kept:
    """A state as protocols have them."""

    x: torch.Tensor
    copies: dict[int, torch.Tensor]
    step: int = 3
    pair: tuple[float, str] = (0.1, "a")
    note: list[bool | None] = field(default_factory=list)


def checkpoint(round_: int, size: int = 4) -> Checkpoint:
    model = torch.arange(size, dtype=torch.float32) + round_
    return Checkpoint(round_, 1.5, {"state": model}, {"model": model})


def stored(folder: Folder, *rounds: int, keep: int = 9) -> None:
    for round_ in rounds:
        files.save(folder, round_, files.encode(checkpoint(round_), DIGEST), keep)


def test_a_state_comes_back_as_it_was() -> None:
    x = torch.randn(3)
    state = Kept(x, {2: x, 0: torch.zeros(0), 1: torch.ones(2, 2, dtype=torch.float64)})
    tree, tensors = flatten({"state": state, "b": b"\0abc", "e": b"", "n": np.array([1, 2])})
    found = unflatten(tree, tensors)
    kept = found["state"]
    assert isinstance(kept, Kept)
    assert list(kept.copies) == [2, 0, 1]
    for mine, theirs in zip(
        [x, *state.copies.values()], [kept.x, *kept.copies.values()], strict=True
    ):
        assert torch.equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert (kept.step, kept.pair, kept.note) == (3, (0.1, "a"), [])
    assert (found["b"], found["e"], found["n"].tolist()) == (b"\0abc", b"", [1, 2])
    # the same tensor is kept once, and comes back as two
    assert sum(torch.equal(t, x) for t in tensors.values() if t.shape == x.shape) == 1
    kept.x.zero_()
    assert torch.equal(kept.copies[2], x)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(), inner)
    ),
    max_leaves=12,
)


@given(trees)
def test_any_plain_state_comes_back(value: object) -> None:
    tree, tensors = flatten(value)
    found = unflatten(tree, tensors)
    assert found == value
    assert type(found) is type(value)


def test_a_random_stream_goes_on_where_it_was() -> None:
    rng = np.random.Generator(np.random.Philox(key=7))
    rng.standard_normal(13)
    rng.integers(0, 9, size=3, dtype=np.uint32)
    again = unflatten(*flatten(rng))
    assert again.bit_generator.state["state"]["key"].tolist() == [7, 0]
    assert np.array_equal(rng.standard_normal(50), again.standard_normal(50))
    assert np.array_equal(rng.integers(0, 9, size=5), again.integers(0, 9, size=5))


def test_what_cannot_be_kept_is_named() -> None:
    with pytest.raises(Unkeepable, match=r"state\.a\.1: a set cannot be kept"):
        flatten({"a": (1, {2})})


def test_nothing_is_imported_on_reading() -> None:
    for record in ("this:anything", "os:system", "tidings.errors:UserError"):
        with pytest.raises(ValueError):
            unflatten({"record": record, "fields": {}}, {})


def test_a_file_holds_all_and_is_read_with_its_protocol_only(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "node-0003")
    state = State(torch.ones(4), torch.zeros(4), {1: torch.full((4,), 2.0)})
    data = files.encode(Checkpoint(40, 1.25, {"state": state}, {"model": state.x}), DIGEST)
    files.save(folder, 40, data, keep=2)
    found, wrong = files.load(folder, DIGEST, 4)
    assert found is not None
    assert not wrong
    assert (found.round, found.time_s) == (40, 1.25)
    assert torch.equal(found.parts["state"].replicas[1], state.replicas[1])
    for digest, dim, reason in ((b"\2" * 32, 4, "another protocol"), (DIGEST, 5, "its model is")):
        found, wrong = files.load(folder, digest, dim)
        assert found is None
        assert reason in wrong[0]


def test_the_last_ones_stay(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    stored(folder, 10, 20, 30, 40, keep=3)
    assert files.rounds(folder) == [20, 30, 40]
    # after a resumption the same round is written once more
    stored(folder, 30, keep=3)
    files.save(folder, 30, files.encode(checkpoint(31), DIGEST), 3)
    assert files.rounds(folder) == [20, 30, 40]


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "half", "missing"])
def test_a_broken_one_falls_back_to_the_one_before(tmp_path: Path, how: str) -> None:
    folder = Folder(tmp_path)
    stored(folder, 10, 20)
    (last,) = tmp_path.glob("round-00000020-*")
    data = last.read_bytes()
    if how == "cut":
        last.write_bytes(data[:-3])
    elif how == "flipped":
        last.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    elif how == "empty":
        last.write_bytes(b"")
    elif how == "half":
        last.rename(last.with_name(last.name + ".part"))
    else:
        last.unlink()
    found, wrong = files.load(folder, DIGEST, 4)
    assert found is not None
    assert found.round == 10
    assert len(wrong) == (how in ("cut", "flipped", "empty"))
    assert files.load(folder, DIGEST, 4, at=20)[0] is None
    # the next one clears away what was half written
    stored(folder, 30)
    assert not list(tmp_path.glob("*.part"))


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        files.decode(data, DIGEST, 4)


def test_an_unwritable_place_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        stored(Folder(tmp_path / "file" / "node-0000"), 10)
