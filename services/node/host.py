"""What an operation can reach: the groups on this node, its settings, its metrics, and its `Outside`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from common.config import Settings
from common.disk_space import DiskSpace
from common.metrics import Metrics
from common.runtime import Background
from raft.cluster_id import ClusterId
from services.node.outside import SYSTEM, Outside

if TYPE_CHECKING:
    from raft.node import RaftNode
    from services.node.damaged import DamagedGroup


@dataclass(slots=True)
class Host:
    """One node as its operations see it."""

    settings: Settings
    metrics: Metrics
    #: Distinguishes this life of the node from its earlier ones.
    boot: str
    #: The replicas on this node, by group.
    nodes: Mapping[str, "RaftNode"]
    #: Its clocks, its chance, its files.
    outside: Outside = SYSTEM
    #: The groups that this node takes no part in, because their data is damaged.
    damaged: dict[str, "DamagedGroup"] = field(default_factory=dict)
    #: Room on the file system of the data directory, as found last; None while that is not known.
    disk_space: DiskSpace | None = None
    #: Which cluster this node is of.
    cluster: ClusterId = field(default_factory=ClusterId)
    #: What a service keeps at this node beside its replicated state, by its class.
    parts: dict[type, Any] = field(default_factory=dict)
    #: Work that outlives the request that began it.
    background: Background = field(default_factory=Background)
    _waiter_numbers: "count[int]" = field(default_factory=count)

    @property
    def node_id(self) -> str:
        return self.settings.node_id

    @property
    def data_dir(self) -> str:
        """Where this node's data lies, as an absolute path."""
        return os.path.abspath(self.settings.data_dir)

    @property
    def life(self) -> str:
        """Begins the ids of the requests that wait in this life of the node, and of no others."""
        return f"{self.settings.node_id}:{self.boot}:"

    def new_waiter_id(self) -> str:
        """An id that no other request of this cluster has or had."""
        return f"{self.life}{next(self._waiter_numbers)}"
