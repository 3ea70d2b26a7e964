"""Memory for long frames, used again: pages fresh from the kernel cost more than the copying."""

from __future__ import annotations

import sys
import threading

import numpy as np
from numpy.typing import NDArray

#: of all blocks that are kept to be used again
_MOST_BYTES = 128 << 20
#: of the list, the loop and the call that asks
_OWN_REFERENCES = 3

_kept: list[NDArray[np.uint8]] = []
_lock = threading.Lock()


def take(size_bytes: int) -> NDArray[np.uint8]:
    """So many bytes of memory, (size_bytes,) uint8, with anything in them.

    They are the caller's for as long as anybody refers to the array or to a view of it, a tensor
    for one, in any thread. After that somebody else is given them.
    """
    with _lock:
        for block in _kept:
            fits = size_bytes <= block.size <= 2 * size_bytes
            if fits and sys.getrefcount(block) == _OWN_REFERENCES:
                return block[:size_bytes]
        made: NDArray[np.uint8] = np.empty(size_bytes, dtype=np.uint8)
        if sum(block.size for block in _kept) + size_bytes <= _MOST_BYTES:
            _kept.append(made)
        return made[:]
