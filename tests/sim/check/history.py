"""The nouns of a history, and the only place that refuses malformed ones."""

import json
import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any

#: What may be done to an object of each model.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "register": ("read", "write", "cas"),
    "lock": ("acquire", "release"),
    "queue": ("enqueue", "dequeue"),
}
MODELS = tuple(OPERATIONS)

_NEEDS_VALUE = ("write", "cas", "enqueue")
_NEEDS_RESULT = ("read", "cas", "acquire", "dequeue")


class HistoryError(Exception):
    """The history is not one that can be judged; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What one process asked of one key, and what came of it; the fields are those of the history file."""

    process: Any
    op: str
    key: Any
    value: Any
    call: float
    #: Time of the answer; None where there was none. Written `return` in a file.
    return_: float | None
    #: True: took effect. False: certainly had no effect. None: unknown.
    ok: bool | None
    result: Any = None

    def to_json(self) -> str:
        """The operation as a line of a history file."""
        return json.dumps(
            {
                "process": self.process,
                "op": self.op,
                "key": self.key,
                "value": self.value,
                "call": self.call,
                "return": self.return_,
                "ok": self.ok,
                "result": self.result,
            }
        )

    def unknown(self) -> "Operation":
        """The same request with an outcome that nobody knows: everything that it could explain before, it can
        explain now, and it demands nothing."""
        return replace(self, return_=None, ok=None, result=None)


def identity(value: Any) -> Hashable:
    """Something hashable that is equal for equal JSON values and for those alone.

    Raises: HistoryError for what JSON (and bytes) cannot say.
    """
    if value is None or isinstance(value, str | bytes):
        return value
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise HistoryError(f"{value} is not a JSON number")
        return int(value) if value.is_integer() else value
    if isinstance(value, list | tuple):
        return ("list", *map(identity, value))
    if isinstance(value, dict):
        return ("dict", frozenset((name, identity(inner)) for name, inner in value.items()))
    raise HistoryError(f"a {type(value).__name__} is not a JSON value")


def parse_history(lines: Iterable[str]) -> list[Operation]:
    """The operations of a history file, in the order of its lines. `check_history` judges their contents.

    Raises: HistoryError, naming the line.
    """
    operations = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                operations.append(_parse_operation(line))
            except HistoryError as error:
                raise HistoryError(f"line {number}: {error}") from None
    return operations


def _parse_operation(line: str) -> Operation:
    try:
        fields = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise HistoryError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise HistoryError("not a JSON object")
    for name in ("process", "op", "key", "call", "ok"):
        if name not in fields:
            raise HistoryError(f"the field {name!r} is missing")
    op, ok = fields["op"], fields["ok"]
    if "value" not in fields and op in _NEEDS_VALUE:
        raise HistoryError(f"the field 'value' is missing: {op} needs one")
    # A dequeue without its result must not pass for one that found nothing.
    if "result" not in fields and ok is True and op in _NEEDS_RESULT:
        raise HistoryError(f"the field 'result' is missing: {op} with ok true gave one")
    return Operation(
        process=fields["process"],
        op=op,
        key=fields["key"],
        value=fields.get("value"),
        call=fields["call"],
        return_=fields.get("return"),
        ok=ok,
        result=fields.get("result"),
    )


def _refuse_constant(name: str) -> None:
    raise HistoryError(f"{name} is not a JSON number")


def infer_model(operations: list[Operation]) -> str:
    """The model that the first operation belongs to; `register` for an empty history.

    Raises: HistoryError where no model has such an operation.
    """
    if not operations:
        return "register"
    for model, names in OPERATIONS.items():
        if operations[0].op in names:
            return model
    raise HistoryError(f"operation 1: no model has an operation {operations[0].op!r}")


def check_operation(operation: Operation, model: str) -> None:
    """Raises: HistoryError unless the operation is a sound one of `model`."""
    op, ok, result = operation.op, operation.ok, operation.result
    if op not in OPERATIONS[model]:
        raise HistoryError(f"{op!r} is not an operation of a {model}: {', '.join(OPERATIONS[model])}")
    if ok is not None and not isinstance(ok, bool):
        raise HistoryError(f"ok must be true, false or null, not {ok!r}")
    if not _is_time(operation.call):
        raise HistoryError(f"call must be a number, not {operation.call!r}")
    if operation.return_ is None:
        if ok:
            raise HistoryError("an operation with ok true needs a return time")
    elif not _is_time(operation.return_):
        raise HistoryError(f"return must be a number or null, not {operation.return_!r}")
    elif operation.return_ < operation.call:
        raise HistoryError(f"returned at {operation.return_}, before its call at {operation.call}")
    for value in (operation.process, operation.key, operation.value, result):
        identity(value)
    if op == "cas":
        if not isinstance(operation.value, list | tuple) or len(operation.value) != 2:
            raise HistoryError("the value of a cas must be [expected, new]")
        if ok and not isinstance(result, bool):
            raise HistoryError(f"the result of a cas must be true or false, not {result!r}")
    if op == "acquire" and ok and (not isinstance(result, int) or isinstance(result, bool)):
        raise HistoryError(f"the result of an acquire must be its token, an integer, not {result!r}")
    if op == "enqueue" and operation.value is None:
        raise HistoryError("null cannot be enqueued: it could not be told from an empty queue")


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
