"""Server-sent events to any number of watchers, none of which can hold up the run."""

from __future__ import annotations

import json
import math
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

#: messages that wait for one client; what comes on top is dropped, and made good by a snapshot
QUEUE_MESSAGES = 256
#: clients at a time
MAX_CLIENTS = 32


class Client:
    """One watcher. Reads in a thread of its own; falls behind alone."""

    def __init__(self, hub: Hub, limit: int) -> None:
        self._hub = hub
        self._queue: queue.Queue[bytes | None] = queue.Queue(limit)
        #: whether it has missed something, and needs to be told how things stand
        self.behind = True
        #: messages that it did not get
        self.dropped = 0

    def offer(self, message: bytes) -> None:
        """Queue a message, or drop it; never waits. Under the hub's lock."""
        if not self.behind:
            try:
                self._queue.put_nowait(message)
                return
            except queue.Full:
                self.behind = True
        self.dropped += 1
        self._hub.dropped += 1

    def next(self, timeout_s: float) -> bytes | None:
        """What is to be written next; empty when nothing came in that time; None at the end."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            pass
        if self.behind:
            return self._hub.catch_up(self)
        if self._hub.closed:
            return None
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return b""

    def hang_up(self) -> None:
        """Wake it, if it waits; the end comes after what is queued."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return


class Hub:
    """Hands every message to every client.

    ``lock`` guards what ``snapshot`` reads: state is changed and published under it, so that a
    client sees each change once, in its snapshot or as a message.
    """

    def __init__(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self.lock = threading.RLock()
        self.closed = False
        #: over all clients, those that have left included
        self.dropped = 0
        self._snapshot = snapshot
        self._clients: set[Client] = set()

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self._clients)

    def join(self, limit: int = QUEUE_MESSAGES) -> Client | None:
        """A new client; None where there are too many, or all is over."""
        with self.lock:
            if self.closed or len(self._clients) >= MAX_CLIENTS:
                return None
            client = Client(self, limit)
            self._clients.add(client)
            return client

    def leave(self, client: Client) -> None:
        """A client is gone."""
        with self.lock:
            self._clients.discard(client)

    def publish(self, kind: str, data: object) -> None:
        """Offer a message to all."""
        with self.lock:
            if self._clients:
                message = encode(kind, data)
                for client in self._clients:
                    client.offer(message)

    def catch_up(self, client: Client) -> bytes:
        """How things stand now; from here on the client gets every message again."""
        with self.lock:
            client.behind = False
            return encode("state", self._snapshot())

    def close(self) -> None:
        """No more messages; clients get what is queued for them, then the end."""
        with self.lock:
            self.closed = True
            for client in self._clients:
                client.hang_up()


def encode(kind: str, data: object) -> bytes:
    """A message as it goes over the wire; infinities and NaN become null, which JSON has."""
    text = json.dumps(finite(data), separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n\n".encode()


def finite(data: Any) -> Any:
    """The same data with null in place of infinities and NaN."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data
