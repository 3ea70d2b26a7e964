"""Chapter 1: every node calls its neighbours, and measures how long the echo takes."""

from dataclasses import dataclass

from tidings import Message, Node, Protocol


class Call(Message):
    """What is called: the caller's number of the call."""

    number: int


class Reply(Message):
    """The same number, back."""

    number: int


@dataclass(frozen=True)
class Echo(Protocol):
    """Call all neighbours, answer their calls, wait for the replies; again every round."""

    messages = (Call, Reply)

    async def run(self, node: Node) -> None:
        for number in node.rounds():
            called_s = node.clock.now_s
            await node.send_all(node.to_neighbors(Call(number)))
            calls = await node.gather(Call)
            await node.send_all({source: Reply(call.number) for source, call in calls.items()})
            replies = await node.gather(Reply)
            await node.report(echo_s=node.clock.now_s - called_s, heard=len(replies))
