"""Random streams that every node can derive for itself from the run's seed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import numpy as np
import torch

#: module constructors draw from torch's global generator, which is lent to one of them at a time
_GLOBAL_TORCH_GENERATOR = threading.Lock()


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """The stream for one purpose, the same in every process; streams are independent.

    ``purpose`` is any sequence of printable parts, for example ``("features", 3)``.
    """
    text = repr((seed, *map(str, purpose)))
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4")
    # The bit generator is named because numpy may change what default_rng() picks.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))


def build_module(make: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    """``make()`` with initial weights that depend on ``seed`` alone.

    torch's global generator is put back afterwards as it was.
    """
    state = torch.Generator().manual_seed(int(generator(seed, "init").integers(2**63))).get_state()
    with _GLOBAL_TORCH_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        return make()
