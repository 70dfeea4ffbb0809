"""The coherence model's nouns, and the rules for any state: who may serve what, and which answers may be given.

The rule of this file: nothing here is an event. `coherence_model` has the events; after each of them `settled` does
what happens at once.

State, integers and tuples of integers only, so that hashes are the same in every process:

    (log, nodes, leads, operations, seen, left)
    log         one machine state per entry: (term, versions, holders, present); trimmed below what all applied
    nodes       (applied, term, lease, granted, reply, grant)     reply: (age, applied, term)  grant: (age, d, term)
    leads       () or (term, q_age, wait, noop, known, notes, unwaited, pending)
    operations  (kind, node, key, index, version, leader, term, answered); of all keys: key -1, version one for each
    seen        newest version that a client has seen, per key
    left        how many puts, fills, deletes, elections, restarts and invalidations may still happen

A lead is what a node keeps that believes that it leads: the ticks since its Q, the ticks for which it gives no
answers yet, and the index of its no-op. And for each node: whether it is known to have applied the no-op, for how
many ticks it may still serve, what it must have applied before it gets a lease, and, for each key, 1 + the entry that
it must still apply.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

State = tuple
Label = tuple

#: Kinds of operations are their places in `left`. An invalidation removes every key, as if all carried one tag.
PUT, FILL, DELETE, INVALIDATE = 0, 1, 2, 5
ALL_KEYS = -1
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
    "earlier leases forgotten": "a new leader waits only for holders to which it gave a lease itself",
    "grants outlive a restart": "a node that replays its log still believes that it was granted its lines",
    "absence shown at once": "an absent key is read while others may serve the old value",
    "no margin for drift": "leaders wait no longer than a perfect clock would need",
    "tag not awaited": "an invalidation is answered while others may serve what it removed",
    "tag awaits only what it removed": "an invalidation passes over holders of what had gone just before it",
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
    #: Of all keys at once.
    invalidations: int = 0
    #: Operations under way at once.
    operations: int = 2
    bugs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        assert self.bugs <= BUGS.keys(), self.bugs


class Rules:
    """What holds in the states of one configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.nodes = range(config.nodes)
        self.keys = range(config.keys)
        self.margin = 0 if "no margin for drift" in config.bugs else config.drift
        for name in BUGS:
            setattr(self, name.replace("'", "").replace(" ", "_").replace("-", "_"), name in config.bugs)

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
            if answered or (leading and self._may_answer(lead, kind, node, key, index)):
                yield (kind, node, key, index, version, leader, term, 1)
            elif leading:
                yield operation
            # Else the leader is gone: the client hears that the outcome is unknown.

    def _may_answer(self, lead: tuple, kind: int, node: int, key: int, index: int) -> bool:
        if lead[2] and not self.no_wait_after_an_election:
            return False
        if kind == INVALIDATE:
            waited = [waited for row in lead[7] for waited in row if waited]
            if self.tag_awaits_only_what_it_removed:
                waited = [of for of in waited if of > index]
            return self.tag_not_awaited or not waited
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
            own = self.config.lease + self.config.drift - lead[1]
            if applied >= lead[3] or self.leaders_own_lease_before_the_no_op:
                lease = max(lease, own)
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
        nodes = tuple([self._node_trimmed(node, terms) if node[4] or node[5] else node for node in nodes])
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

    def _node_trimmed(self, node: tuple, terms: set[int]) -> tuple:
        *others, reply, grant = node
        if reply and reply[2] not in terms:
            reply = NONE
        if grant and grant[0] >= grant[1] and not self.lease_counted_from_receipt:
            grant = NONE
        return (*others, reply, grant)

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
        noted = zip(*[zip(*lead[4:7], *lead[7], strict=True) for lead in leading], strict=True)
        views = [
            (
                nodes[n],
                leads[n][0] if leads[n] else 0,
                holds,
                notes,
                tuple([(o[0], *o[2:5], *o[6:]) for o in operations if o[1] == n]),
            )
            for n, (holds, notes) in enumerate(zip(self._holds(log), noted, strict=True))
        ]
        views.sort()
        entries = tuple([(term, versions, present) for term, versions, _, present in log])
        return hash((entries, tuple(views), tuple([lead[:4] for lead in leading]), seen, left))
