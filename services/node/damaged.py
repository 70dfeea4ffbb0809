"""Groups that a node does not take part in, because what it kept of them is damaged.

A power loss does not explain such damage, so the node may have lost what it promised to others: entries that it
acknowledged, a vote that it gave. It must not vote, lead or serve in that group before an operator has put the
damaged files aside and the group has taken the node in anew (`mufakat repair`). The process stays up: its other
groups serve, and `/readyz` says which file is damaged and what to do.
"""

from dataclasses import dataclass
from pathlib import Path

from raft.node import RaftNode
from raft.storage import CorruptStorage, UnknownFormat
from services.operations.refusals import refused

#: What open_storage raises for damage that no power loss explains, and for what a newer version wrote.
DAMAGE_ERRORS = (CorruptStorage, UnknownFormat)


@dataclass(frozen=True, slots=True)
class DamagedGroup:
    """One group that this node does not take part in."""

    group: str
    #: The group's data directory.
    directory: Path
    #: What is damaged, and where.
    problem: str
    #: What the operator can do about it.
    advice: str

    @classmethod
    def of(cls, group: str, node_id: str, directory: Path, error: CorruptStorage | UnknownFormat) -> "DamagedGroup":
        if isinstance(error, UnknownFormat):
            advice = "start the version that wrote it, or a newer one"
        else:
            advice = (
                f"`mufakat repair {node_id}` puts the damaged files aside and lets the node join the group anew; "
                "as long as a majority of the group runs, nothing is lost"
            )
        return cls(group, directory, str(error), advice)

    def __str__(self) -> str:
        return f"this node takes no part: {self.problem}; {self.advice}"


class GroupNodes(dict[str, RaftNode]):
    """The replicas on this node by group. Asking for one that is damaged says so."""

    def __init__(self, damaged: dict[str, DamagedGroup]) -> None:
        super().__init__()
        self.damaged = damaged

    def __missing__(self, group: str) -> RaftNode:
        found = self.damaged.get(group)
        if found is None:
            raise KeyError(group)
        raise refused(
            "storage_failed",
            f"This node's data of the group {group} is damaged and it takes no part in it; use another node.",
        )
