"""What clients of queues were told, held against itself: whether there is any way in which all of it can be true.

What the rules stand on:

- A delivery begins between its request's `asked_us` and its `told_us`, and is out until its visibility after *asking*
  is over at the earliest. So two deliveries of one message, or a delivery and an ack, contradict each other only if
  they do so for each moment in which they may have begun.
- Receipts rise over the life of a group, so they tell in which order two deliveries began.
- A delivery whose client was not told may be given back uncounted, at any time, and may even begin later. So where
  such a request (`Untold`) was sent before, nothing is said about what should have been there.
- A redrive makes dead letters as if they were new: their deliveries count from one again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.shell.queue_record import Delivery, Ending, Peeked, Popped, Record, Redrive, Sent, ToldAgain

#: Times count so much less, for what cluster time may run fast, and for the leader's part of a stall.
TTL_SLACK = 0.97
#: Later than everything.
NEVER_US = 1 << 60


@dataclass(slots=True)
class Life:
    """All that is known of one message."""

    msg_id: str
    #: Under which names it was seen: one, where all is well.
    names: dict[str, None] = field(default_factory=dict)
    #: By receipt.
    deliveries: list[Delivery] = field(default_factory=list)
    pops: list[Popped] = field(default_factory=list)
    peeked: list[Peeked] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    told_again: list[ToldAgain] = field(default_factory=list)
    #: Until when a delivery was certainly out, by receipt.
    out_until_us: dict[int, int] = field(default_factory=dict)
    queue: str = ""

    @property
    def first(self) -> Delivery | Popped | None:
        """Its first delivery that anybody was told of."""
        return next(iter((*self.deliveries, *self.pops)), None)

    @property
    def is_gone(self) -> bool:
        """Somebody ended it for good, or may have."""
        return bool(self.pops) or any(each.kind == "ack" and each.ok is not False for each in self.endings)


def judge(record: Record) -> str:
    """What is wrong with the record; empty where nothing is."""
    return next(_Judge(record).complaints(), "")


def _at_least_us(seconds: float) -> int:
    return round(seconds * TTL_SLACK * 1_000_000)


class _Judge:
    """One record. Each `_check` gives what is wrong."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._lives: dict[str, Life] = {}
        self._redrives: dict[str, list[Redrive]] = defaultdict(list)
        for redrive in record.redrives:
            self._redrives[redrive.queue].append(redrive)
        #: When in a queue a delivery may first have begun of which nobody was told.
        self._unsure_us: dict[str, int] = {}
        for untold in record.untold:
            if untold.kind == "deq":
                before_us = self._unsure_us.get(untold.queue, NEVER_US)
                self._unsure_us[untold.queue] = min(before_us, untold.asked_us)
        self._gather()

    def complaints(self) -> Iterator[str]:
        yield from self._check_names()
        for life in self._lives.values():
            yield from self._check_endings(life)
            yield from self._check_gone(life)
            yield from self._check_overlaps(life)
            yield from self._check_numbers(life)
            yield from self._check_delays(life)
            yield from self._check_told_again(life)
        yield from self._check_loss()
        yield from self._check_order()
        yield from self._check_returned()
        yield from self._check_ready()
        yield from self._check_stats()

    def _gather(self) -> None:
        record = self._record
        for sent in record.sent.values():
            if sent.msg_id is not None:
                self._life(sent.msg_id, sent.name)
        for delivery in sorted(record.deliveries, key=lambda each: each.receipt):
            self._life(delivery.msg_id, delivery.name).deliveries.append(delivery)
        for pop in record.pops:
            self._life(pop.msg_id, pop.name).pops.append(pop)
        for peeked in record.peeked:
            self._life(peeked.msg_id, peeked.name).peeked.append(peeked)
        for ending in sorted(record.endings, key=lambda each: each.asked_us):
            self._lives[ending.msg_id].endings.append(ending)
        for again in record.told_again:
            self._lives[again.msg_id].told_again.append(again)

    def _life(self, msg_id: str, name: str) -> Life:
        life = self._lives.get(msg_id)
        if life is None:
            life = self._lives[msg_id] = Life(msg_id)
        life.names[name] = None
        if name in self._record.sent:
            life.queue = self._record.sent[name].queue
        return life

    def _redriven(self, queue: str, after_us: int, before_us: int) -> bool:
        """Whether dead letters may have been put back between these."""
        return any(
            each.asked_us < before_us and (each.told_us is None or each.told_us > after_us)
            for each in self._redrives[queue]
        )

    # One message

    def _check_names(self) -> Iterator[str]:
        """Nothing is invented, an id is always the same message, and no message is put in twice."""
        ids: dict[str, str] = {}
        for life in self._lives.values():
            if len(life.names) > 1:
                yield f"message {life.msg_id} had these payloads: {', '.join(life.names)}"
            for name in life.names:
                sent = self._record.sent.get(name)
                if sent is None:
                    yield f"message {life.msg_id}, {name!r}, was put in by nobody"
                elif sent.not_done:
                    yield f"message {life.msg_id} is {name}, and its producer was told that it was not put in: {sent}"
                elif ids.setdefault(name, life.msg_id) != life.msg_id:
                    yield f"{name} was put in once and is two messages, {ids[name]} and {life.msg_id}"

    def _check_endings(self, life: Life) -> Iterator[str]:
        """A delivery can be ended, once, as long as it is certainly out, and not once another has begun."""
        by_receipt: dict[int, list[Ending]] = defaultdict(list)
        for ending in life.endings:
            by_receipt[ending.receipt].append(ending)
        later_told_us = NEVER_US
        for delivery in reversed(life.deliveries):
            endings = by_receipt[delivery.receipt]
            until_us, complaint = _out_until(delivery, endings)
            life.out_until_us[delivery.receipt] = until_us
            if complaint:
                yield complaint
            for ending in endings:
                if ending.ok and ending.asked_us > later_told_us:
                    yield f"{ending} was taken, and another delivery was told at {later_told_us} (after {delivery})"
            later_told_us = min(later_told_us, delivery.told_us)
        for receipt in by_receipt:
            if receipt not in life.out_until_us:
                yield f"message {life.msg_id} has no delivery {receipt}, which somebody ended"

    def _check_overlaps(self, life: Life) -> Iterator[str]:
        """Nobody is given a message while somebody certainly has it."""
        told: Delivery | None = None
        for delivery in reversed(life.deliveries):
            until_us = life.out_until_us[delivery.receipt]
            if told is not None and told.told_us < until_us:
                yield f"{told} was told while {delivery} was out, until {until_us}"
            if told is None or delivery.told_us < told.told_us:
                told = delivery
            for pop in life.pops:
                if pop.told_us < until_us:
                    yield f"{pop} was told while {delivery} was out, until {until_us}"
        for one, other in pairwise(life.deliveries):
            if one.receipt == other.receipt:
                yield f"one receipt was told twice: {one} and {other}"

    def _check_gone(self, life: Life) -> Iterator[str]:
        """What was acknowledged or popped is gone for good, and only one can do that."""
        acks = [each for each in life.endings if each.kind == "ack" and each.ok]
        if len(acks) + len(life.pops) > 1:
            yield f"message {life.msg_id} ended twice: {[*acks, *life.pops]}"
        for ack in acks:
            if life.deliveries[-1].receipt > ack.receipt:
                yield f"{life.deliveries[-1]} is later than the ack that was told ok: {ack}"
        for ended in (*acks, *life.pops):
            assert ended.told_us is not None
            for seen in (*life.deliveries, *life.peeked):
                if seen.asked_us > ended.told_us:
                    yield f"{seen} was asked for after the message was gone: {ended}"

    def _check_numbers(self, life: Life) -> Iterator[str]:
        """Deliveries count up, at most to the queue's maximum, and what was rejected stays away."""
        taken = [*life.deliveries, *life.pops]
        for one, other in pairwise(taken):
            if other.number <= one.number and not self._redriven(life.queue, one.asked_us, other.told_us):
                yield f"the number of deliveries does not rise: {one} and then {other}"
        since_us, maximum = self._record.configured.get(life.queue, (0, 0))
        sent = self._record.sent.get(next(iter(life.names)))
        if maximum and sent is not None and sent.asked_us > since_us:
            for each in taken:
                if each.number > maximum:
                    yield f"{each} is one delivery more than the {maximum} of its queue"
        for ending in life.endings:
            if ending.kind == "reject" and ending.ok:
                for each in taken:
                    is_later = isinstance(each, Popped) or each.receipt > ending.receipt
                    if is_later and not self._redriven(life.queue, ending.asked_us, each.told_us):
                        yield f"{each} came after its message was rejected, {ending}, and nobody moved it back"

    def _check_delays(self, life: Life) -> Iterator[str]:
        """Nobody is given a message before its delay is over: its own, or that with which it was given back."""
        taken = [*life.deliveries, *life.pops]
        sent = self._record.sent.get(next(iter(life.names)))
        if sent is not None and sent.delay_s:
            for each in taken:
                if each.told_us < sent.asked_us + _at_least_us(sent.delay_s):
                    yield f"{each} was told before the delay of {sent} was over"
        for nack in life.endings:
            if not nack.delay_s or not nack.ok:
                continue
            if nack.state == "ready":
                yield f"{nack} asked for a delay, and the message was ready"
            for each in taken:
                is_later = isinstance(each, Popped) or each.receipt > nack.receipt
                if is_later and nack.state == "delayed" and each.told_us < nack.asked_us + _at_least_us(nack.delay_s):
                    yield f"{each} was told before the delay of {nack} was over"

    def _check_told_again(self, life: Life) -> Iterator[str]:
        """Who asks again is not told of a delivery that was known to be over by then."""
        for again in life.told_again:
            over = [each for each in life.deliveries if each.receipt > again.receipt]
            over += life.pops
            over += [
                each
                for each in life.endings
                if each.receipt == again.receipt and each.ok and each.kind != "extend"
            ]
            for each in over:
                if each.told_us is not None and each.told_us < again.asked_us:
                    yield f"{again} was told once more, and was over: {each}"

    # One queue

    def _check_loss(self) -> Iterator[str]:
        """Once the queues are drained, every message that was surely put in has met its end. A pop of which nobody
        was told may have taken one each."""
        if not self._record.is_drained:
            return
        missing = defaultdict(list)
        for life in self._lives.values():
            sent = self._record.sent.get(next(iter(life.names)))
            if sent is not None and sent.ttl_s is None and not life.is_gone:
                missing[sent.queue].append(life)
        popped = Counter(each.queue for each in self._record.untold if each.kind == "pop")
        for queue, lost in missing.items():
            if len(lost) > popped[queue]:
                yield f"{len(lost)} messages of {queue} are lost, and {popped[queue]} may be; one is {lost[0]}"

    def _check_order(self) -> Iterator[str]:
        """First in, first out, of what has one priority and was never delayed nor delivered before."""
        lanes = defaultdict(list)
        for life in self._lives.values():
            sent, first = self._record.sent.get(next(iter(life.names))), life.first
            if sent is None or sent.told_us is None or sent.delay_s or first is None or first.number != 1:
                continue
            if not self._redriven(sent.queue, sent.asked_us, first.told_us):
                lanes[sent.queue, sent.priority].append((sent, first))
        for (queue, _), lane in lanes.items():
            earlier = sorted(lane, key=lambda each: each[0].told_us or 0)
            # Of those that were put in by then, the one that was taken out last.
            last, position = None, 0
            for sent, first in sorted(lane, key=lambda each: each[0].asked_us):
                while position < len(earlier) and (earlier[position][0].told_us or 0) < sent.asked_us:
                    if last is None or earlier[position][1].asked_us > last[1].asked_us:
                        last = earlier[position]
                    position += 1
                if last is not None and first.told_us < min(last[1].asked_us, self._unsure_us.get(queue, NEVER_US)):
                    yield f"{first} of {sent} overtook {last[1]} of {last[0]}"

    def _check_returned(self) -> Iterator[str]:
        """What came back goes before what was put in later, of one priority."""
        taken_of = defaultdict(list)
        for taken in (*self._record.deliveries, *self._record.pops):
            taken_of[taken.queue].append(taken)
        for life in self._lives.values():
            mine = self._record.sent.get(next(iter(life.names)))
            if mine is None or mine.told_us is None:
                continue
            for since_us, until_us, priority in self._times_returned(life):
                for each in taken_of[mine.queue]:
                    other = self._record.sent.get(each.name)
                    if other is None or other.priority != priority or other.asked_us < mine.told_us:
                        continue
                    sure_us = min(until_us, self._unsure_us.get(mine.queue, NEVER_US))
                    if since_us < each.asked_us and each.told_us < sure_us:
                        yield f"{each} of {other} overtook what had come back, from {since_us} to {until_us}: {life}"

    def _check_ready(self) -> Iterator[str]:
        """Nobody is told that nothing is there, or given what has a lower priority, while something is there."""
        looks: dict[str, list[tuple[int, int, int, object]]] = defaultdict(list)
        for look in self._record.looks:
            looks[look.queue].append((look.asked_us, look.told_us, -1, look))
        for taken in (*self._record.deliveries, *self._record.pops):
            sent = self._record.sent.get(taken.name)
            if sent is not None:
                looks[taken.queue].append((taken.asked_us, taken.told_us, sent.priority, taken))
        ready = defaultdict(list)
        for life in self._lives.values():
            for since_us, until_us, priority in (*self._times_new(life), *self._times_returned(life)):
                ready[life.queue, priority].append((since_us, until_us, life))
        for (queue, priority), times in ready.items():
            times.sort(key=lambda each: each[0])
            longest = list(_longest_so_far(times))
            begins = [each[0] for each in times]
            unsure_us = self._unsure_us.get(queue, NEVER_US)
            for asked_us, told_us, found, what in looks[queue]:
                count = bisect_left(begins, asked_us)
                if found < priority and count and told_us < min(longest[count - 1][1], unsure_us):
                    since_us, until_us, life = longest[count - 1]
                    yield f"{what} though a message was there from {since_us} until {until_us}: {life}"

    def _times_new(self, life: Life) -> Iterator[tuple[int, int, int]]:
        """From when to when the message could certainly be had for the first time, where nobody is unsure, and its
        priority."""
        sent = self._record.sent.get(next(iter(life.names)))
        taken = [*life.deliveries, *life.pops]
        if sent is None or sent.told_us is None or sent.delay_s or not taken or taken[0].number != 1:
            return
        if not self._redriven(sent.queue, sent.asked_us, taken[0].told_us):
            yield sent.told_us, min(taken[0].asked_us, _gone_us(sent)), sent.priority

    def _times_returned(self, life: Life) -> Iterator[tuple[int, int, int]]:
        """The same for each time that it was given back."""
        sent = self._record.sent.get(next(iter(life.names)))
        if sent is None:
            return
        taken = [*life.deliveries, *life.pops]
        following = dict(pairwise(range(len(taken))))
        places = {each.receipt: place for place, each in enumerate(life.deliveries)}
        for ending in life.endings:
            if ending.kind != "nack" or ending.state != "ready" or ending.told_us is None:
                continue
            place = following.get(places.get(ending.receipt, -1))
            if place is None or taken[place].number != taken[place - 1].number + 1:
                continue
            if not self._redriven(sent.queue, ending.asked_us, taken[place].told_us):
                yield ending.told_us, min(taken[place].asked_us, _gone_us(sent)), sent.priority

    def _check_stats(self) -> Iterator[str]:
        """What the queues counted is what can have been."""
        record = self._record
        if not record.is_drained:
            return
        for queue, stats in record.stats.items():
            sent = [each for each in record.sent.values() if each.queue == queue]
            lives = [each for each in self._lives.values() if each.queue == queue]
            endings = [ending for each in lives for ending in each.endings if ending.kind == "ack"]
            pops = sum(len(each.pops) for each in lives)
            deliveries = sum(len(each.deliveries) for each in lives)
            unsure = sum(each.queue == queue and each.kind == "pop" for each in record.untold)
            sure_acks = sum(each.ok is True for each in endings) + pops
            bounds = {
                "enqueued_total": (len(lives), sum(not each.not_done for each in sent)),
                "acknowledged_total": (sure_acks, sure_acks + sum(each.ok is None for each in endings) + unsure),
                "delivered_total": (deliveries + pops, NEVER_US),
                "expired_total": (0, sum(each.ttl_s is not None for each in sent)),
                "purged_total": (0, 0),
                "dead_dropped_total": (0, 0),
            }
            for name, (least, most) in bounds.items():
                if not least <= stats[name] <= most:
                    yield f"{queue} counted {name} {stats[name]}, and it is from {least} to {most}"
            if stats["enqueued_total"] != stats["acknowledged_total"] + stats["expired_total"]:
                yield f"{queue} is empty, and its counters do not add up: {stats}"


def _gone_us(sent: Sent) -> int:
    """When a message goes by its time to live, at the earliest."""
    return NEVER_US if sent.ttl_s is None else sent.asked_us + _at_least_us(sent.ttl_s)


def _out_until(delivery: Delivery, endings: list[Ending]) -> tuple[int, str]:
    """Until when a delivery was certainly out, and a complaint where it was not though it should have been, or was
    though it had ended."""
    until_us = delivery.asked_us + _at_least_us(delivery.visibility_s)
    #: What nobody was told of may come true at any time.
    at_most_us = NEVER_US
    complaint = ""
    is_over = False
    for ending in endings:
        new_us = ending.asked_us
        if ending.kind == "extend":
            new_us += _at_least_us(ending.visibility_s)
        if ending.ok is None or ending.told_us is None:
            at_most_us = min(at_most_us, new_us)
            continue
        if not ending.ok and not is_over and ending.told_us < min(until_us, at_most_us):
            complaint = f"{ending} was refused though {delivery} was out until {min(until_us, at_most_us)}"
        if ending.ok and is_over:
            complaint = f"{ending} was taken though {delivery} had ended"
        is_over = is_over or not ending.ok or ending.kind != "extend"
        until_us = new_us if ending.ok else min(until_us, ending.told_us)
    return min(until_us, at_most_us), complaint


def _longest_so_far(times: list[tuple[int, int, Life]]) -> Iterator[tuple[int, int, Life]]:
    """For each, the one up to it that ends last."""
    longest = times[0]
    for each in times:
        if each[1] > longest[1]:
            longest = each
        yield longest
