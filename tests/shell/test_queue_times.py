"""The judge of queues, on delays, on what came back, and on answers that are told again."""

import pytest

from tests.shell.queue_record import ToldAgain
from tests.shell.test_queues import Story


@pytest.fixture
def story() -> Story:
    """A message `a` that was put in between 1 and 2."""
    story = Story()
    story.put("a", 1, 2)
    return story


# Delays


@pytest.mark.parametrize(("told", "is_legal"), [(10.5, False), (10.8, True)])
def test_a_delayed_message_before_its_time(told: float, is_legal: bool) -> None:
    story = Story()
    story.put("a", 1, 2, delay=10)
    story.got("a", 1, 3, told)

    story.is_judged(is_legal, "before the delay of")


@pytest.mark.parametrize(("told", "is_legal"), [(14.5, False), (14.8, True)])
@pytest.mark.parametrize("is_pop", [False, True])
def test_a_message_that_was_given_back_for_later(story: Story, told: float, is_legal: bool, is_pop: bool) -> None:
    story.got("a", 1, 3, 4)
    story.ended("nack", "a", 1, 5, 6, state="delayed", delay_s=10.0)
    if is_pop:
        story.popped("a", 7, told, number=2)
    else:
        story.got("a", 2, 7, told, number=2)

    story.is_judged(is_legal, "before the delay of")


def test_a_delay_that_was_not_heeded(story: Story) -> None:
    story.got("a", 1, 3, 4)
    story.ended("nack", "a", 1, 5, 6, state="ready", delay_s=10.0)

    story.breaks("asked for a delay")


def test_a_message_that_died_instead_of_its_delay(story: Story) -> None:
    story.got("a", 1, 3, 4)
    story.ended("nack", "a", 1, 5, 6, state="dead", delay_s=10.0)
    story.redriven(6, 7)
    story.got("a", 2, 7, 8)

    story.holds()


# What came back


@pytest.mark.parametrize("excuse", ["", "put in before", "not told yet", "another priority", "unsure", "redriven"])
@pytest.mark.parametrize("is_pop", [False, True])
def test_a_later_message_that_overtakes_what_came_back(story: Story, excuse: str, is_pop: bool) -> None:
    story.got("a", 1, 3, 4)
    story.ended("nack", "a", 1, 5, 7.5 if excuse == "not told yet" else 6, state="ready")
    asked, priority = 1.5 if excuse == "put in before" else 3, 5 if excuse == "another priority" else 0
    story.put("b", asked, 4, priority=priority)
    if is_pop:
        story.popped("b", 7, 8)
    else:
        story.got("b", 2, 7, 8)
    story.got("a", 3, 9, 10, number=2)
    if excuse == "unsure":
        story.untold("deq", 6.5)
    if excuse == "redriven":
        story.redriven(5, 6)

    story.is_judged(bool(excuse), "overtook what had come back")


# Answers that are told again


@pytest.mark.parametrize(
    "how", ["acknowledged", "given back", "extended", "refused", "popped", "delivered", "nothing"]
)
@pytest.mark.parametrize("is_late", [False, True])
def test_a_delivery_that_is_told_again_when_it_is_over(story: Story, how: str, is_late: bool) -> None:
    kinds = {"acknowledged": "ack", "given back": "nack", "extended": "extend", "refused": "ack"}
    story.got("a", 1, 3, 4, visibility=1)
    if how in kinds:
        story.ended(kinds[how], "a", 1, 5, 6, ok=how != "refused")
    elif how == "popped":
        story.popped("a", 5, 6, number=2)
    elif how == "delivered":
        story.got("a", 2, 5, 6, number=2)
    story.record.told_again.append(ToldAgain("id a", 1, 7_000_000 if is_late else 5_500_000))

    story.is_judged(not is_late or how in ("extended", "refused", "nothing"), "told once more")
