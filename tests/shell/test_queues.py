"""The judge of queues: each rule with a record that breaks it, and with one that is just legal."""

from typing import Any

import pytest

from tests.shell.queue_record import Delivery, Ending, Look, Peeked, Popped, Record, Redrive, Sent, Untold
from tests.shell.queues_judged import judge

Q = "q"


class Story:
    """A record, written by hand: times are in seconds, and the id of a message follows from its name."""

    def __init__(self) -> None:
        self.record = Record()

    def put(self, name: str, asked: float, told: float | None = None, msg_id: str = "", **more: Any) -> None:
        priority, delay_s, ttl_s = more.pop("priority", 0), more.pop("delay", 0.0), more.pop("ttl", None)
        sent = Sent(name, Q, {"n": name}, priority, delay_s, ttl_s, _us(asked))
        if told is not None:
            sent.told_us, sent.msg_id = _us(told), msg_id or f"id {name}"
        sent.not_done = more.pop("not_done", False)
        assert not more
        self.record.sent[name] = sent

    def got(
        self, name: str, receipt: int, asked: float, told: float, *, number: int = 1, visibility: float = 10.0,
        msg_id: str = "",
    ) -> None:  # fmt: skip
        self.record.deliveries.append(
            Delivery(name, msg_id or f"id {name}", Q, receipt, number, visibility, _us(asked), _us(told))
        )

    def popped(self, name: str, asked: float, told: float, number: int = 1) -> None:
        self.record.pops.append(Popped(name, f"id {name}", Q, number, _us(asked), _us(told)))

    def peeked(self, name: str, asked: float) -> None:
        self.record.peeked.append(Peeked(name, f"id {name}", _us(asked)))

    def ended(
        self, kind: str, name: str, receipt: int, asked: float, told: float | None, ok: bool = True, **more: Any
    ) -> None:
        ending = Ending(kind, f"id {name}", receipt, _us(asked), **more)
        if told is not None:
            ending.told_us, ending.ok = _us(told), ok
        self.record.endings.append(ending)

    def empty(self, asked: float, told: float) -> None:
        self.record.looks.append(Look(Q, _us(asked), _us(told)))

    def untold(self, kind: str, asked: float) -> None:
        self.record.untold.append(Untold(kind, Q, _us(asked)))

    def redriven(self, asked: float, told: float | None) -> None:
        self.record.redrives.append(Redrive(Q, _us(asked), None if told is None else _us(told)))

    def drained(self, **counters: int) -> None:
        self.record.is_drained = True
        names = ("enqueued", "acknowledged", "delivered", "expired", "purged", "dead_dropped")
        self.record.stats[Q] = {f"{name}_total": counters.get(name, 0) for name in names}

    def holds(self) -> None:
        assert judge(self.record) == ""

    def breaks(self, why: str) -> None:
        assert why in judge(self.record)

    def is_judged(self, is_legal: bool, why: str) -> None:
        if is_legal:
            self.holds()
        else:
            self.breaks(why)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


@pytest.fixture
def story() -> Story:
    """A message `a` that was put in between 1 and 2."""
    story = Story()
    story.put("a", 1, 2)
    return story


# Nothing is invented


def test_a_message_that_nobody_put_in(story: Story) -> None:
    story.got("b", 1, 3, 4)

    story.breaks("was put in by nobody")


def test_a_message_whose_producer_never_heard_of_it(story: Story) -> None:
    story.put("b", 1)
    story.got("b", 1, 3, 4)

    story.holds()


def test_a_message_that_was_certainly_not_put_in(story: Story) -> None:
    story.put("b", 1, not_done=True)
    story.got("b", 1, 3, 4)

    story.breaks("told that it was not put in")


def test_one_id_of_two_payloads(story: Story) -> None:
    story.put("b", 1, 2)
    story.got("b", 1, 3, 4, msg_id="id a")

    story.breaks("had these payloads")


def test_one_request_that_made_two_messages(story: Story) -> None:
    story.got("a", 1, 3, 4, msg_id="another")

    story.breaks("is two messages")


# Nothing is lost


def test_a_message_that_never_came(story: Story) -> None:
    story.drained(enqueued=1)

    story.breaks("1 messages of q are lost, and 0 may be")


def test_a_message_that_was_delivered_and_then_lost(story: Story) -> None:
    story.got("a", 1, 3, 4, visibility=1)
    story.drained(enqueued=1, delivered=1)

    story.breaks("are lost")


@pytest.mark.parametrize("how", ["ack", "ack untold", "pop", "pop untold", "ttl", "never told"])
def test_a_message_that_met_its_end(how: str) -> None:
    story = Story()
    story.put("a", 1, None if how == "never told" else 2, ttl=5.0 if how == "ttl" else None)
    count = {"enqueued": 1, "delivered": 1, "acknowledged": 1}
    if how.startswith("ack"):
        story.got("a", 1, 3, 4)
        story.ended("ack", "a", 1, 5, None if how == "ack untold" else 6)
    elif how == "pop":
        story.popped("a", 3, 4)
    elif how == "pop untold":
        story.untold("pop", 3)
    elif how == "ttl":
        count = {"enqueued": 1, "expired": 1}
    else:
        count = {}
    story.drained(**count)

    story.holds()


def test_a_pop_that_nobody_heard_of_takes_one_only(story: Story) -> None:
    story.put("b", 1, 2)
    story.untold("pop", 3)
    story.drained(enqueued=2, acknowledged=2, delivered=2)

    story.breaks("2 messages of q are lost, and 1 may be")


# What is acknowledged is gone


def test_a_delivery_asked_for_after_the_ack_was_told(story: Story) -> None:
    """With a receipt from before it, as an answer has that is given again."""
    story.got("a", 2, 5, 6, number=2)
    story.ended("ack", "a", 2, 7, 8)
    story.got("a", 1, 9, 10)

    story.breaks("was asked for after the message was gone")


def test_a_delivery_that_began_after_the_ack(story: Story) -> None:
    """Its request was sent before."""
    story.got("a", 1, 3, 4)
    story.ended("ack", "a", 1, 5, 6)
    story.got("a", 2, 3, 20, number=2)

    story.breaks("is later than the ack")


def test_an_ack_that_nobody_heard_of_may_not_have_been_done(story: Story) -> None:
    story.got("a", 1, 3, 4)
    story.ended("ack", "a", 1, 5, None)
    story.got("a", 2, 14, 15, number=2)

    story.holds()


def test_two_acks_of_one_message(story: Story) -> None:
    story.got("a", 1, 3, 4, visibility=1)
    story.got("a", 2, 5, 6, number=2)
    story.ended("ack", "a", 1, 4, 7)
    story.ended("ack", "a", 2, 7, 8)

    story.breaks("ended twice")


@pytest.mark.parametrize(("asked", "is_legal"), [(6, False), (5, True)])
def test_a_popped_message_that_was_seen_later(story: Story, asked: float, is_legal: bool) -> None:
    story.popped("a", 3, 5.5)
    story.peeked("a", asked)

    story.is_judged(is_legal, "after the message was gone")


# One has it at a time


@pytest.mark.parametrize(("told", "is_legal"), [(12.6, False), (12.8, True)])
def test_a_delivery_while_another_is_out(story: Story, told: float, is_legal: bool) -> None:
    """It counts from when it was asked for, and a little less than was said."""
    story.got("a", 1, 3, 4, visibility=10)
    story.got("a", 2, 5, told, number=2)

    story.is_judged(is_legal, "was told while")


def test_a_delivery_that_was_told_late_does_not_hide_the_next(story: Story) -> None:
    """Three of them: the first is out when the third is told, and the second is told last."""
    story.got("a", 1, 3, 4, visibility=10)
    story.got("a", 2, 5, 30, number=2, visibility=1)
    story.got("a", 3, 5, 6, number=3)

    story.breaks("was told while")


@pytest.mark.parametrize("kind", ["nack", "reject"])
@pytest.mark.parametrize("told", [6, None])
def test_a_delivery_after_the_first_was_given_back(story: Story, kind: str, told: float | None) -> None:
    """Also where nobody heard that it was."""
    story.got("a", 1, 3, 4)
    story.ended(kind, "a", 1, 5, told)
    story.redriven(5, 6)
    story.got("a", 2, 5, 7, number=2)

    story.holds()


def test_a_delivery_before_the_first_was_given_back(story: Story) -> None:
    story.got("a", 1, 3, 4)
    story.got("a", 2, 3, 5, number=2)
    story.ended("nack", "a", 1, 5.5, None)

    story.breaks("was told while")


def test_an_extended_delivery_is_out_for_longer(story: Story) -> None:
    story.got("a", 1, 3, 4, visibility=2)
    story.ended("extend", "a", 1, 4, 4.5, visibility_s=10.0)
    story.got("a", 2, 10, 11, number=2)

    story.breaks("was told while")


def test_an_extend_can_make_it_shorter_and_nobody_may_hear_of_it(story: Story) -> None:
    story.got("a", 1, 3, 4, visibility=10)
    story.ended("extend", "a", 1, 4, None, visibility_s=1.0)
    story.got("a", 2, 5, 6, number=2)

    story.holds()


def test_a_pop_while_a_delivery_is_out(story: Story) -> None:
    story.got("a", 1, 3, 4)
    story.popped("a", 5, 6, number=2)

    story.breaks("was told while")


def test_a_pop_after_a_delivery(story: Story) -> None:
    story.got("a", 1, 3, 4)
    story.popped("a", 5, 13, number=2)

    story.holds()


# A delivery can be ended as long as it is out, and only then


@pytest.mark.parametrize("kind", ["ack", "nack", "reject", "extend"])
@pytest.mark.parametrize(("told", "is_legal"), [(12.6, False), (12.8, True)])
def test_a_current_receipt_that_is_refused(story: Story, kind: str, told: float, is_legal: bool) -> None:
    story.got("a", 1, 3, 4)
    story.ended(kind, "a", 1, 5, told, ok=False)

    story.is_judged(is_legal, "was refused though")


def test_a_receipt_that_is_refused_once_it_may_have_ended(story: Story) -> None:
    story.got("a", 1, 3, 4)
    story.ended("ack", "a", 1, 5, None)
    story.ended("ack", "a", 1, 6, 7, ok=False)

    story.holds()


@pytest.mark.parametrize("kind", ["nack", "reject", "extend"])
@pytest.mark.parametrize(("asked", "is_legal"), [(16, False), (14, True)])
def test_a_stale_receipt_that_is_taken(story: Story, kind: str, asked: float, is_legal: bool) -> None:
    story.got("a", 1, 3, 4)
    story.got("a", 2, 14, 15, number=2)
    story.redriven(13, 16)
    story.ended(kind, "a", 1, asked, 17)

    story.is_judged(is_legal, "was taken, and another delivery was told")


def test_a_delivery_that_is_ended_twice(story: Story) -> None:
    story.got("a", 1, 3, 4)
    story.ended("nack", "a", 1, 5, 6)
    story.ended("ack", "a", 1, 7, 8)

    story.breaks("was taken though")


def test_a_delivery_is_ended_by_the_second_of_two_tries(story: Story) -> None:
    story.got("a", 1, 3, 4)
    story.ended("nack", "a", 1, 5, None)
    story.ended("ack", "a", 1, 7, 8)

    story.holds()


def test_one_receipt_of_two_deliveries(story: Story) -> None:
    story.got("a", 1, 3, 4, visibility=1)
    story.got("a", 1, 8, 9, number=2)

    story.breaks("one receipt was told twice")


# Numbers of deliveries


@pytest.mark.parametrize("redriven", [None, (1, 3), (16, None), (5, 6), (5, None)])
def test_deliveries_count_up_but_for_a_redrive_in_between(story: Story, redriven: Any) -> None:
    story.got("a", 1, 4, 4.5, visibility=1)
    story.got("a", 2, 14, 15)
    if redriven:
        story.redriven(*redriven)

    story.is_judged(bool(redriven) and redriven[0] == 5, "does not rise")


@pytest.mark.parametrize(("since", "is_legal"), [(0.5, False), (1.5, True)])
def test_more_deliveries_than_a_message_may_have(story: Story, since: float, is_legal: bool) -> None:
    """Where the queue was configured only after the message was put in, nothing is said of it."""
    story.record.configured[Q] = (_us(since), 2)
    story.got("a", 1, 3, 4, visibility=1, number=2)
    story.got("a", 2, 5, 6, number=3)

    story.is_judged(is_legal, "one delivery more than the 2")


@pytest.mark.parametrize("is_redriven", [False, True])
def test_a_rejected_message_that_comes_back(story: Story, is_redriven: bool) -> None:
    story.got("a", 1, 3, 4)
    story.ended("reject", "a", 1, 5, 6)
    if is_redriven:
        story.redriven(5.5, 8)
    story.got("a", 2, 7, 8, number=2)

    story.is_judged(is_redriven, "came after its message was rejected")


# Order


@pytest.mark.parametrize(
    "excuse",
    [
        "", "overlapping puts", "overlapping deqs", "delay", "delivered before", "untold before", "redriven",
        "popped first",
    ],
)  # fmt: skip
def test_first_in_first_out(excuse: str) -> None:
    """`b` was put in after `a`, and delivered before it."""
    story = Story()
    story.put("a", 1, 2, delay=1.0 if excuse == "delay" else 0.0)
    story.put("b", 1.5 if excuse == "overlapping puts" else 3, 4)
    if excuse == "untold before":
        story.untold("deq", 4)
    if excuse == "redriven":
        story.redriven(4, 5)
    asked = 5.5 if excuse == "overlapping deqs" else 7
    if excuse == "popped first":
        story.popped("b", 5, 6)
    else:
        story.got("b", 1, 5, 6)
    story.got("a", 2, asked, 8, number=2 if excuse == "delivered before" else 1)

    if excuse in ("", "popped first"):
        story.breaks("overtook")
    else:
        story.holds()


def test_a_request_of_unknown_outcome_excuses_nothing_before_it(story: Story) -> None:
    story.put("b", 3, 4)
    story.got("b", 1, 5, 6)
    story.untold("deq", 6.5)
    story.got("a", 2, 7, 8)

    story.breaks("overtook")


@pytest.mark.parametrize(("asked", "is_legal"), [(3.5, False), (1.5, True)])
def test_a_lower_priority_goes_behind(asked: float, is_legal: bool) -> None:
    """It may have begun before the other was put in."""
    story = Story()
    story.put("low", 0, 1)
    story.put("high", 2, 3, priority=5)
    story.got("low", 1, asked, 4)
    story.got("high", 2, 5, 6)

    story.is_judged(is_legal, "though a message was there")


# Nothing there


@pytest.mark.parametrize(
    ("asked", "told", "excuse"),
    [
        (3, 4, ""), (1.5, 4, "asked before"), (3, 6, "told after"), (3, 4, "delay"), (3, 4, "ttl"), (3, 4, "untold"),
        (3, 4, "delivered before"), (3, 4, "redriven"),
    ],
)  # fmt: skip
def test_an_empty_answer_though_a_message_is_there(asked: float, told: float, excuse: str) -> None:
    story = Story()
    story.put("a", 1, 2, delay=1.0 if excuse == "delay" else 0.0, ttl=3.0 if excuse == "ttl" else None)
    story.empty(asked, told)
    if excuse == "untold":
        story.untold("deq", 3)
    if excuse == "redriven":
        story.redriven(2, 3)
    story.got("a", 2, 5, 6, number=2 if excuse == "delivered before" else 1)

    if excuse:
        story.holds()
    else:
        story.breaks("though a message was there")


@pytest.mark.parametrize(
    ("number", "state", "is_legal"), [(2, "ready", False), (3, "ready", True), (2, "delayed", True)]
)
def test_an_empty_answer_after_a_nack(story: Story, number: int, state: str, is_legal: bool) -> None:
    """The number of the next delivery says whether there was one in between."""
    story.got("a", 1, 3, 4)
    story.ended("nack", "a", 1, 5, 6, state=state)
    story.empty(7, 8)
    story.got("a", 2, 9, 10, number=number)

    story.is_judged(is_legal, "though a message was there")


# Counters


@pytest.mark.parametrize(
    ("counters", "is_legal"),
    [
        ({"enqueued": 1, "acknowledged": 1, "delivered": 1}, True),
        ({"enqueued": 1, "acknowledged": 1, "delivered": 3}, True),
        ({"enqueued": 2, "acknowledged": 2, "delivered": 2}, False),
        ({"enqueued": 1, "acknowledged": 1}, False),
        ({"enqueued": 1, "acknowledged": 1, "delivered": 1, "purged": 1}, False),
        ({"enqueued": 1, "acknowledged": 1, "delivered": 1, "expired": 1}, False),
        ({"acknowledged": 1, "delivered": 1}, False),
    ],
)
def test_counters_of_an_empty_queue(story: Story, counters: dict[str, int], is_legal: bool) -> None:
    story.got("a", 1, 3, 4)
    story.ended("ack", "a", 1, 5, 6)
    story.drained(**counters)

    story.is_judged(is_legal, "counted")


def test_counters_that_do_not_add_up(story: Story) -> None:
    """Each of them is possible alone."""
    story.put("b", 3)
    story.got("a", 1, 3, 4)
    story.ended("ack", "a", 1, 5, 6)
    story.drained(enqueued=2, acknowledged=1, delivered=1)

    story.breaks("do not add up")
