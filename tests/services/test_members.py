"""Members of a node's groups, by HTTP: what is told where the groups do not agree."""

from pathlib import Path

import pytest

from raft.errors import NoLeader, RaftError, Stopping
from raft.membership import MemberChange, Membership
from tests.helpers import serving
from tests.services.test_maintenance import node_app, ready


@pytest.mark.parametrize("error", [Stopping("stops"), NoLeader("none")])
async def test_a_change_that_is_done_in_one_group_is_never_told_to_be_undone(
    error: RaftError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the node closes, or a leader is gone, behind the first of its groups."""
    asked: list[str] = []

    async def change(self: Membership, change: MemberChange) -> bool:
        asked.append(self._node.group)
        if len(asked) == 2:
            raise error
        return True

    monkeypatch.setattr(Membership, "change", change)
    async with serving(node_app(tmp_path)) as client:
        await ready(client)
        response = await client.post("/admin/members", json={"remove": {"id": "node9"}})
        told = await response.json()

    assert (response.status, told["reason"]) == (504, "outcome_unknown")
    assert len(asked) == 2
