"""Requests that are withdrawn while somebody is about to answer them: who is told `ok` has the lock."""

import asyncio
from typing import Any

from common.runtime import Background
from raft.errors import NoLeader, OutcomeUnknown, Stopping
from raft.replica import RESTORED_TOPIC
from services.lock.replicated.commands import Acquire, CancelWaits, Release
from services.replicated import withdrawals as withdrawals_module
from services.replicated.withdrawals import Withdrawals
from tests.helpers import eventually

BODY = {"key": "k", "client_id": "b", "wait": 60}
STOPPING = Stopping("this node is stopping")


class TestNodesThatStop:
    async def test_a_request_on_its_way_is_not_told_of_a_grant_that_its_node_withdraws(self, cluster):
        """Its entry is in the log when the node closes, and applied behind that."""
        replica, answers = cluster.replicas["node1"], asyncio.Queue()
        commands, propose = [], replica.propose

        async def slow(command: bytes, *, parting: bool = False) -> dict[str, Any]:
            if parting:
                return await propose(command, parting=parting)
            commands.append(command)
            return await answers.get()

        replica.propose = slow
        asking = asyncio.create_task(cluster.post("/lock/acquire", BODY, status=503))
        await eventually(lambda: commands)

        replica.close(STOPPING)
        answers.put_nowait(cluster.append(commands[0])[replica])
        await replica.leave()

        assert (await asking)["reason"] == "stopping"
        assert not cluster.machine.status("k")["held"]

    async def test_a_grant_that_was_told_just_before_is_not_withdrawn(self, cluster):
        """The grant is applied in the very turn of the event loop in which the node closes."""
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        asking = asyncio.create_task(cluster.post("/lock/acquire", BODY))
        await eventually(lambda: cluster.machine.status("k")["queue_length"] == 1)

        cluster.apply(Release("k", "a"))
        cluster.replicas["node1"].close(STOPPING)
        await cluster.replicas["node1"].leave()

        assert (await asking)["token"] == 2
        assert cluster.machine.status("k")["holders"][0]["owner"] == "b"

    async def test_a_request_whose_outcome_is_unknown_is_not_said_to_be_not_done(self, cluster):
        replica = cluster.replicas["node1"]

        async def lost(command: bytes, *, parting: bool = False) -> dict[str, Any]:
            replica.propose = propose
            replica.close(STOPPING)
            cluster.append(command)
            raise OutcomeUnknown("this node stopped before the outcome was known")

        propose, replica.propose = replica.propose, lost

        answer = await cluster.post("/lock/acquire", BODY, status=504)

        assert answer["reason"] == "outcome_unknown"
        await eventually(lambda: not cluster.machine.status("k")["held"])

    async def test_a_grant_that_was_told_beside_another_try_is_the_answer(self, cluster):
        """The node closes while the second try looks for a leader; what the first was granted is not withdrawn."""
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        replica, tries = cluster.replicas["node1"], 0

        async def troubled(command: bytes, *, parting: bool = False) -> dict[str, Any]:
            nonlocal tries
            tries += 1
            if tries == 1:
                cluster.append(command)
                raise OutcomeUnknown("the leader was lost")
            cluster.apply(Release("k", "a"))
            replica.close(STOPPING)
            raise NoLeader("none")

        replica.propose = troubled

        assert (await cluster.post("/lock/acquire", BODY))["token"] == 2
        assert cluster.machine.status("k")["held"]


class TestRequestsThatAreAskedAgain:
    async def test_a_grant_between_two_tries_is_the_answer_and_is_not_withdrawn(self, cluster):
        """The first try's outcome is unknown, the second finds no leader; the first is carried out meanwhile."""
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        replica, propose = cluster.replicas["node1"], cluster.replicas["node1"].propose
        tries = 0

        async def troubled(command: bytes, *, parting: bool = False) -> dict[str, Any]:
            nonlocal tries
            tries += 1
            if tries == 1:
                cluster.append(command)
                raise OutcomeUnknown("the leader was lost")
            if tries == 2:
                # In the pause that follows, the lock comes free; and a withdrawal would find no leader at first.
                asyncio.get_running_loop().call_later(0.03, cluster.apply, Release("k", "a"))
                raise NoLeader("none")
            if tries == 3:
                raise NoLeader("none")
            return await propose(command, parting=parting)

        replica.propose = troubled

        granted = await cluster.post("/lock/acquire", BODY)
        await asyncio.sleep(0.5)

        assert granted["ok"]
        assert [held["owner"] for held in cluster.machine.status("k")["holders"]] == ["b"]

    async def test_a_grant_in_a_snapshot_is_not_left_where_asking_again_finds_no_leader(self, cluster):
        """Nobody at this node knows of the grant: it is told, or it is given back."""
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        asking = asyncio.create_task(cluster.post("/lock/acquire", BODY))
        await eventually(lambda: cluster.machine.status("k")["queue_length"] == 1)
        replica = cluster.replicas["node1"]
        replica.tell, tell = lambda events: None, replica.tell
        cluster.apply(Release("k", "a"))
        replica.tell = tell
        replica.troubles = [NoLeader("none")]

        replica.tell([(RESTORED_TOPIC, None)])

        assert (await asking)["token"] == 2
        assert cluster.machine.status("k")["held"]


class TestWithdrawals:
    async def test_what_is_owed_without_a_leader_is_bounded(self, cluster, monkeypatch):
        """Clients with short timeouts come and go for as long as there is none."""
        monkeypatch.setattr(withdrawals_module, "WITHDRAWALS_MAX", 3)
        cluster.replicas["node1"].troubles = [NoLeader("none")]
        owed: Withdrawals = Withdrawals(cluster.replicas["node1"], CancelWaits, Background())

        for number in range(5):
            owed.add(number, ("k", "b", str(number)))

        assert len(owed) == 3
        await eventually(lambda: not len(owed))

    async def test_what_is_added_in_the_moment_in_which_the_last_is_known_is_withdrawn_too(self, cluster):
        said = []

        class Node:
            closed = None

            def __init__(self) -> None:
                self.before_leaving: list[Any] = []

            async def propose(self, command: bytes, *, parting: bool = False) -> None:
                said.append(command)
                await asyncio.sleep(0)
                # The task of the withdrawals goes on, and ends, before this is run.
                if len(said) == 1:
                    asyncio.get_running_loop().call_soon(withdrawals.add, "two", ("k", "b", "two"))

        withdrawals: Withdrawals = Withdrawals(Node(), lambda items: Acquire("k", "b"), Background())

        withdrawals.add("one", ("k", "b", "one"))
        await asyncio.sleep(0.1)

        assert (len(said), len(withdrawals)) == (2, 0)
