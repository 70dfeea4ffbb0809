"""The cache's coherence protocol as a small explicit-state model, for exhaustive search.

The rule of this file: it states the protocol once more, by itself, in as few words as it takes; it shares no
code with the service. A state is violated where a node may serve a value older than one that a client has already
seen; `coherence_search` walks through everything that can happen and looks for one.

What is modelled: the order of committed entries; how far each node has applied it; the newest leader and one
that was deposed and does not know; leases, the notes that leaders keep of them, grants, pending holders and
held-back answers; messages that travel as slowly as they like, or never arrive. Time is in ticks of L / `lease`.

What is simplified, each time so that more can happen than in reality and never less:

- Votes. Any node may win at any moment, whoever is cut off from whom: majorities may lie outside of the nodes
  that hold lines, as with a leader cut off with one follower out of five.
- Rounds. `Q`, the send time of a leader's newest acknowledged round, is now for as long as it is the newest
  leader, and the moment of its fall from then on: the latest that it can be, hence the longest leases.
- Hits. A node that may serve is taken to serve at once: `seen` (the newest version that a client has seen)
  rises immediately.
- The way of a request to the leader: an operation begins when its entry is appended.

What is left out for good: logs that differ (an entry counts from the moment when it is committed) and more than
one deposed leader at a time.

State, integers and tuples of integers only, so that hashes are the same in every process:

    (log, nodes, leads, operations, seen, left)
    log         one machine state per entry: (term, versions, holders, present); trimmed below what all applied
    nodes       (applied, term, lease, granted, reply, grant)     reply: (age, applied, term)  grant: (age, d, term)
    leads       () or (term, q_age, wait, noop, known, notes, unwaited, pending)
    operations  (kind, node, key, index, version, leader, term, answered)
    seen        newest version that a client has seen, per key
    left        how many puts, fills, deletes, elections and restarts may still happen
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

State = tuple
Label = tuple

PUT, FILL, DELETE = 0, 1, 2
NONE = ()

#: Every bug that can be planted, with what it leaves out or does wrongly.
BUGS = {
    "no lease check": "a holder serves without a valid lease",
    "lease counted from receipt": "the follower counts its lease from the grant's arrival",
    "lease not bounded by Q": "a leader gives the whole of L whatever became of its own lease",
    "lease given anew too early": "a lapsed lease is given before what was not waited for is applied",
    "lease before the no-op": "a new leader's first lease does not wait for its no-op",
    "leader's own lease before the no-op": "a new leader serves its own lines before it has applied its no-op",
    "no wait after an election": "a new leader answers at once",
    "invalidation not awaited": "a put is answered while others may serve the old value",
    "fill that does not wait": "a fill is answered while others may serve the old value",
    "own node not awaited": "the writer's own node is not made pending",
    "early read by the writer": "a node serves what it was not granted",
    "lease outlives its term": "a node keeps a lease when it moves to a newer term",
    "grants outlive a restart": "a node that replays its log still believes that it was granted its lines",
    "absence shown at once": "an absent key is read while others may serve the old value",
    "no margin for drift": "leaders wait no longer than a perfect clock would need",
}


@dataclass(frozen=True)
class Config:
    """The size of one search."""

    nodes: int = 3
    keys: int = 1
    #: L in ticks.
    lease: int = 2
    #: Ticks by which a slow clock may stretch a follower's lease, and by which leaders wait longer.
    drift: int = 0
    puts: int = 1
    fills: int = 1
    deletes: int = 0
    elections: int = 1
    #: Of followers.
    restarts: int = 0
    #: Operations under way at once.
    operations: int = 2
    bugs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        assert self.bugs <= BUGS.keys(), self.bugs


def replaced(items: tuple, place: int, value: object) -> tuple:
    return (*items[:place], value, *items[place + 1 :])


class Model:
    """The transitions of one configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.nodes = range(config.nodes)
        self.keys = range(config.keys)
        self.margin = 0 if "no margin for drift" in config.bugs else config.drift
        for name in BUGS:
            setattr(self, name.replace("'", "").replace(" ", "_").replace("-", "_"), name in config.bugs)

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
        term, q_age, wait, noop, known, _, *others = self._lead(1, 0, 0, (1,) * config.nodes)
        notes = tuple(lease + self.margin if lease and n else 0 for n in self.nodes)
        lead = (term, q_age, wait, noop, known, notes, *others)
        left = (config.puts, config.fills, config.deletes, config.elections, config.restarts)
        return (log, nodes, (lead, *(NONE for _ in self.nodes[1:])), (), ones, left)

    def _lead(self, term: int, wait: int, noop: int, known: tuple) -> tuple:
        zeros = (0,) * self.config.nodes
        return (term, 0, wait, noop, known, zeros, zeros, (zeros,) * self.config.keys)

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
                lead = (term, q_age, max(wait - 1, 0), noop, known, notes, unwaited, pending)
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
        log, nodes, *rest = state
        applied, term, *others = nodes[node]
        if applied + 1 < len(log) and log[applied + 1][0] <= term:
            yield ("apply", node), (log, replaced(nodes, node, (applied + 1, term, *others)), *rest)

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
        if known_applied >= noop:
            known = replaced(known, node, 1)
            wait = 0 if all(known) else wait
            known = known if wait else (1,) * len(known)
        lease = self.config.lease if self.lease_not_bounded_by_Q else self.config.lease - q_age
        if lease > 0 and (notes[node] or self._may_give_anew(node, known_applied, leads[leader])):
            notes = replaced(notes, node, max(notes[node], lease + self.margin))
            grant = (age, lease, reply_term) if reply_term == own_term else grant
        lead = (term, q_age, wait, noop, known, notes, unwaited, pending)
        nodes = replaced(nodes, node, (applied, own_term, own_lease, granted, NONE, grant))
        yield ("receive", leader, node), (log, nodes, replaced(leads, leader, lead), *rest)

    def _may_give_anew(self, node: int, known_applied: int, lead: tuple) -> bool:
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
        """A node hears of the newest term: it stops leading, and its lease ends with the term that it is of."""
        log, nodes, leads, *rest = state
        applied, term, lease, granted, reply, _ = nodes[node]
        newest_term = log[-1][0]
        if term == newest_term:
            return
        lease = lease if self.lease_outlives_its_term else 0
        nodes = replaced(nodes, node, (applied, newest_term, lease, granted, reply, NONE))
        yield ("learn", node), (log, nodes, replaced(leads, node, NONE), *rest)

    def _elect(self, state: State, node: int) -> Iterator[tuple[Label, State]]:
        """`node` wins the next term. Its log has every committed entry; it appends its no-op."""
        log, nodes, leads, operations, seen, left = state
        newest_term = log[-1][0]
        if not left[3] or (leads[node] and leads[node][0] == newest_term):
            return
        term = newest_term + 1
        applied, _, _, granted, reply, _ = nodes[node]
        log = (*log, (term, *log[-1][1:]))
        if not self.leaders_own_lease_before_the_no_op:
            # Until it has applied its no-op it shows and appends nothing: as well do it now.
            applied = len(log) - 1
        nodes = replaced(nodes, node, (applied, term, 0, granted, reply, NONE))
        wait = self.config.lease + self.margin
        known = tuple(int(n == node) for n in self.nodes)
        lead = self._lead(term, wait, len(log) - 1, known)
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
        nodes = replaced(nodes, leader, (len(log) - 1, *nodes[leader][1:]))
        operation = (kind, node, key, len(log) - 1, versions[key], leader, term, 0)
        left = replaced(left, kind, left[kind] - 1)
        return (log, nodes, replaced(leads, leader, lead), (*operations, operation), seen, left)

    def _invalidate(self, lead: tuple, holders: int, key: int, writer: int, leader: int, index: int) -> tuple:
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
            if kind != DELETE:
                granted = replaced(granted, key, version)
                after = replaced(nodes, node, (applied, term, lease, granted, reply, grant))
            remaining = operations[:place] + operations[place + 1 :]
            shown = replaced(seen, key, max(seen[key], version))
            yield ("complete", kind, node, key), (log, after, leads, remaining, shown, left)

    # What follows at once

    def settled(self, state: State) -> State:
        """Answers that can be given are given, hits that can be had are had, what no longer matters is cut."""
        log, nodes, leads, operations, seen, left = state
        if operations:
            operations = tuple(sorted(self._answered(operations, leads)))
        seen = tuple(max(seen[key], *self._shown(state, key)) for key in self.keys)
        return self._trimmed((log, nodes, leads, operations, seen, left))

    def is_violated(self, state: State) -> bool:
        """Something may be shown that is older than what a client has seen."""
        return any(version < state[4][key] for key in self.keys for version in self._shown(state, key)[1:])

    def _answered(self, operations: tuple, leads: tuple) -> Iterator[tuple]:
        for operation in operations:
            kind, node, key, index, version, leader, term, answered = operation
            lead = leads[leader]
            leading = lead and lead[0] == term
            if answered or (leading and self._may_answer(lead, kind, node, key)):
                yield (kind, node, key, index, version, leader, term, 1)
            elif leading:
                yield operation
            # Else the leader is gone: the client hears that the outcome is unknown.

    def _may_answer(self, lead: tuple, kind: int, node: int, key: int) -> bool:
        if lead[2] and not self.no_wait_after_an_election:
            return False
        if kind == FILL:
            return self.fill_that_does_not_wait or not any(lead[7][key])
        others = any(waited for holder, waited in enumerate(lead[7][key]) if holder != node)
        return self.invalidation_not_awaited or not others

    def _shown(self, state: State, key: int) -> list[int]:
        """0, and the versions of `key` that some node may show now, without a log entry."""
        log, nodes, *_ = state
        shown = [0, *(log[nodes[n][0]][1][key] for n in self.nodes if self._may_serve(state, n, key))]
        if not log[-1][3][key] and self._may_show_absence(state, key):
            shown.append(log[-1][1][key])
        return shown

    def _may_serve(self, state: State, node: int, key: int) -> bool:
        log, nodes, leads, *_ = state
        applied, _, lease, granted, *_ = nodes[node]
        _, versions, holders, _ = log[applied]
        if not holders[key] >> node & 1:
            return False
        if granted[key] != versions[key] and not self.early_read_by_the_writer:
            return False
        lead = leads[node]
        if lead:
            lease = self.config.lease + self.config.drift - lead[1]
            if applied < lead[3] and not self.leaders_own_lease_before_the_no_op:
                lease = 0
        return lease > 0 or self.no_lease_check

    def _may_show_absence(self, state: State, key: int) -> bool:
        """A ReadIndex round finds the key absent, and the leader waits for nobody on its account."""
        log, nodes, leads, *_ = state
        if not any(node[0] == len(log) - 1 for node in nodes):
            return False
        lead = next(lead for lead in leads if lead and lead[0] == log[-1][0])
        return self.absence_shown_at_once or not (lead[2] or any(lead[7][key]))

    def _trimmed(self, state: State) -> State:
        """Without what can have no effect any more. Indexes count from the oldest entry that matters."""
        log, nodes, leads, operations, seen, left = state
        leads = tuple([NONE if lead and self._is_spent(lead, log, operations) else lead for lead in leads])
        terms = {lead[0] for lead in leads if lead}
        nodes = tuple([self._node_trimmed(node, log, terms) for node in nodes])
        base = min([min(node[0], node[4][1]) if node[4] else node[0] for node in nodes])
        base = 0 if left[4] else base
        if base:
            nodes = tuple(
                (applied - base, term, lease, granted, (r[0], r[1] - base, r[2]) if r else NONE, grant)
                for applied, term, lease, granted, r, grant in nodes
            )
            leads = tuple(self._lead_trimmed(lead, base) if lead else NONE for lead in leads)
            operations = tuple((*o[:3], max(o[3] - base, 0), *o[4:]) for o in operations)
        return (log[base:], nodes, leads, operations, seen, left)

    def _is_spent(self, lead: tuple, log: tuple, operations: tuple) -> bool:
        """A deposed leader whose own lease is over and whom nobody awaits."""
        if lead[0] == log[-1][0] or lead[1] < self.config.lease + self.config.drift:
            return False
        return not self.lease_not_bounded_by_Q and not any(o[6] == lead[0] and not o[7] for o in operations)

    def _node_trimmed(self, node: tuple, log: tuple, terms: set[int]) -> tuple:
        applied, term, lease, granted, reply, grant = node
        if reply and reply[2] not in terms:
            reply = NONE
        if grant and grant[0] >= grant[1] and not self.lease_counted_from_receipt:
            grant = NONE
        if not self.config.restarts:
            versions = log[applied][1]
            granted = tuple([g if g >= version else 0 for g, version in zip(granted, versions, strict=True)])
        return (applied, term, lease, granted, reply, grant)

    @staticmethod
    def _lead_trimmed(lead: tuple, base: int) -> tuple:
        term, q_age, wait, noop, known, notes, unwaited, pending = lead
        unwaited = tuple(max(index - base, 0) for index in unwaited)
        pending = tuple(tuple(max(waited - base, 1) if waited else 0 for waited in row) for row in pending)
        return (term, q_age, wait, max(noop - base, 0), known, notes, unwaited, pending)

    @cache  # noqa: B019 - a model lives as long as its search
    def _holds(self, log: tuple) -> list[tuple]:
        """For each node, which lines it holds after each entry."""
        return [tuple([h >> n & 1 for entry in log for h in entry[2]]) for n in self.nodes]

    def mark(self, state: State) -> int:
        """A 64-bit hash that is equal for states which differ only in which node is which: all that is said of a
        node is gathered with it, and the nodes are sorted. A leader is told by its term."""
        log, nodes, leads, operations, seen, left = state
        leading = sorted([lead for lead in leads if lead])
        views = []
        for n, holds in enumerate(self._holds(log)):
            noted = tuple(
                [(lead[4][n], lead[5][n], lead[6][n], *[row[n] for row in lead[7]]) for lead in leading]
            )
            asked = tuple([(o[0], *o[2:5], *o[6:]) for o in operations if o[1] == n])
            views.append((nodes[n], leads[n][0] if leads[n] else 0, holds, noted, asked))
        views.sort()
        entries = tuple([(term, versions, present) for term, versions, _, present in log])
        return hash((entries, tuple(views), tuple([lead[:4] for lead in leading]), seen, left))
