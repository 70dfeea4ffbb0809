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
                "                return\n",
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
        "grant_to_nobody_is_kept",
        "a request that is decided after its client has gone keeps the lock",
        "lock",
        ((f"{_WAITING}._on_told", 'elif told.answer["ok"] and', "elif False and"),),
    ),
    Planted(
        "answer_to_nobody_counts_as_told",
        "an answer that reaches nobody keeps its effect",
        "lock",
        (
            (
                "services.http.routes:_told",
                "        is_told = is_there and",
                "        is_told = True or is_there and",
            ),
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
        ),
    ),
    Planted(
        "timeout_leaves_the_place_in_line",
        "a wait that ended is granted later",
        "lock",
        (
            (
                f"{_MACHINE}._join",
                "        others = tuple(listener for listener in place.listeners if listener.id != command.waiter)\n",
                "        others = place.listeners\n",
            ),
        ),
    ),
]
