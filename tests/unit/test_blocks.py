"""Memory that is given again, and never while anybody still looks at it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from tidings.wire import blocks

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_kept", [])


def place(of: np.ndarray) -> int:
    """Where it lies in memory."""
    return of.ctypes.data


def test_what_nobody_refers_to_is_given_again() -> None:
    first = blocks.take(1000)
    where = place(first)
    assert place(blocks.take(1000)) != where
    del first
    assert place(blocks.take(900)) == where
    assert blocks.take(900).size == 900


def test_a_view_keeps_it() -> None:
    block = blocks.take(4000)
    block[:] = 7
    where = place(block)
    view = memoryview(block.data)[100:200]
    tensor = torch.from_numpy(np.frombuffer(block.data[:400], dtype="<f4"))
    del block
    assert place(blocks.take(4000)) != where
    del view
    assert place(blocks.take(4000)) != where
    assert tensor.numpy().view(np.uint8).tolist() == [7] * 400
    del tensor
    assert place(blocks.take(4000)) == where


def test_a_much_larger_block_is_left_alone_and_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = place(blocks.take(10_000))
    assert place(blocks.take(1000)) != where
    monkeypatch.setattr(blocks, "_MOST_BYTES", 20_000)
    held = [blocks.take(8000) for _ in range(5)]
    assert sum(block.size for block in blocks._kept) <= 20_000
    assert len({place(block) for block in held}) == 5


def test_threads_do_not_share_it() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(2000):
            block = blocks.take(512)
            block[:] = number
            if (block != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
