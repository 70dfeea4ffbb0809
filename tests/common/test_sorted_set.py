"""The sorted set against a list that is sorted anew each time."""

import random

import pytest

from common import sorted_set
from common.sorted_set import SortedSet


@pytest.mark.parametrize("seed", range(20))
def test_it_agrees_with_a_sorted_list(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Additions, removals and looks of every kind, with chunks that are cut and used up all the time."""
    monkeypatch.setattr(sorted_set, "CHUNK_MAX", 4)
    choose = random.Random(seed)
    items: SortedSet[int] = SortedSet()
    twin: list[int] = []

    for _ in range(1_000):
        number = choose.randrange(200)
        if number in twin:
            items.remove(number)
            twin.remove(number)
        elif choose.random() < 0.7:
            items.add(number)
            twin = sorted([*twin, number])
        elif twin:
            assert items.pop_first() == twin.pop(0)
        assert (list(items), len(items)) == (twin, len(twin))
        assert items.first() == (twin[0] if twin else None)
        assert (number in items) == (number in twin)
        assert list(items.after(number)) == [item for item in twin if item > number]


@pytest.mark.parametrize("seed", range(5))
def test_texts_are_found_by_their_beginning(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_set, "CHUNK_MAX", 4)
    choose = random.Random(seed)
    texts = {"".join(choose.choices("ab\u00e9\U0001f600", k=choose.randrange(5))) for _ in range(60)}
    items: SortedSet[str] = SortedSet()
    for text in texts:
        items.add(text)

    for _ in range(200):
        prefix = "".join(choose.choices("ab\u00e9\U0001f600", k=choose.randrange(3)))
        after = choose.choice(["", prefix, *texts])
        wanted = sorted(text for text in texts if text.startswith(prefix) and (text > after or after < prefix))
        assert list(items.begins_with(prefix, after)) == wanted


def test_what_is_not_there_cannot_be_taken_out() -> None:
    items: SortedSet[int] = SortedSet()
    items.add(2)

    for number in (1, 3):
        with pytest.raises(KeyError):
            items.remove(number)


def test_no_chunk_grows_beyond_its_bound() -> None:
    """So no call moves more than that."""
    items: SortedSet[int] = SortedSet()
    numbers = list(range(20_000))
    random.Random(1).shuffle(numbers)

    for number in numbers:
        items.add(number)

    assert max(map(len, items._chunks)) <= sorted_set.CHUNK_MAX
    assert len(items._chunks) <= 3 * len(items) / sorted_set.CHUNK_MAX
