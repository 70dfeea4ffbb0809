"""A node's own requests carry strictly rising sequences within one boot: a reply names one request."""

from raft.core.messages import AppendEntries, InstallSnapshot, Message, RequestVote
from tests.sim.node import SimNode
from tests.sim.observer import Observer


class SequencesRise(Observer):
    section = "thesis 6.4"

    def __init__(self, world) -> None:
        super().__init__(world)
        self._newest: dict[tuple[str, int, str], int] = {}

    def on_sent(self, node: SimNode, message: Message) -> None:
        kind = type(message)
        if kind is not AppendEntries and kind is not InstallSnapshot and kind is not RequestVote:
            return
        place = (node.id, node.life, message.to)
        newest = self._newest.get(place, 0)
        if message.sequence <= newest and kind is not RequestVote:
            self.fail(f"{node.id} sent sequence {message.sequence} to {message.to} after {newest}")
        self._newest[place] = max(message.sequence, newest)
