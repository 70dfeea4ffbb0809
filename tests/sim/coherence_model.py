"""The cache's coherence protocol as a small explicit-state model, for exhaustive search.

The rule of this file: it states the protocol a second time, as shortly as possible, and shares no code with the
service. A state is a violation if a node may serve a value older than one that a client has already seen.
`coherence_search` walks through everything that can happen and looks for such a state.

What is modelled: the order of committed entries; how far each node has applied it; the newest leader and one that was
deposed and does not know; leases, the notes that leaders keep of them, grants, pending holders and withheld answers;
messages that take any time, or never arrive. Time is in ticks of L / `lease`.

What is simplified, always so that more can happen than in reality and never less:

- Votes. Any node may win at any moment, whichever nodes are cut off: the majority may be outside of the nodes that
  hold lines, as when a leader and one follower of five are cut off.
- Rounds. `Q`, the send time of a leader's newest acknowledged round, is the present moment as long as it is the
  newest leader, and the moment of its fall after that. That is the latest possible `Q`, so leases are the longest
  possible.
- Hits. A node that may serve counts as serving at once: `seen` (the newest version that a client has seen) rises
  immediately.
- The way of a request to the leader: an operation begins when its entry is appended.

What is left out: logs that differ (an entry counts from the moment when it is committed), more than one deposed
leader at a time, more than one reply and one grant of a lease under way for each node.

`coherence_rules` says what a state consists of.
"""

from collections.abc import Iterator

from tests.sim.coherence_rules import ALL_KEYS, DELETE, FILL, INVALIDATE, NONE, PUT, Label, Rules, State


def replaced(items: tuple, place: int, value: object) -> tuple:
    return (*items[:place], value, *items[place + 1 :])


class Model(Rules):
    """The transitions of one configuration."""

    def first(self, holders: int, lease: int = 0) -> State:
        """Node 0 leads, everyone has applied everything; `holders` (a bit per node) hold version 1 of each key
        and were granted it; followers have a lease of so many ticks, of which their leader knows."""
        config = self.config
        ones = (1,) * config.keys
        log = ((1, ones, (holders,) * config.keys, ones),)
        nodes = tuple(
            (0, 1, (lease + config.drift if lease and n else 0), ones if holders >> n & 1 else (0,) * config.keys,
             NONE, NONE)
            for n in self.nodes
        )  # fmt: skip
        notes = tuple(lease + self.margin if lease and n else 0 for n in self.nodes)
        lead = self._lead(1, 0, 0, (1,) * config.nodes, notes)
        left = (
            config.puts,
            config.fills,
            config.deletes,
            config.elections,
            config.restarts,
            config.invalidations,
        )
        return (log, nodes, (lead, *(NONE for _ in self.nodes[1:])), (), ones, left)

    def _lead(self, term: int, wait: int, noop: int, known: tuple, notes: tuple) -> tuple:
        zeros = (0,) * self.config.nodes
        return (term, 0, wait, noop, known, notes, zeros, (zeros,) * self.config.keys)

    # What can happen

    def successors(self, state: State) -> Iterator[tuple[Label, State]]:
        """Every event that is possible, and the state after it."""
        yield from self._tick(state)
        for node in self.nodes:
            yield from self._apply(state, node)
            yield from self._reply(state, node)
            yield from self._receive(state, node)
            yield from self._deliver(state, node)
            yield from self._learn(state, node)
            yield from self._elect(state, node)
            yield from self._restart(state, node)
            yield from self._operate(state, node)
        yield from self._complete(state)

    def _tick(self, state: State) -> Iterator[tuple[Label, State]]:
        """One tick passes everywhere."""
        log, nodes, leads, operations, seen, left = state
        oldest = self.config.lease
        newest_term = log[-1][0]
        aged_nodes = []
        for applied, term, lease, granted, reply, grant in nodes:
            if reply:
                reply = (min(reply[0] + 1, oldest), *reply[1:])
            if grant:
                grant = (min(grant[0] + 1, oldest), *grant[1:])
            aged_nodes.append((applied, term, max(lease - 1, 0), granted, reply, grant))
        aged_leads = []
        for lead in leads:
            if lead:
                term, q_age, wait, noop, known, notes, unwaited, pending = lead
                if term < newest_term:
                    q_age = min(q_age + 1, oldest + self.config.drift)
                notes = tuple(max(note - 1, 0) for note in notes)
                unwaited, pending = self._lapse(notes, unwaited, pending)
                wait = max(wait - 1, 0)
                known = known if wait else (1,) * len(known)
                lead = (term, q_age, wait, noop, known, notes, unwaited, pending)
            aged_leads.append(lead)
        yield ("tick",), (log, tuple(aged_nodes), tuple(aged_leads), operations, seen, left)

    def _lapse(self, notes: tuple, unwaited: tuple, pending: tuple) -> tuple[tuple, tuple]:
        """Holders whose leases have run out are waited for no longer."""
        for key in self.keys:
            for node in self.nodes:
                waited = pending[key][node]
                if waited and not notes[node]:
                    unwaited = replaced(unwaited, node, max(unwaited[node], waited - 1))
                    pending = replaced(pending, key, replaced(pending[key], node, 0))
        return unwaited, pending

    def _apply(self, state: State, node: int) -> Iterator[tuple[Label, State]]:
        """A node applies the next entry; those of a leader that it does not follow yet it cannot know of."""
        log, nodes, leads, *rest = state
        applied, term, lease, granted, *others = nodes[node]
        if applied + 1 == len(log) or log[applied + 1][0] > term:
            return
        applied += 1
        granted = self._still_granted(granted, log[applied][1])
        if leads[node] and applied >= leads[node][3]:
            leads = replaced(leads, node, self._with_known(leads[node], node))
        yield ("apply", node), (
            log, replaced(nodes, node, (applied, term, lease, granted, *others)), leads, *rest
        )  # fmt: skip

    def _still_granted(self, granted: tuple, versions: tuple) -> tuple:
        """Without grants of older versions than what is applied: they matter only where the log is replayed."""
        if self.config.restarts:
            return granted
        return tuple([g if g >= version else 0 for g, version in zip(granted, versions, strict=True)])

    @staticmethod
    def _with_known(lead: tuple, node: int) -> tuple:
        """The leader knows that `node` has applied its no-op; once all have, it need not wait."""
        term, q_age, wait, noop, known, *others = lead
        known = replaced(known, node, 1)
        if all(known) or not wait:
            wait, known = 0, (1,) * len(known)
        return (term, q_age, wait, noop, known, *others)

    def _reply(self, state: State, node: int) -> Iterator[tuple[Label, State]]:
        """A follower sends an append reply to the leader of its term. One may be under way; an older is lost."""
        log, nodes, leads, *rest = state
        applied, term, lease, granted, reply, grant = nodes[node]
        fresh = (0, applied, term)
        if leads[node] or reply == fresh or not any(lead and lead[0] == term for lead in leads):
            return
        yield ("reply", node), (
            log, replaced(nodes, node, (applied, term, lease, granted, fresh, grant)), leads, *rest
        )  # fmt: skip

    def _receive(self, state: State, node: int) -> Iterator[tuple[Label, State]]:
        """The leader receives `node`'s reply, notes a lease where it may give one, and sends it off."""
        log, nodes, leads, *rest = state
        applied, own_term, own_lease, granted, reply, grant = nodes[node]
        leader = next((n for n in self.nodes if reply and leads[n] and leads[n][0] == reply[2]), None)
        if leader is None:
            return
        age, known_applied, reply_term = reply
        term, q_age, wait, noop, known, notes, unwaited, pending = leads[leader]
        pending = tuple(
            replaced(row, node, 0) if row[node] and row[node] - 1 <= known_applied else row for row in pending
        )
        lease = self.config.lease if self.lease_not_bounded_by_Q else self.config.lease - q_age
        if lease > 0 and self._may_give(node, known_applied, leads[leader]):
            notes = replaced(notes, node, max(notes[node], lease + self.margin))
            grant = (age, lease, reply_term) if reply_term == own_term else grant
        lead = (term, q_age, wait, noop, known, notes, unwaited, pending)
        lead = self._with_known(lead, node) if known_applied >= noop else lead
        nodes = replaced(nodes, node, (applied, own_term, own_lease, granted, NONE, grant))
        yield ("receive", leader, node), (log, nodes, replaced(leads, leader, lead), *rest)

    def _may_give(self, node: int, known_applied: int, lead: tuple) -> bool:
        _, _, _, noop, _, _, unwaited, _ = lead
        if known_applied < noop and not self.lease_before_the_no_op:
            return False
        return known_applied >= unwaited[node] or self.lease_given_anew_too_early

    def _deliver(self, state: State, node: int) -> Iterator[tuple[Label, State]]:
        """The grant of a lease arrives: it runs from the send time of the reply that it names."""
        log, nodes, *rest = state
        applied, term, lease, granted, reply, grant = nodes[node]
        if not grant:
            return
        age, duration, _ = grant
        runs = duration - (0 if self.lease_counted_from_receipt else age)
        lease = max(lease, runs + self.config.drift) if runs > 0 else lease
        yield ("lease", node), (
            log, replaced(nodes, node, (applied, term, lease, granted, reply, NONE)), *rest
        )  # fmt: skip

    def _learn(self, state: State, node: int) -> Iterator[tuple[Label, State]]:
        """A node hears of the newest term: it stops leading and takes no grant of the old term any more. A lease
        that it has runs on: the new leader reckons with it."""
        log, nodes, leads, *rest = state
        applied, term, lease, granted, reply, _ = nodes[node]
        newest_term = log[-1][0]
        if term == newest_term:
            return
        nodes = replaced(nodes, node, (applied, newest_term, lease, granted, reply, NONE))
        yield ("learn", node), (log, nodes, replaced(leads, node, NONE), *rest)

    def _elect(self, state: State, node: int) -> Iterator[tuple[Label, State]]:
        """`node` wins the next term. Its log has every committed entry; it appends its no-op."""
        log, nodes, leads, operations, seen, left = state
        newest_term = log[-1][0]
        if not left[3] or (leads[node] and leads[node][0] == newest_term):
            return
        term = newest_term + 1
        applied, _, lease, granted, reply, _ = nodes[node]
        log = (*log, (term, *log[-1][1:]))
        if not lease and not self.leaders_own_lease_before_the_no_op:
            # Until it has applied its no-op it shows and appends nothing: as well do it now.
            applied = len(log) - 1
            granted = self._still_granted(granted, log[applied][1])
        nodes = replaced(nodes, node, (applied, term, lease, granted, reply, NONE))
        wait = self.config.lease + self.margin
        known = tuple(int(n == node and applied == len(log) - 1) for n in self.nodes)
        reckoned = 0 if self.earlier_leases_forgotten else wait
        notes = tuple(0 if n == node else reckoned for n in self.nodes)
        lead = self._lead(term, wait, len(log) - 1, known, notes)
        # Only one deposed leader at a time is followed further: an older one is taken to have stopped.
        older = [n for n in self.nodes if leads[n] and leads[n][0] < newest_term]
        for n in older:
            leads = replaced(leads, n, NONE)
        left = replaced(left, 3, left[3] - 1)
        yield ("elect", node), (log, nodes, replaced(leads, node, lead), operations, seen, left)

    def _restart(self, state: State, node: int) -> Iterator[tuple[Label, State]]:
        """A follower starts again, with an older machine; what it was told before means nothing to it."""
        log, nodes, leads, operations, seen, left = state
        if not left[4] or leads[node]:
            return
        applied, term, _, granted, _, _ = nodes[node]
        granted = granted if self.grants_outlive_a_restart else (0,) * self.config.keys
        left = replaced(left, 4, left[4] - 1)
        operations = tuple(o for o in operations if o[1] != node)
        for earlier in range(applied + 1):
            restarted = replaced(nodes, node, (earlier, term, 0, granted, NONE, NONE))
            yield ("restart", node, earlier), (log, restarted, leads, operations, seen, left)

    def _operate(self, state: State, node: int) -> Iterator[tuple[Label, State]]:
        """A client asks `node` for a write or a fill: the newest leader appends it and applies it."""
        log, nodes, leads, operations, _, left = state
        leader = next(n for n in self.nodes if leads[n] and leads[n][0] == log[-1][0])
        if nodes[leader][0] < len(log) - 1 or len(operations) >= self.config.operations:
            return
        for kind, name in ((PUT, "put"), (FILL, "fill"), (DELETE, "delete")):
            for key in self.keys if left[kind] else ():
                present = log[-1][3][key]
                if present or kind == PUT:
                    yield (name, node, key), self._append(state, kind, node, key, leader)
        if left[INVALIDATE]:
            yield ("invalidate", node), self._append_invalidation(state, node, leader)

    def _append(self, state: State, kind: int, node: int, key: int, leader: int) -> State:
        log, nodes, leads, operations, seen, left = state
        term, versions, holders, present = log[-1]
        before = holders[key]
        lead = leads[leader]
        if kind == FILL:
            holders = replaced(holders, key, before | 1 << node)
        else:
            versions = replaced(versions, key, versions[key] + 1)
            holders = replaced(holders, key, 1 << node if kind == PUT else 0)
            present = replaced(present, key, int(kind == PUT))
            lead = self._invalidate(lead, before, key, node, leader, len(log))
        log = (*log, (term, versions, holders, present))
        _, own_term, lease, granted, *others = nodes[leader]
        granted = self._still_granted(granted, versions)
        nodes = replaced(nodes, leader, (len(log) - 1, own_term, lease, granted, *others))
        operation = (kind, node, key, len(log) - 1, versions[key], leader, term, 0)
        left = replaced(left, kind, left[kind] - 1)
        return (log, nodes, replaced(leads, leader, lead), (*operations, operation), seen, left)

    def _append_invalidation(self, state: State, node: int, leader: int) -> State:
        """Every key that is there goes by one entry."""
        log, nodes, leads, operations, seen, left = state
        term, versions, holders, present = log[-1]
        lead = leads[leader]
        for key in self.keys:
            if present[key]:
                versions = replaced(versions, key, versions[key] + 1)
                lead = self._invalidate(lead, holders[key], key, NONE, leader, len(log))
        log = (*log, (term, versions, (0,) * self.config.keys, (0,) * self.config.keys))
        _, own_term, lease, granted, *others = nodes[leader]
        granted = self._still_granted(granted, versions)
        nodes = replaced(nodes, leader, (len(log) - 1, own_term, lease, granted, *others))
        operation = (INVALIDATE, node, ALL_KEYS, len(log) - 1, versions, leader, term, 0)
        left = replaced(left, INVALIDATE, left[INVALIDATE] - 1)
        return (log, nodes, replaced(leads, leader, lead), (*operations, operation), seen, left)

    def _invalidate(self, lead: tuple, holders: int, key: int, writer: int | tuple, leader: int, index: int) -> tuple:
        """Every earlier holder is pending, or, where it has no lease, passed over and noted so."""
        *head, notes, unwaited, pending = lead
        for node in self.nodes:
            if not holders >> node & 1 or node == leader or (node == writer and self.own_node_not_awaited):
                continue
            if notes[node]:
                pending = replaced(pending, key, replaced(pending[key], node, index + 1))
            else:
                unwaited = replaced(unwaited, node, index)
        return (*head, notes, unwaited, pending)

    def _complete(self, state: State) -> Iterator[tuple[Label, State]]:
        """A leader's answer reaches the node, which has applied the entry: the client hears, the node is granted
        the version."""
        log, nodes, leads, operations, seen, left = state
        for place, (kind, node, key, index, version, _, _, answered) in enumerate(operations):
            applied, term, lease, granted, reply, grant = nodes[node]
            if not answered or applied < index:
                continue
            after = nodes
            if kind in (PUT, FILL):
                granted = self._still_granted(replaced(granted, key, version), log[applied][1])
                after = replaced(nodes, node, (applied, term, lease, granted, reply, grant))
            remaining = operations[:place] + operations[place + 1 :]
            if key == ALL_KEYS:
                shown = tuple(map(max, seen, version))
            else:
                shown = replaced(seen, key, max(seen[key], version))
            yield ("complete", kind, node, key), (log, after, leads, remaining, shown, left)
