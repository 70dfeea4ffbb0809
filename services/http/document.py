"""The tables of docs/http-api.md, made from the table of operations: `make docs` writes them, a test compares them.

    python -m services.http.document [--write]

Between `<!-- operations of lock -->` and `<!-- end -->` stands a table of what that group can be asked, and between
`<!-- refusals -->` and `<!-- end -->` that of the refusals. Everything else on the page is written by hand.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET, Struct
from msgspec.inspect import (
    CollectionType,
    DictType,
    LiteralType,
    Metadata,
    RawType,
    StructType,
    Type,
    UnionType,
    type_info,
)

from services.catalogue import OPERATIONS
from services.operations.answers import NotDone, NotKept
from services.operations.operation import Kind, Operation, Text, usual_right
from services.operations.refusals import ALWAYS, READ, REFUSALS, WRITE
from services.operations.vocabulary import ALIASES, are_one

PAGE = Path(__file__).resolve().parents[2] / "docs" / "http-api.md"

#: Fields that every answer may have; the page tells of them once.
_OF_EVERY_ANSWER = frozenset({"ok", "replayed", "detail", "reason"})
_BLOCK = re.compile(r"<!-- (operations of (?P<family>\w+)|refusals) -->\n.*?<!-- end -->", re.DOTALL)


def page() -> str:
    """The page as it should be: what is written by hand, and the tables."""

    def block(match: re.Match[str]) -> str:
        rows = refusals() if match["family"] is None else operations(match["family"])
        return "\n".join([f"<!-- {match[1]} -->", *rows, "<!-- end -->"])

    return _BLOCK.sub(block, PAGE.read_text("utf-8"))


def families() -> tuple[str, ...]:
    """What the names of operations begin with: a table each."""
    return tuple(dict.fromkeys(each.name.partition(".")[0] for each in OPERATIONS))


def refusals() -> Iterator[str]:
    yield "| status | reason | when, and what to do |"
    yield "|---|---|---|"
    for reason, refusal in REFUSALS.items():
        yield f"| {refusal.status} | `{reason}` | {refusal.when} |"
    yield ""
    of_writes = [reason for reason in WRITE if reason not in READ]
    sentences = (
        f"Any operation may be refused with {_listed(ALWAYS)}.",
        f"One that reads what is replicated may be refused with {_listed(READ)}, too, and one that writes with",
        f"{_listed(of_writes)} besides. Each names what else it may be refused with.",
        "A refusal that is given again for an `Idempotency-Key` has `replayed`.",
    )
    yield from wrap(" ".join(sentences), width=118)


def _listed(reasons: Iterable[str]) -> str:
    return ", ".join(f"`{reason}`" for reason in reasons)


def operations(family: str) -> Iterator[str]:
    yield "| route, operation | what it does | request | answer |"
    yield "|---|---|---|---|"
    for each in OPERATIONS:
        if each.name.startswith(f"{family}."):
            yield f"| {_route(each)} | {_what(each)} | {_request(each)} | {_answer(each)} |"


def _route(operation: Operation) -> str:
    routes = ", ".join(f"`{operation.at.method} {path}`" for path in operation.paths)
    return f"{routes} (`{operation.name}`)"


def _what(operation: Operation) -> str:
    said = " ".join(f"{operation.sentence} {operation.text}".split())
    if operation.right == usual_right(operation.at.method):
        return said
    return said + (" Needs no token." if operation.right == "public" else f" Role `{operation.right}`.")


def _request(operation: Operation) -> str:
    kind = operation.body
    hidden = {ALIASES[word] for word in ALIASES if are_one(kind, word)}
    fields = (_asked(kind, field) for field in msgspec.structs.fields(kind) if field.encode_name not in hidden)
    return ", ".join(filter(None, fields))


def _asked(kind: type[Struct], field: Any) -> str:
    """One field of a body; empty for one of the other vocabulary that means nothing here."""
    name, (shown, meta) = field.encode_name, _unwrapped(type_info(field.type))
    is_pair = are_one(kind, name)
    if isinstance(shown, RawType) and not field.required and not is_pair:
        return ""
    optional = not field.required and (not is_pair or (meta.get("extra") or {}).get("optional"))
    words = ", ".join(filter(None, map(_inside, _alternatives(shown)))) if not is_pair else ""
    said = (meta.get("extra_json_schema") or {}).get("description") or _default(field) or words
    text = f"`{name}`" + (f" or `{ALIASES[name]}`" if is_pair else "") + ("?" if optional else "")
    return f"{text} ({said})" if said else text


def _unwrapped(shown: Type) -> tuple[Type, dict[str, Any]]:
    """A type without what is said about it, and that."""
    if isinstance(shown, Metadata):
        return shown.type, {"extra": shown.extra, "extra_json_schema": shown.extra_json_schema}
    return shown, {}


def _default(field: Any) -> str:
    if field.default in (NODEFAULT, UNSET, None, "") or field.default is False:
        return ""
    return f"`{field.default}`" if isinstance(field.default, str) else str(field.default)


def _answer(operation: Operation) -> str:
    if operation.kind is Kind.FILE:
        found = ["a file"]
    elif operation.kind is Kind.EVENTS:
        found = ["server-sent events: " + ", ".join(f"`{name}`" for name in operation.events)]
    else:
        found = [_told(kind) for kind in operation.answers if kind not in (NotKept, Text)]
    usual, name = _usual(operation)
    own = [reason for reason in operation.refuses if reason not in (*ALWAYS, *usual)]
    refused = [name] if name else []
    refused += [f"{REFUSALS[reason].status} `{reason}`" for reason in own]
    if refused:
        found.append(f"Refused: {', '.join(refused)}")
    return "<br>".join(filter(None, found))


def _usual(operation: Operation) -> tuple[tuple[str, ...], str]:
    """With what all that read, or all that write, may be refused, and how the table says that."""
    if set(operation.refuses) >= set(WRITE):
        return WRITE, "as any write"
    return (READ, "as any read") if set(operation.refuses) >= set(READ) else ((), "")


def _told(kind: type) -> str:
    fields = ", ".join(_told_fields(kind))
    doc = " ".join((kind.__dict__.get("__doc__") or "").split())
    if issubclass(kind, NotDone):
        reasons = " or ".join(f"`{reason}`" for reason in _reasons(kind))
        fields = f"Not done, {reasons}" + (f": {fields}" if fields else "")
    return ". ".join(filter(None, (fields, doc)))


def _told_fields(kind: type) -> Iterator[str]:
    """The fields of an answer, with what is inside of them."""
    for field in msgspec.structs.fields(kind):
        if field.encode_name in _OF_EVERY_ANSWER:
            continue
        inside = " or ".join(dict.fromkeys(filter(None, map(_inside, _alternatives(type_info(field.type))))))
        yield f"`{field.encode_name}`" + ("?" if field.default is UNSET else "") + (f" ({inside})" if inside else "")


def _inside(shown: Type) -> str:
    """What a field holds: the fields of each object, or the words that it may be."""
    if isinstance(shown, StructType):
        return ", ".join(f"`{field.encode_name}`" for field in shown.fields)
    if isinstance(shown, LiteralType) and len(shown.values) > 1:
        return ", ".join(f"`{value}`" for value in shown.values)
    return ""


def _alternatives(shown: Type) -> Iterator[Type]:
    """A type, or those that it is made of: of a union, a list, a dict's values."""
    if isinstance(shown, Metadata):
        yield from _alternatives(shown.type)
    elif isinstance(shown, UnionType):
        for one in shown.types:
            yield from _alternatives(one)
    elif isinstance(shown, CollectionType):
        yield from _alternatives(shown.item_type)
    elif isinstance(shown, DictType):
        yield from _alternatives(shown.value_type)
    else:
        yield shown


def _reasons(kind: type) -> Iterable[Any]:
    """What its `reason` may be."""
    (field,) = (field for field in msgspec.structs.fields(kind) if field.encode_name == "reason")
    found = type_info(field.type)
    assert isinstance(found, LiteralType), kind
    return found.values


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), "utf-8")
    else:
        print(page())
