"""Bugs of the cache: who may serve what, answers that wait for others, leases to fill, and watches."""

from tests.shell.planted import Planted

_COHERENCE = "services.cache.node.coherence:Coherence"
_INVALIDATIONS = "services.cache.node.invalidations:Invalidations"
_FILLING = "services.cache.node.filling:FillLines"
_CHANGES = "services.cache.node.changes:Changes"
_MACHINE = "services.cache.replicated.machine:CacheMachine"
_STORE = "services.cache.replicated.store:LineStore"

_IS_INVALIDATING = "if transition.cause in INVALIDATING:"
_IS_MORE = "if transition.cause in INVALIDATING - "
_MAY_SERVE = "        if not self._node.may_serve_locally():\n            return None\n"

PLANTED = [
    Planted(
        "hit_after_the_lease",
        "a node that is cut off serves what others have replaced",
        "cache",
        ((f"{_COHERENCE}.hit", _MAY_SERVE, ""),),
    ),
    Planted(
        "lease_is_taken_for_longer",
        "a node serves longer than its leader waits for",
        "cache",
        (
            (
                "raft.core.lease_records:Leases.on_append_entries",
                "replied_ms + duration_ms",
                "replied_ms + duration_ms * 3 // 2",
            ),
        ),
    ),
    Planted(
        "new_leader_waits_for_no_earlier_lease",
        "a write is acknowledged while a node serves by the lease of the former leader",
        "cache",
        (
            (
                "raft.core.lease_records:Leases.on_elected",
                "self._earlier_until_ms = now_ms + longest_ms",
                "self._earlier_until_ms = 0",
            ),
        ),
    ),
    Planted(
        "write_waits_for_nobody",
        "a write is acknowledged while others serve the old value",
        "cache",
        ((f"{_INVALIDATIONS}.on_transition", _IS_INVALIDATING, _IS_MORE + '{"write"}:'),),
    ),
    Planted(
        "removal_waits_for_nobody",
        "a removal is acknowledged while others serve the value",
        "cache",
        ((f"{_INVALIDATIONS}.on_transition", _IS_INVALIDATING, _IS_MORE + '{"delete"}:'),),
    ),
    Planted(
        "invalidation_of_a_tag_waits_for_nobody",
        "a tag is invalidated while others serve its values",
        "cache",
        ((f"{_INVALIDATIONS}.on_invalidated", "nodes = sorted({*invalidated.holders, *self._owed})", "nodes = []"),),
    ),
    Planted(
        "fill_waits_for_nobody",
        "a read shows the new value while others serve the old one",
        "cache",
        (
            (
                f"{_MACHINE}.apply",
                "self._announce(context, keys, writer)",
                "isinstance(command, (Fill, FillMany)) or self._announce(context, keys, writer)",
            ),
        ),
    ),
    Planted(
        "repeat_waits_for_nobody",
        "a repeated write is acknowledged while others serve the old value",
        "cache",
        ((f"{_MACHINE}.repeat", '        self._announce(context, keys_of(command), "")\n', ""),),
    ),
    Planted(
        "absence_is_told_too_early",
        "a key is told to be absent while others serve its value",
        "cache",
        ((f"{_COHERENCE}.is_surely_absent", "self._removed.get(key, known_since_ms) <= known_since_ms", "True"),),
    ),
    Planted(
        "expired_line_is_served",
        "a value is served past its time to live",
        "cache",
        (
            (f"{_COHERENCE}.hit", "if line.expires_at is not None and", "if False and"),
            (f"{_INVALIDATIONS}.on_transition", _IS_INVALIDATING, _IS_MORE + '{"expire"}:'),
        ),
    ),
    Planted(
        "old_version_can_be_swapped",
        "a swap overwrites what its client has not seen",
        "cache",
        (
            (
                f"{_MACHINE}._put",
                "command.if_version != _version(line)",
                "command.if_version != _version(line) and not 0 < command.if_version < _version(line)",
            ),
        ),
    ),
    Planted(
        "lease_goes_with_its_first_telling",
        "a client that was told a lease cannot fill",
        "cache",
        ((f"{_FILLING}._question", "bool(caller.claim) and", "False and"),),
    ),
    Planted(
        "lease_that_no_caller_has_stays",
        "nobody may fill a key until the lease of a client that has gone ends",
        "cache",
        (
            (
                f"{_FILLING}._maybe_owe",
                "            self._owed.add(key, (key, lease.token, told))\n",
                "            pass\n",
            ),
        ),
    ),
    Planted(
        "lease_to_nobody_counts_as_told",
        "nobody may fill a key until the lease of a client that has gone ends",
        "cache",
        ((f"{_FILLING}.take_back", "        if given is None or given.token != token:\n", "        if True:\n"),),
    ),
    Planted(
        "write_leaves_the_lease",
        "a value that was computed before a write replaces what was written",
        "cache",
        ((f"{_STORE}._write", "        self._end_lease(context, key)\n", ""),),
    ),
    Planted(
        "invalidation_leaves_leases",
        "a value that was computed before its tag was invalidated is stored",
        "cache",
        (("services.cache.replicated.fill_leases:FillLeases.on_invalidated", "if not self._leases:", "if True:"),),
    ),
    Planted(
        "end_of_a_lease_wakes_nobody",
        "who waits for a value is not told of it",
        "cache",
        ((f"{_FILLING}._on_lease_ended", "if line is not None:", "if False:"),),
    ),
    Planted(
        "forgotten_history_is_no_gap",
        "a watcher that comes again misses changes and is not told so",
        "cache",
        ((f"{_CHANGES}.watch", "since is not None and since < self._kept_after", "False"),),
    ),
    Planted(
        "snapshot_is_no_gap",
        "a watcher misses what a snapshot skipped and is not told so",
        "cache",
        ((f"{_CHANGES}._on_restored", "if watcher.after < self._kept_after:", "if False:"),),
    ),
    Planted(
        "watch_goes_on_from_now",
        "a watcher that comes again misses changes",
        "cache",
        ((f"{_CHANGES}.watch", "            for change in self._history:\n", "            for change in ():\n"),),
    ),
    Planted(
        "changes_of_an_entry_have_one_position",
        "a watcher is told of one change of an entry alone",
        "cache",
        ((f"{_CHANGES}._on_transition", "number + 1 if transition.index == index else 0", "0"),),
    ),
    Planted(
        "slow_watcher_loses_changes",
        "a watcher that reads late misses changes and is not told so",
        "cache",
        ((f"{_CHANGES}._offer", "            self._lose(watcher, change.position, SLOW)\n", "            pass\n"),),
    ),
    Planted(
        "end_of_a_stream_is_not_told",
        "a stream of changes breaks when its node stops",
        "cache",
        (("services.cache.watching:watch_changes", '        yield [Event("end", End())]\n', ""),),
    ),
]
