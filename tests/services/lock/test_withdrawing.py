"""A wait whose client, node or quorum goes away: nothing is granted to nobody, nothing is held twice."""

import asyncio
from collections.abc import Callable
from typing import Any

from raft.errors import NoLeader, OutcomeUnknown, RaftError, Stopping
from raft.replica import RESTORED_TOPIC
from services.lock.node.absent import LOOK_S, RETRY_S, absent_nodes, clear_lines
from services.lock.node.waiting import LockWaits
from services.lock.replicated.commands import Acquire, CancelWait, Release
from services.replicated.machine import ReplicatedMachine
from tests.helpers import eventually
from tests.services.lock.driving import Log

BODY = {"key": "k", "client_id": "b", "wait": 60}
KEY = {"Idempotency-Key": "one"}


def asked(owner: str, waiter: str, *, ttl_ms: int | None = None) -> Acquire:
    return Acquire("k", owner, True, ttl_ms, 5_000, waiter, "node1", "boot")


class TestKeptAnswers:
    """What takes back an effect takes back its answer."""

    def test_a_grant_that_is_withdrawn_before_the_retry_is_made_anew(self):
        log = Log()
        log(asked("b", "w1"), "K")

        withdrawn = log(CancelWait("k", "b", "w1"))
        again = log(asked("b", "w2"), "K")

        assert withdrawn["cancelled"] == "granted"
        assert (again["ok"], again["token"], again.get("replayed")) == (True, 2, None)
        assert log.holders() == ["b"]
        assert log(Acquire("k", "other"))["reason"] == "locked"

    def test_a_grant_that_is_told_again_is_not_withdrawn_with_the_first_request(self):
        log = Log()
        log(asked("b", "w1"), "K")

        again = log(asked("b", "w2"), "K")
        withdrawn = log(CancelWait("k", "b", "w1"))

        assert (again["ok"], again["token"], again["replayed"]) == (True, 1, True)
        assert withdrawn["cancelled"] is None
        assert log.holders() == ["b"]

    def test_a_grant_that_both_requests_leave_is_taken_back_with_its_answer(self):
        log = Log()
        log(asked("b", "w1"), "K")
        log(asked("b", "w2"), "K")

        for waiter in ("w1", "w2"):
            log(CancelWait("k", "b", waiter))
        log(Acquire("k", "other"))
        again = log(asked("b", "w3"), "K")

        assert log.holders() == ["other"]
        assert again == {"waiting": True}

    def test_the_answer_to_a_retry_in_somebody_elses_place_goes_with_that_place(self):
        """The first request had no key: the one with a key waits in its place, and is granted with it."""
        log = Log()
        log(Acquire("k", "a"))
        log(asked("b", "w1"))
        log(asked("b", "w2"), "K")
        log(Release("k", "a"))

        for waiter in ("w2", "w1"):
            log(CancelWait("k", "b", waiter))
        again = log(asked("b", "w3"), "K")

        assert (again["ok"], again["token"], again.get("replayed")) == (True, 3, None)

    def test_a_wait_that_is_withdrawn_leaves_its_key_unused(self):
        log = Log()
        log(Acquire("k", "a"))
        log(asked("b", "w1"), "K")
        log(CancelWait("k", "b", "w1"))

        again = log(asked("b", "w2"), "K")

        assert again == {"waiting": True}

    def test_a_retry_of_a_wait_is_told_with_the_first_and_repeats_its_answer(self):
        log = Log()
        log(Acquire("k", "a"))
        log(asked("b", "w1"), "K")
        joined = log(asked("b", "w2"), "K")
        log(Release("k", "a"))

        later = log(asked("b", "w3"), "K")

        assert joined == {"waiting": True, "waiter": "w1", "replayed": True}
        assert (later["ok"], later["token"], later["replayed"]) == (True, 2, True)

    def test_a_hold_that_ended_is_not_told_as_held(self):
        log = Log()
        log(Acquire("k", "b"), "K")
        log(Release("k", "b"))
        log(Acquire("k", "other"))

        again = log(Acquire("k", "b"), "K")

        assert again == {"ok": False, "reason": "not_held", "token": 1, "replayed": True}

    def test_what_is_left_of_a_hold_is_told(self):
        log = Log()
        log(Acquire("k", "b", True, 8_000), "K")
        log.time_ms += 3_000

        again = log(Acquire("k", "b", True, 8_000), "K")

        assert again["expires_ms"] - log.time_ms == 5_000

    def test_a_refusal_that_is_told_again_tells_who_holds_now(self):
        """It stays refused: of two tries under one key, one may be heard and the other carried out."""
        log = Log()
        log(Acquire("k", "a"))
        refused = log(Acquire("k", "b"), "K")
        log(Release("k", "a"))

        again = log(Acquire("k", "b"), "K")

        assert refused["current"]["owner"] == "a"
        assert (again["ok"], again["reason"], again["replayed"]) == (False, "locked", True)
        assert (again["current"], again["holders"]) == (None, [])


class TestClientsThatGo:
    async def test_a_withdrawal_without_a_leader_is_said_again_until_it_is_known(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        waiting = asyncio.create_task(cluster.post("/lock/acquire", BODY))
        await eventually(lambda: cluster.machine.status("k")["queue_length"] == 1)
        cluster.replicas["node1"].troubles = [NoLeader("none"), OutcomeUnknown("lost"), NoLeader("none")]

        waiting.cancel()

        await eventually(lambda: cluster.machine.status("k")["queue_length"] == 0)
        assert cluster.replicas["node1"].troubles == []
        assert cluster.hosts["node1"].parts[LockWaits].withdrawing == 0

    async def test_many_withdrawals_go_in_one_entry(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        waiting = [
            asyncio.create_task(cluster.post("/lock/acquire", {**BODY, "client_id": f"b{number}"}))
            for number in range(40)
        ]
        await eventually(lambda: cluster.machine.status("k")["queue_length"] == 40)
        before = cluster.index
        cluster.replicas["node1"].troubles = [NoLeader("none")]

        for each in waiting:
            each.cancel()

        await eventually(lambda: cluster.machine.status("k")["queue_length"] == 0)
        assert cluster.index - before <= 3

    async def test_a_lock_that_is_granted_to_nobody_here_is_given_back(self, cluster):
        """The request came into line after its withdrawal: on its way it was overtaken."""
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        host = cluster.hosts["node1"]
        cluster.apply(Acquire("k", "b", True, None, 60_000, host.new_waiter_id(), "node1", host.boot))

        await cluster.post("/lock/release", {"key": "k", "client_id": "a"})

        await eventually(lambda: not cluster.machine.status("k")["held"])

    async def test_a_lock_that_is_granted_at_once_to_nobody_here_is_given_back(self, cluster):
        """The same, where the lock was free: nobody waits for this answer any more."""
        host = cluster.hosts["node1"]

        cluster.apply(Acquire("k", "b", True, None, 60_000, host.new_waiter_id(), "node1", host.boot))

        await eventually(lambda: not cluster.machine.status("k")["held"])

    async def test_a_retry_at_another_node_is_answered_though_the_first_client_goes(self, cluster):
        """Each of both listens for itself, so no withdrawal of the one silences the other."""
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        first = asyncio.create_task(cluster.post("/lock/acquire", BODY, headers=KEY))
        await eventually(lambda: cluster.machine.status("k")["queue_length"] == 1)
        again = asyncio.create_task(cluster.post("/lock/acquire", BODY, headers=KEY, node="node2"))
        place = cluster.machine._tables.place_of
        await eventually(lambda: len(place("k", "b").listeners) == 2)

        first.cancel()
        await eventually(lambda: len(place("k", "b").listeners) == 1)
        await cluster.post("/lock/release", {"key": "k", "client_id": "a"})

        assert (await again)["token"] == 2


class TestNodesAndQuorums:
    async def test_a_wait_whose_outcome_is_unknown_goes_on(self, cluster):
        """The leader was lost with the request. To ask again is safe; a client need not hear of it."""
        cluster.replicas["node1"].troubles = [OutcomeUnknown("lost"), NoLeader("none")]

        granted = await cluster.post("/lock/acquire", BODY)

        assert granted["token"] == 1

    async def test_a_wait_without_a_leader_at_its_first_try_is_not_done(self, cluster):
        cluster.replicas["node1"].troubles = [NoLeader("none")]

        answer = await cluster.post("/lock/acquire", BODY, status=503)

        assert answer["reason"] == "no_leader"
        assert cluster.index == 0

    async def test_a_node_looks_up_what_a_snapshot_decided(self, cluster):
        """Its waiter was granted by an entry that this node never applies."""
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        granted = asyncio.create_task(cluster.post("/lock/acquire", BODY))
        standing = asyncio.create_task(cluster.post("/lock/acquire", {**BODY, "client_id": "c"}))
        await eventually(lambda: cluster.machine.status("k")["queue_length"] == 2)
        replica = cluster.replicas["node1"]
        replica.tell, tell = lambda events: None, replica.tell
        cluster.apply(Release("k", "a"))
        replica.tell = tell

        replica.tell([(RESTORED_TOPIC, None)])

        assert (await granted)["token"] == 2
        assert not standing.done()
        await cluster.post("/lock/release", {"key": "k", "client_id": "b"})
        assert (await standing)["token"] == 3

    async def test_a_node_that_stops_answers_who_waits_and_withdraws_them_in_one_entry(self, cluster):
        await cluster.post("/lock/acquire", {"key": "k", "client_id": "a"})
        waiting = [
            asyncio.create_task(cluster.post("/lock/acquire", {**BODY, "client_id": owner}, status=503))
            for owner in ("b", "c")
        ]
        await eventually(lambda: cluster.machine.status("k")["queue_length"] == 2)
        replica, before = cluster.replicas["node1"], cluster.index

        replica.close(Stopping("this node is stopping"))
        await replica.leave()

        assert [answer["reason"] for answer in await asyncio.gather(*waiting)] == ["stopping", "stopping"]
        assert cluster.machine.status("k")["queue_length"] == 0
        assert cluster.index == before + 1

    async def test_the_leader_finds_the_nodes_that_are_gone(self, cluster):
        """Silent for longer than the bound, or no member any more; only those at which somebody waits."""
        cluster.apply(Acquire("k", "a"))
        for owner, node in (("b", "node2"), ("c", "node3"), ("d", "node4"), ("e", "node1")):
            cluster.apply(Acquire("k", owner, True, None, 60_000, owner, node, "boot"))
        node = Leader(cluster.replicas["node1"].machine, {"node2": 1_999, "node3": 2_000, "node5": 9_999})

        assert absent_nodes(node, 2_000) == ["node3", "node4"]

    async def test_a_node_that_is_back_is_not_cleared_because_it_was_gone_when_the_leader_tried(self, cluster):
        """The leader could not reach anybody itself; its old judgement must not count once it can."""
        cluster.apply(Acquire("k", "a"))
        cluster.apply(Acquire("k", "b", True, None, 60_000, "b", "node2", "boot"))
        node = Leader(cluster.replicas["node1"].machine, {"node2": 2_000})
        node.troubles = [None, NoLeader("none")]
        node.on_trouble = lambda: node.silences.update(node2=0)
        node.carry_out = cluster.append

        clearing = asyncio.create_task(clear_lines(cluster.hosts["node1"], node))
        await asyncio.sleep(LOOK_S + 2 * RETRY_S)
        clearing.cancel()

        assert node.troubles == []
        assert cluster.machine.status("k")["queue_length"] == 1


class Leader:
    """As much of a leading `RaftNode` as says whose node is silent."""

    id = "node1"

    def __init__(self, machine: ReplicatedMachine, silences: dict[str, int]) -> None:
        self.machine = machine
        self.silences = silences
        #: Of the next proposals, one each; None is none.
        self.troubles: list[RaftError | None] = []
        self.on_trouble: Callable[[], None] = lambda: None
        self.carry_out: Callable[[bytes], Any] = lambda command: None

    async def propose(self, command: bytes, *, parting: bool = False) -> dict[str, Any]:
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None:
            self.on_trouble()
            raise trouble
        self.carry_out(command)
        return {"more": False}

    @property
    def leads(self) -> bool:
        return True

    def silence_ms(self, member: str) -> int | None:
        return self.silences.get(member)
