"""The end of a run's links: everybody counts what was sent to it, and then hands in its record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidings.v1 import control_pb2 as pb
from tidings_coordinator.control.server import ControlServer, Session

_LOOK_S = 0.25
#: wall seconds for sending what is in the links' queues, on top of those for winding up
_FLUSH_S = 20.0


async def close_links(server: ControlServer, within_s: float, again: Callable[[], bool]) -> None:
    """Until no message is on its way any more, or time is up, or the user has had enough.

    Nodes that wind up still answer each other. Once all have ended each falls silent and says what
    has left it, which is what the others wait for. Who is gone is not waited for.
    """
    sessions = list(server.sessions.values())
    await until_all(server, within_s, again, lambda session: session.ended is not None)
    for session in sessions:
        session.send(pb.CoordinatorMessage(close=pb.Close()))
    await until_all(server, _FLUSH_S, again, lambda session: session.sent is not None)
    for session in sessions:
        due = {
            source.node: source.sent.messages[session.node]
            for source in sessions
            if source.sent is not None and session.node in source.sent.messages
        }
        session.send(pb.CoordinatorMessage(due=pb.Sent(messages=due)))


async def until_all(
    server: ControlServer,
    within_s: float,
    again: Callable[[], bool],
    there: Callable[[Session], bool],
) -> None:
    """Until something holds of every node that is not gone, time is up, or there is no patience.

    ``again`` says whether the user has asked for the end once more.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    while not all(there(session) or session.gone for session in server.sessions.values()):
        server.changed.clear()
        if again() or loop.time() > until_s:
            return
        await server.wait(_LOOK_S)
