"""The heap with lazy deletion: exact in what it gives, bounded in what it keeps."""

import random

from services.lock.deadlines import LEFTOVERS_MAX, Deadlines


def test_due_ids_come_in_the_order_of_time_then_id():
    table = {3: 10, 1: 10, 2: 5, 4: 11}
    deadlines = Deadlines(table, table.get)
    for id, due_ms in table.items():
        deadlines.schedule(due_ms, id)

    assert deadlines.pop_due(10) == [2, 1, 3]
    assert deadlines.next_due_ms() == 11


def test_moved_and_removed_ids_do_not_come_at_their_old_time():
    table = {1: 10, 2: 10, 3: 10}
    deadlines = Deadlines(table, table.get)
    for id, due_ms in table.items():
        deadlines.schedule(due_ms, id)
    del table[1]
    table[2] = 20
    deadlines.schedule(20, 2)

    assert deadlines.pop_due(10) == [3]
    del table[3]
    assert deadlines.pop_due(20) == [2]


def test_an_id_moved_away_and_back_comes_once():
    table = {1: 10}
    deadlines = Deadlines(table, table.get)
    deadlines.schedule(10, 1)
    deadlines.schedule(10, 1)

    assert deadlines.pop_due(10) == [1]


def test_leftovers_of_far_deadlines_do_not_pile_up():
    """Take and release with a ttl of a month, for ever."""
    table: dict[int, int] = {}
    deadlines = Deadlines(table, table.get)
    largest = 0

    for number in range(20_000):
        table[number] = 1_000_000 + number
        deadlines.schedule(table[number], number)
        del table[number]
        largest = max(largest, len(deadlines))

    assert largest <= 3 * LEFTOVERS_MAX


def test_it_agrees_with_a_plain_table_under_random_use():
    """The twin sorts the table anew each time."""
    for seed in range(20):
        choose = random.Random(seed)
        table: dict[int, int] = {}
        deadlines = Deadlines(table, table.get)
        now_ms = 0
        for _ in range(2_000):
            id = choose.randrange(300)
            match choose.randrange(6):
                case 0 | 1 | 2:
                    table[id] = now_ms + choose.randrange(1, 100_000)
                    deadlines.schedule(table[id], id)
                case 3 | 4:
                    table.pop(id, None)
                case 5:
                    now_ms += choose.randrange(2_000)
                    expected = sorted((due, id) for id, due in table.items() if due <= now_ms)
                    assert [id for _, id in expected] == deadlines.pop_due(now_ms)
                    for _, id in expected:
                        del table[id]
            assert min(table.values(), default=None) == deadlines.next_due_ms()
        assert len(deadlines) <= 2 * (2 * 300 + LEFTOVERS_MAX)
