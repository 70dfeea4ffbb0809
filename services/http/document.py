"""The tables of docs/http-api.md, made from the table of operations: `make docs` writes them, a test compares them.

    python -m services.http.document [--write]

Between `<!-- operations of lock -->` and `<!-- end -->` stands a table of what that group can be asked, and between
`<!-- refusals -->` and `<!-- end -->` that of the refusals. Everything else on the page is written by hand.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET, Struct
from msgspec.inspect import LiteralType, Metadata, RawType, Type, type_info

from services.catalogue import OPERATIONS
from services.operations.answers import NotDone, NotKept
from services.operations.operation import GET, Kind, Operation, Text
from services.operations.refusals import ALWAYS, REFUSALS, WRITE
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
    usual = "reader" if operation.at.method == GET else "client"
    if operation.right == usual:
        return operation.sentence
    return operation.sentence + (" Needs no token." if operation.right == "public" else f" Role `{operation.right}`.")


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
    said = (meta.get("extra_json_schema") or {}).get("description") or _default(field)
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
    own = [reason for reason in operation.refuses if reason not in (*ALWAYS, *WRITE)]
    if own:
        found.append("Refused: " + ", ".join(f"{REFUSALS[reason].status} `{reason}`" for reason in own))
    return "<br>".join(filter(None, found))


def _told(kind: type) -> str:
    fields = ", ".join(_told_fields(kind))
    doc = " ".join((kind.__dict__.get("__doc__") or "").split())
    if issubclass(kind, NotDone):
        reasons = " or ".join(f"`{reason}`" for reason in _reasons(kind))
        fields = f"Not done, {reasons}" + (f": {fields}" if fields else "")
    return ". ".join(filter(None, (fields, doc)))


def _told_fields(kind: type) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        if field.encode_name not in _OF_EVERY_ANSWER:
            yield f"`{field.encode_name}`" + ("?" if field.default is UNSET else "")


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
