"""Bugs of waits, withdrawals and kept answers."""

from tests.shell.planted import Planted

_WAITING = "services.lock.node.waiting:LockWaits"
_MACHINE = "services.lock.replicated.machine:LockMachine"
_WITHDRAWALS = "services.replicated.withdrawals:Withdrawals"

_IS_HELD = """\
        if hold is None or self._tables.has_expired(hold):
            return {**_not_held(), "token": kept.get("token", 0)}
"""

PLANTED = [
    Planted(
        "answer_of_a_cancelled_wait_is_kept",
        "a lock with two holders by the documented retry",
        "lock",
        (
            (
                "services.replicated.idempotency:IdempotencyTable.settle",
                "                self.forget(key)\n",
                "                pass\n",
            ),
            (f"{_MACHINE}.repeat", _IS_HELD, "        if hold is None:\n            return kept\n"),
        ),
    ),
    Planted(
        "hold_goes_with_the_first_request",
        "a client that was told ok loses the lock",
        "lock",
        ((f"{_MACHINE}._cancel", "        if unheard:\n", "        if False:\n"),),
    ),
    Planted(
        "hold_is_never_taken_back",
        "a lock that no client knows stays for ever",
        "lock",
        ((f"{_MACHINE}._cancel", "        self._serve(context, key, self._tables.remove_hold(hold))\n", ""),),
    ),
    Planted(
        "withdrawal_is_tried_once",
        "a lock is granted later to a client that has gone",
        "lock",
        (
            (
                f"{_WITHDRAWALS}._withdraw_all",
                "                await asyncio.sleep(RETRY_S)\n                continue\n",
                "                self._items.clear()\n                return\n",
            ),
            (f"{_WAITING}._on_told", 'elif told.answer["ok"] and', "elif False and"),
        ),
    ),
    Planted(
        "stop_answers_nobody_who_waits",
        "a node that stops leaves its waiting clients without an answer",
        "lock",
        ((f"{_WAITING}._on_closed", "for wait in self._waits.values():", "for wait in ():"),),
    ),
    Planted(
        "vanished_client_is_not_withdrawn",
        "a client that leaves is granted the lock later",
        "lock",
        (
            (
                f"{_WAITING}.acquire",
                "except (asyncio.CancelledError, OutcomeUnknown):",
                "except OutcomeUnknown:",
            ),
            (f"{_WAITING}._on_told", 'elif told.answer["ok"] and', "elif False and"),
        ),
    ),
    Planted(
        "stop_leaves_withdrawals_unsaid",
        "a node that stops leaves locks to clients that have gone",
        "lock",
        (("raft.node:RaftNode.stop", "            await self._part()\n", ""),),
    ),
    Planted(
        "unknown_outcome_ends_a_wait_without_withdrawal",
        "a client that was told that the outcome is unknown holds the lock for ever",
        "lock",
        (
            (
                f"{_WAITING}.acquire",
                "except (asyncio.CancelledError, OutcomeUnknown):",
                "except asyncio.CancelledError:",
            ),
            (f"{_WAITING}._on_told", 'elif told.answer["ok"] and', "elif False and"),
        ),
    ),
    Planted(
        "each_request_has_a_place_of_its_own",
        "a deadlock that the machine does not see",
        "lock",
        (
            (
                f"{_MACHINE}._wait",
                "place = self._place(context, command.key, command.owner)",
                "place = None",
            ),
        ),
    ),
    Planted(
        "cycle_over_a_place_in_line_is_not_seen",
        "a deadlock that the machine does not see",
        "lock",
        (
            (
                "services.lock.replicated.graph:Search._blockers",
                "for ahead in (lock.queue or {}).values():",
                "for ahead in ():",
            ),
        ),
    ),
    Planted(
        "snapshot_tells_no_waiter",
        "a client waits for a decision that is in a snapshot",
        "lock",
        ((f"{_WAITING}._on_restored", "for wait in self._waits.values():", "for wait in ():"),),
    ),
    Planted(
        "absent_node_is_not_noticed",
        "a lock is granted to a client whose node has died",
        "lock",
        (("services.lock.node.absent:absent_nodes", "if not node.leads:", "if True:"),),
    ),
    Planted(
        "earlier_lives_stay_in_line",
        "a lock is granted to a client whose node has been started anew",
        "lock",
        (
            (
                "services.lock.node.absent:clear_lines",
                "    await _drop_own(node, DropWaiters(here.node_id, here.boot))\n",
                "",
            ),
        ),
    ),
    Planted(
        "grants_of_other_nodes_are_taken_back",
        "a client loses a lock that it was told of",
        "lock",
        ((f"{_WAITING}._on_told", " and told.waiter.startswith(self._life)", ""),),
    ),
    Planted(
        "only_the_first_request_knows_of_a_grant",
        "a client that was told ok loses the lock",
        "lock",
        (
            (
                "services.lock.replicated.lines:LockLines._grant",
                "tuple(listener.id for listener in waiter.listeners)",
                "(waiter.listeners[0].id,)",
            ),
        ),
    ),
    Planted(
        "answered_wait_is_remembered",
        "a node keeps every wait that it ever had",
        "lock",
        ((f"{_WAITING}._acquire", "            del self._waits[asked.waiter]\n", "            pass\n"),),
    ),
    Planted(
        "key_is_answered_whatever_is_asked",
        "another request under a used key is told the first one's answer",
        "lock",
        (
            (
                "services.replicated.machine:ReplicatedMachine._repeat",
                "if row.fingerprint != fingerprint:",
                "if False:",
            ),
        ),
    ),
    Planted(
        "answers_are_lost_with_a_snapshot",
        "a request that is sent again is done again",
        "lock",
        (
            (
                "services.replicated.machine:ReplicatedMachine.restore",
                "idempotency.restore(next(records) for _ in range(count))",
                "[next(records) for _ in range(count)]",
            ),
        ),
    ),
]
