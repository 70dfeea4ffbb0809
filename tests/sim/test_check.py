"""The linearizability checker: its models, its twin, its speed, its command."""

import io
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sim.check import HistoryError, Operation, Undecided, check_history, parse_history
from tests.sim.check.__main__ import main
from tests.sim.check_histories import Shape, make_history, spoil
from tests.sim.check_twin import is_linearizable

REPOSITORY = Path(__file__).parents[2]

#: Tiny histories that each model's twin judges.
TWIN_HISTORIES = 600

#: What is promised for 10,000 operations over 10 keys from 20 processes.
DECISION_SECONDS_MAX = 60


def op(
    process: int,
    name: str,
    call: float,
    end: float | None,
    *,
    value: Any = None,
    gave: Any = None,
    ok: Any = True,
) -> Operation:
    """One operation on the key "k"."""
    return Operation(process, name, "k", value, call, end, ok, gave)


def write(process: int, value: Any, call: float, end: float | None, ok: bool | None = True) -> Operation:
    return op(process, "write", call, end, value=value, ok=ok)


def read(process: int, gave: Any, call: float, end: float) -> Operation:
    return op(process, "read", call, end, gave=gave)


def cas(
    process: int, old: Any, new: Any, gave: bool | None, call: float, end: float, ok: Any = True
) -> Operation:
    return op(process, "cas", call, end, value=[old, new], gave=gave, ok=ok)


def acquire(process: int, token: int | None, call: float, end: float | None, ok: Any = True) -> Operation:
    return op(process, "acquire", call, end, gave=token, ok=ok)


def release(process: int, call: float, end: float | None, ok: Any = True) -> Operation:
    return op(process, "release", call, end, ok=ok)


def enqueue(process: int, value: Any, call: float, end: float | None, ok: Any = True) -> Operation:
    return op(process, "enqueue", call, end, value=value, ok=ok)


def dequeue(process: int, gave: Any, call: float, end: float | None, ok: Any = True) -> Operation:
    return op(process, "dequeue", call, end, gave=gave, ok=ok)


LEGAL = {
    "register": {
        "nothing happened": [],
        "an unwritten key holds null": [read(1, None, 0, 1)],
        "overlapping reads may see old and new": [write(1, 5, 0, 9), read(2, None, 1, 2), read(3, 5, 3, 4)],
        "times that touch overlap": [write(1, 5, 0, 1), write(2, 6, 1, 2), read(3, 5, 3, 4)],
        "an overwritten write was never seen": [write(1, 1, 0, 5), write(2, 2, 0, 5), read(3, 2, 6, 7)],
        "an overlapping write may come after an answered one": [
            write(1, 2, 1, 2),
            write(2, 0, 0, 6),
            read(3, 0, 14, 15),
        ],
        "an unknown write is seen late": [write(1, 1, 0, None, None), write(2, 2, 1, 2), read(3, 1, 8, 9)],
        "an unknown write's return is no bound": [
            write(1, 1, 0, 1, None),
            read(2, None, 2, 3),
            read(2, 1, 4, 5),
        ],
        "an unknown write never happened": [write(1, 1, 0, None, None), read(2, None, 8, 9)],
        "a refused write had no effect": [write(1, 1, 0, 1, False), read(2, None, 2, 3)],
        "cas finds what it expects": [
            cas(1, None, 1, True, 0, 1),
            cas(1, 1, 2, True, 2, 3),
            read(2, 2, 4, 5),
        ],
        "cas fails on another value": [write(1, 1, 0, 1), cas(2, 2, 3, False, 2, 3), read(2, 1, 4, 5)],
        "an unknown cas makes a later one fail": [
            write(1, 1, 0, 1),
            cas(2, 1, 2, None, 2, 3, None),
            cas(3, 1, 3, False, 4, 5),
        ],
        "a cas may come between two overlapping writes": [
            write(1, 1, 0, 9),
            write(2, 2, 0, 9),
            cas(3, 1, 7, True, 0, 9),
            read(4, 2, 10, 11),
        ],
        "1 is 1.0": [write(1, 1, 0, 1), read(1, 1.0, 2, 3)],
        "fields of an object have no order": [
            write(1, {"a": 1, "b": [2]}, 0, 1),
            read(1, {"b": [2], "a": 1}, 2, 3),
        ],
    },
    "lock": {
        "one after the other": [acquire(1, 1, 0, 1), release(1, 2, 3), acquire(2, 2, 4, 5), release(2, 6, 7)],
        "the next may have it before the release is answered": [
            acquire(1, 1, 0, 1),
            release(1, 2, 9),
            acquire(2, 2, 3, 4),
        ],
        "the holder gets the same token again": [acquire(1, 7, 0, 1), acquire(1, 7, 2, 3), release(1, 4, 5)],
        "a refused acquire says nothing": [acquire(1, None, 0, 1, False), acquire(2, 1, 0, 1)],
        "an unknown release freed it": [acquire(1, 1, 0, 1), release(1, 2, None, None), acquire(2, 2, 9, 10)],
        "a lapsed lease is an unknown release": [
            acquire(1, 1, 0, 1),
            release(1, 0, None, None),
            acquire(1, 1, 2, 3),
            acquire(2, 5, 4, 5),
        ],
        "an unknown acquire took it for a while": [
            acquire(1, None, 0, None, None),
            acquire(2, 5, 1, 2),
            release(2, 3, 4),
            release(1, 5, 6),
            acquire(2, 7, 7, 8),
        ],
        "an unknown acquire never took it": [acquire(1, None, 0, None, None), acquire(2, 1, 1, 2)],
        "an unknown release of another does nothing": [acquire(1, 1, 0, 1), release(2, 2, None, None)],
    },
    "queue": {
        "first in, first out": [
            enqueue(1, "a", 0, 1),
            enqueue(1, "b", 2, 3),
            dequeue(2, "a", 4, 5),
            dequeue(2, "b", 6, 7),
        ],
        "overlapping enqueues have either order": [
            enqueue(1, "a", 0, 9),
            enqueue(2, "b", 0, 9),
            dequeue(3, "b", 10, 11),
            dequeue(3, "a", 12, 13),
        ],
        "empty before the enqueue took effect": [
            enqueue(1, "a", 0, 5),
            dequeue(2, None, 1, 2),
            dequeue(2, "a", 3, 4),
        ],
        "empty for a moment between two overlapping": [
            enqueue(1, "a", 0, 1),
            dequeue(2, None, 2, 9),
            dequeue(3, "a", 3, 8),
            enqueue(1, "b", 5, 6),
            dequeue(2, "b", 10, 11),
        ],
        "an unknown enqueue appears late": [
            enqueue(1, "a", 0, None, None),
            dequeue(2, None, 1, 2),
            enqueue(1, "b", 3, 4),
            dequeue(2, "b", 5, 6),
            dequeue(2, "a", 7, 8),
        ],
        "an unknown enqueue never happened": [enqueue(1, "a", 0, None, None), dequeue(2, None, 1, 2)],
        "an unknown dequeue took the oldest": [
            enqueue(1, "a", 0, 1),
            enqueue(1, "b", 2, 3),
            dequeue(2, None, 4, None, None),
            dequeue(3, "b", 5, 6),
        ],
        "an unknown dequeue took nothing": [
            enqueue(1, "a", 0, 1),
            dequeue(2, None, 2, None, None),
            dequeue(3, "a", 5, 6),
        ],
        "equal values are different items": [
            enqueue(1, "a", 0, 1),
            enqueue(1, "a", 2, 3),
            dequeue(2, "a", 4, 5),
            dequeue(2, "a", 6, 7),
            dequeue(2, None, 8, 9),
        ],
        "of equal values the one that lets others pass": [
            enqueue(1, "v", 0, 100),
            enqueue(2, "b", 1, 2),
            enqueue(2, "v", 10, 20),
            enqueue(2, "c", 30, 40),
            dequeue(3, "v", 50, 90),
            dequeue(4, "b", 55, 60),
            dequeue(4, "c", 91, 95),
            dequeue(4, "v", 96, 99),
        ],
    },
}

#: With the size of the smallest offending part.
ILLEGAL = {
    "register": {
        "a value that nobody wrote": (1, [write(1, 1, 0, 1), read(2, 2, 2, 3)]),
        "a value read before its write was called": (1, [read(2, 1, 0, 1), write(1, 1, 2, 3)]),
        "a stale read": (2, [write(1, 1, 0, 1), write(1, 2, 2, 3), read(2, 1, 4, 5)]),
        "a lost write": (2, [write(1, 1, 0, 1), read(2, None, 2, 3)]),
        "new, then old": (2, [write(1, 1, 0, 9), read(2, 1, 1, 2), read(3, None, 3, 4)]),
        "a refused write was seen": (1, [write(1, 1, 0, 1, False), read(2, 1, 2, 3)]),
        "an unknown write undone": (2, [write(1, 1, 0, None, None), read(2, 1, 1, 2), read(2, None, 3, 4)]),
        "two cas from one value": (2, [cas(1, None, 1, True, 0, 5), cas(2, None, 2, True, 0, 5)]),
        "cas fails on what it expects": (2, [write(1, 1, 0, 1), cas(2, 1, 2, False, 2, 3)]),
        "true is not 1": (1, [write(1, 1, 0, 1), read(1, True, 2, 3)]),
    },
    "lock": {
        "two holders": (2, [acquire(1, 1, 0, 1), acquire(2, 2, 2, 3)]),
        "a token twice": (2, [acquire(1, 1, 0, 1), release(1, 2, 3), acquire(2, 1, 4, 5)]),
        "a token falls": (2, [acquire(1, 2, 0, 1), release(1, 2, 3), acquire(2, 1, 4, 5)]),
        "released by another": (1, [acquire(1, 1, 0, 1), release(2, 2, 3)]),
        "released twice": (2, [acquire(1, 1, 0, 1), release(1, 2, 3), release(1, 4, 5)]),
        "taken again with another token": (2, [acquire(1, 1, 0, 1), acquire(1, 2, 2, 3)]),
        "no token left for the one that nobody saw": (
            3,
            [
                acquire(2, 5, 1, 2),
                release(2, 3, 4),
                acquire(1, None, 5, None, None),
                release(1, 6, 7),
                acquire(2, 6, 8, 9),
            ],
        ),
    },
    "queue": {
        "a value that nobody enqueued": (1, [dequeue(1, "a", 0, 1)]),
        "one value twice": (2, [enqueue(1, "a", 0, 1), dequeue(2, "a", 2, 3), dequeue(2, "a", 4, 5)]),
        "out of order": (
            4,
            [enqueue(1, "a", 0, 1), enqueue(1, "b", 2, 3), dequeue(2, "b", 4, 5), dequeue(2, "a", 6, 7)],
        ),
        "empty with an item in it": (2, [enqueue(1, "a", 0, 1), dequeue(2, None, 2, 3)]),
        "more lost than unknown dequeues can have taken": (
            3,
            [
                enqueue(1, "a", 0, 1),
                enqueue(1, "b", 2, 3),
                enqueue(1, "c", 4, 5),
                dequeue(2, None, 6, None, None),
                dequeue(3, "c", 7, 8),
            ],
        ),
        "a value dequeued before its enqueue was called": (1, [dequeue(2, "a", 0, 1), enqueue(1, "a", 2, 3)]),
        "an unknown dequeue comes too late": (
            2,
            [enqueue(1, "a", 0, 1), dequeue(2, None, 2, 3), dequeue(3, None, 4, None, None)],
        ),
    },
}


def _cases(table: dict[str, dict[str, Any]]) -> list[Any]:
    return [
        pytest.param(model, case, id=f"{model}: {name}")
        for model, cases in table.items()
        for name, case in cases.items()
    ]


@pytest.mark.parametrize(("model", "history"), _cases(LEGAL))
def test_legal_history_is_linearizable(model: str, history: list[Operation]) -> None:
    """Each rule of the package's docstring that allows something."""
    shuffled = random.Random(1).sample(history, len(history))

    assert check_history(history, model).linearizable
    assert check_history(shuffled, model).linearizable
    assert check_history(history, model).offending == []


@pytest.mark.parametrize(("model", "case"), _cases(ILLEGAL))
def test_illegal_history_is_not_linearizable_and_shrinks(
    model: str, case: tuple[int, list[Operation]]
) -> None:
    """Each rule of the package's docstring that forbids something; no unneeded operation is blamed."""
    size, history = case

    verdict = check_history(history, model)

    assert not verdict.linearizable
    assert len(verdict.offending) <= size
    assert not is_linearizable(verdict.offending, model)


def test_keys_are_independent() -> None:
    """What is illegal on one key is legal on two; of two wrong keys the shorter part is shown."""
    first, second = acquire(1, 1, 0, 1), acquire(2, 1, 2, 3)
    other = Operation(2, "acquire", ["k", 2], None, 2, 3, True, 1)
    thief = Operation(3, "release", 7, None, 0, 1, True, None)

    assert check_history([first, other], "lock").linearizable
    assert check_history([first, second, other], "lock").offending == [first, second]
    assert check_history([first, second, thief], "lock").offending == [thief]


def _random_history(rng: random.Random, model: str) -> list[Operation]:
    values, horizon, processes = rng.randint(1, 4), rng.choice([4, 8, 15, 25]), rng.randint(1, 3)
    one_at_a_time, free_from = rng.random() < 0.5, {}
    history = []
    for _ in range(rng.randint(2, 7)):
        process, call = rng.randrange(processes), rng.randrange(horizon)
        if one_at_a_time:
            call = max(call, free_from.get(process, 0))
        end = call + rng.randrange(1, max(2, horizon // 2))
        free_from[process] = end + 1
        ok = rng.choice([True] * 20 + [None] * 5 + [False])
        value = gave = None
        if model == "register":
            name = rng.choice(["read", "read", "write", "write", "cas"])
            if name == "read":
                gave = rng.choice([rng.randrange(values)] * 4 + [None])
            elif name == "write":
                value = rng.randrange(values)
            else:
                value, gave = [rng.choice([0, 0, 1, None]), rng.randrange(values)], rng.random() < 0.6
        elif model == "lock":
            name = rng.choice(["acquire", "acquire", "release"])
            gave = rng.randrange(values * 2) if name == "acquire" else None
        else:
            name = rng.choice(["enqueue", "dequeue"])
            value = rng.randrange(values) if name == "enqueue" else None
            gave = rng.choice([rng.randrange(values)] * 3 + [None]) if name == "dequeue" else None
        returned = None if ok is None and rng.random() < 0.5 else end
        history.append(op(process, name, call, returned, value=value, gave=gave, ok=ok))
    return history


@pytest.mark.parametrize("model", ["register", "lock", "queue"])
def test_agrees_with_its_twin(model: str) -> None:
    """The verdict is that of trying every order; the offending part offends, and nothing of it can be spared."""
    rng = random.Random(f"twin {model}")
    seen = {True: 0, False: 0}
    for _ in range(TWIN_HISTORIES):
        history = _random_history(rng, model)

        verdict = check_history(history, model)

        lines = [operation.to_json() for operation in history]
        assert is_linearizable(history, model) == verdict.linearizable, lines
        seen[verdict.linearizable] += 1
        if not verdict.linearizable:
            _assert_smallest(history, verdict.offending, model)
    assert min(seen.values()) > TWIN_HISTORIES // 8, seen


def _assert_smallest(history: list[Operation], offending: list[Operation], model: str) -> None:
    kept = set(map(id, offending))
    rest = [o for o in history if o.ok and id(o) not in kept]
    assert not is_linearizable(offending, model)
    if model == "register":
        assert not is_linearizable(history, model, optional=rest)
        assert all(is_linearizable(history, model, optional=[*rest, spared]) for spared in offending)
        return
    # Locks and queues take what is left out for unknown.
    weakened = [o if id(o) in kept or not o.ok else o.unknown() for o in history]
    assert not is_linearizable(weakened, model)
    for spared in offending:
        assert is_linearizable([o.unknown() if o is spared else o for o in weakened], model)


SHAPES = [
    Shape("register"),
    Shape("register", unknown=0.3, values=5),
    Shape("register", span=40, values=2),
    Shape("register", changes=0.95, cas=0.0),
    Shape("lock"),
    Shape("lock", unknown=0.3, span=40),
    Shape("queue"),
    Shape("queue", unknown=0.3, values=5),
    Shape("queue", span=40, changes=0.6),
]
#: The operation whose result is spoiled.
SPOILED = {"register": "read", "lock": "acquire", "queue": "dequeue"}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_10_000_operations_are_decided_in_time(shape: Shape) -> None:
    """10,000 operations over 10 keys from 20 processes, linearizable by construction, unknown outcomes included."""
    history = make_history(1, shape)
    assert len(history) == shape.operations

    start = time.process_time()
    verdict = check_history(history, shape.model)

    assert verdict.linearizable, verdict.offending
    assert time.process_time() - start < DECISION_SECONDS_MAX


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.values is None], ids=str)
def test_one_wrong_result_among_10_000_is_found_in_time(shape: Shape) -> None:
    """One answer repeats an earlier one of its key; a handful of operations is shown."""
    history = spoil(1, make_history(2, shape), SPOILED[shape.model])

    start = time.process_time()
    verdict = check_history(history, shape.model)

    assert not verdict.linearizable
    assert len(verdict.offending) <= 4
    assert time.process_time() - start < DECISION_SECONDS_MAX


@pytest.mark.parametrize("model", ["register", "lock", "queue"])
def test_crowded_key_raises_no_false_alarm(model: str) -> None:
    """Twenty processes on one key: deeper histories than the twin can judge, legal by construction."""
    for seed in range(25):
        for values in (None, 3):
            shape = Shape(model, operations=150, keys=1, unknown=0.1, values=values, span=10)

            verdict = check_history(make_history(seed, shape), model)

            assert verdict.linearizable, (seed, shape, verdict.offending)


def test_writes_that_nobody_reads_cost_nothing() -> None:
    """Twenty overlapping writes at a time, hundreds of unknown ones: orders without number, and none matters."""
    history = [write(n % 20, f"w{n}", n, n + 20) for n in range(2_000)]
    history += [write(21, f"u{n}", n, None, None) for n in range(500)]

    for last, is_legal in (("w1999", True), ("w1980", True), ("u7", True), ("w1978", False), ("w7", False)):
        verdict = check_history([*history, read(22, last, 2_500, 2_501)], "register")

        assert verdict.linearizable == is_legal, last


def test_search_that_grows_too_large_is_given_up() -> None:
    """An honest "undecided", never a guess; but a key that is certainly wrong settles it."""
    history = make_history(1, Shape("register", operations=200, keys=1))
    wrong = Operation(1, "read", "other", None, 0, 1, True, "never written")

    with pytest.raises(Undecided):
        check_history(history, "register", steps_max=100)
    assert check_history([*history, wrong], "register", steps_max=100).offending == [wrong]


GOOD = {
    "process": 1,
    "op": "write",
    "key": "k",
    "value": 1,
    "call": 0,
    "return": 1,
    "ok": True,
    "result": None,
}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("7", "line 2: not a JSON object"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "call"}), "'call' is missing"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "ok"}), "'ok' is missing"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "value"}), "'value' is missing"),
        (
            '{"process": 1, "op": "read", "key": "k", "call": 0, "return": 1, "ok": true}',
            "'result' is missing",
        ),
        (json.dumps(GOOD | {"op": "wirte"}), "operation 2: 'wirte' is not an operation of a register"),
        (json.dumps(GOOD | {"op": ["write"]}), "is not an operation of a register"),
        (json.dumps(GOOD | {"op": "acquire"}), "'acquire' is not an operation of a register"),
        (json.dumps(GOOD | {"ok": "yes"}), "ok must be true, false or null"),
        (json.dumps(GOOD | {"ok": 1}), "ok must be true, false or null"),
        (json.dumps(GOOD | {"call": "0"}), "call must be a number"),
        (json.dumps(GOOD | {"call": True}), "call must be a number"),
        (json.dumps(GOOD | {"call": float("nan")}), "NaN is not a JSON number"),
        (json.dumps(GOOD | {"value": float("inf")}), "Infinity is not a JSON number"),
        (json.dumps(GOOD | {"return": None}), "needs a return time"),
        (json.dumps(GOOD | {"return": -1}), "before its call"),
        (json.dumps(GOOD | {"op": "cas", "value": [1]}), "[expected, new]"),
        (json.dumps(GOOD | {"op": "cas", "value": [1, 2]}), "must be true or false"),
    ],
)
def test_malformed_history_is_refused(
    line: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, nothing on stdout, and a sentence that names the place."""
    path = tmp_path / "history"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")

    code = main([str(path), "--model", "register"])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert complaint in err
    assert str(path) in err


@pytest.mark.parametrize(
    ("model", "operation", "complaint"),
    [
        ("lock", acquire(1, None, 0, 1), "token, an integer"),
        ("lock", acquire(1, True, 0, 1), "token, an integer"),
        ("queue", enqueue(1, None, 0, 1), "null cannot be enqueued"),
        ("register", write(1, object(), 0, 1), "not a JSON value"),
        ("stack", write(1, 1, 0, 1), "no model 'stack'"),
    ],
)
def test_operation_that_cannot_be_judged_is_refused(model: str, operation: Operation, complaint: str) -> None:
    """The library refuses what the command refuses."""
    with pytest.raises(HistoryError, match=complaint):
        check_history([operation], model)


def _write_history(path: Path, history: list[Operation]) -> str:
    path.write_text("".join(operation.to_json() + "\n" for operation in history))
    return str(path)


def test_command_says_linearizable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 and one word, with the model named or told by the operations."""
    path = _write_history(tmp_path / "history", [write(1, 1, 0, 1), read(2, 1, 2, 3)])

    codes = [main([path]), main([path, "--model", "register"])]

    assert codes == [0, 0]
    assert capsys.readouterr().out == "linearizable\n" * 2


def test_command_shows_the_offending_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1; what follows the first line is a history again, and wrong on its own."""
    history = make_history(3, Shape("queue", operations=300, keys=2))
    path = _write_history(tmp_path / "history", spoil(3, history, "dequeue"))

    code = main([path, "--model", "queue"])

    first, *lines = capsys.readouterr().out.splitlines()
    assert (code, first) == (1, "not linearizable")
    assert 1 <= len(lines) <= 5
    assert not check_history(parse_history(lines), "queue").linearizable


def test_command_shows_where_the_values_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stale read is shown with the write that it saw, and without the rest."""
    stale = [write(1, 1, 0, 1), write(1, 2, 2, 3), read(2, 1, 4, 5)]
    others = [write(3, 3, 6, 7), read(3, 3, 8, 9)]
    path = _write_history(tmp_path / "history", others + stale)

    main([path])

    assert parse_history(capsys.readouterr().out.splitlines()[1:]) == stale


def test_command_runs_as_a_module() -> None:
    """`python -m tests.sim.check -` reads stdin; the exit codes are those of a process."""
    stale = [write(1, 1, 0, 1), read(2, None, 2, 3)]
    inputs = ["", "".join(operation.to_json() + "\n" for operation in stale), "{}\n"]

    runs = [
        subprocess.run(
            [sys.executable, "-m", "tests.sim.check", "-"],
            cwd=REPOSITORY,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        for text in inputs
    ]

    assert [run.returncode for run in runs] == [0, 1, 2]
    assert runs[0].stdout == "linearizable\n"
    assert runs[1].stdout.startswith("not linearizable\n{")
    assert "line 1: the field 'process' is missing" in runs[2].stderr


def test_command_refuses_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file, bytes that are no text, a mix of models."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    mixed = acquire(1, 1, 0, 1).to_json() + "\n" + write(1, 1, 0, 1).to_json()
    monkeypatch.setattr("sys.stdin", io.StringIO(mixed))

    codes = [main([str(tmp_path / "missing")]), main([str(tmp_path / "bytes")]), main(["-"])]

    out, err = capsys.readouterr()
    assert (codes, out) == ([2, 2, 2], "")
    assert "No such file" in err
    assert "operation 2: 'write' is not an operation of a lock" in err
