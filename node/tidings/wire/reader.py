"""Cuts a link's byte stream back into frames, wherever it was cut on the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tidings.errors import TruncatedFrame, WireError
from tidings.wire.frame import PREFIX, Buffer

_ALIGNMENT = 64


class FrameReader:
    """Feed it chunks, take whole frames. One reader serves one stream.

    A frame's buffer is allocated once its length has been checked, so that its first section starts
    on a 64-byte boundary: the receiver's tensors are then views of it, without another copy.
    ``check_length`` maps the announced length to the frame's whole length or raises a WireError;
    after one the stream cannot be followed any further and must be closed. Frames that were whole
    before are handed out first, wherever the stream was cut.
    """

    def __init__(self, check_length: Callable[[int], int]) -> None:
        self._check_length = check_length
        self._head = bytearray()
        self._frame: memoryview | None = None
        self._filled = 0
        self._broken: WireError | None = None

    @property
    def inside_frame(self) -> bool:
        """Whether the stream has stopped in the middle of a frame."""
        return self._frame is not None or bool(self._head)

    def feed(self, chunk: Buffer) -> list[memoryview]:
        """The frames that ``chunk`` completes, in order; raises what ``check_length`` raises."""
        if self._broken is not None:
            raise self._broken
        frames: list[memoryview] = []
        view = memoryview(chunk)
        try:
            while len(view):
                view = self._take(view, frames)
        except WireError as error:
            self._broken = error
            if not frames:
                raise
        return frames

    def close(self) -> None:
        """The stream has ended; TruncatedFrame if that was in the middle of a frame."""
        if self._broken is not None:
            raise self._broken
        if self.inside_frame:
            raise TruncatedFrame("the stream ended in the middle of a frame")

    def _take(self, view: memoryview, frames: list[memoryview]) -> memoryview:
        """Take up to the end of the frame; the rest of ``view``."""
        if self._frame is None:
            view = self._open(view)
            if self._frame is None:
                return view
        take = min(len(view), len(self._frame) - self._filled)
        self._frame[self._filled : self._filled + take] = view[:take]
        self._filled += take
        if self._filled == len(self._frame):
            frames.append(self._frame)
            self._frame = None
        return view[take:]

    def _open(self, view: memoryview) -> memoryview:
        """Collect a prefix; once it is whole, allocate the frame and put the prefix into it."""
        missing = PREFIX.size - len(self._head)
        self._head += view[:missing]
        if len(self._head) == PREFIX.size:
            announced, header_length = PREFIX.unpack(self._head)
            length = self._check_length(announced)
            block = np.empty(length + _ALIGNMENT, dtype=np.uint8)
            start = -(block.ctypes.data + PREFIX.size + header_length) % _ALIGNMENT
            self._frame = block.data[start : start + length]
            self._frame[: PREFIX.size] = self._head
            self._filled = PREFIX.size
            self._head = bytearray()
        return view[missing:]
