"""Why a body or a query was refused, in one sentence that names the field and says what would be right.

The rule of the file: it only runs once a request is refused. It reads msgspec's messages, and tests fix their forms.
It passes on a form that it does not know as it is, so nothing is lost when msgspec has a new one.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

#: Longest piece of a client's own text that is repeated to it.
QUOTED_LENGTH_MAX = 60

_AT = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>\$.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_WRONG_TYPE = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")
_LENGTH = re.compile(r"Expected `(?P<kind>[^`]*)` of length (?P<relation>[<>]=)?\s?(?P<bound>\d+)")
_BOUND = re.compile(r"Expected `[^`]*` (?P<relation>[<>]=?) (?P<bound>\S+)")
_MALFORMED = re.compile(r"JSON is malformed: (?P<what>.*) \(byte (?P<at>\d+)\)", re.DOTALL)
#: How gzip and zstd begin.
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_FORM = re.compile(rb"[\w.%+-]+=")
_WORD = re.compile(rb"[A-Za-z_]+")
_WORD_LENGTH_MAX = 16
_ENUM = re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")

#: Words of other languages that clients send as values.
_LITERALS = {
    **dict.fromkeys((b"True", b"TRUE"), "`true` is"),
    **dict.fromkeys((b"False", b"FALSE"), "`false` is"),
    **dict.fromkeys((b"None", b"undefined", b"nil", b"NULL", b"Null"), "`null` is"),
    **dict.fromkeys((b"NaN", b"nan", b"Infinity", b"inf", b"Inf"), "which has no such number; send null or a text"),
}

_TYPES = {
    "str": "a text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_GOT_TYPES = {**_TYPES, "str": "a text", "float": "a decimal number"}
_RELATIONS = {">=": "at least", "<=": "at most", ">": "above", "<": "below", None: "exactly"}
_UNITS = {"str": "character", "array": "item", "object": "field"}


def refusal_of(
    error: Exception, kind: type[msgspec.Struct], *, noun: str = "field", whole: str = "body", text: bytes = b""
) -> str:
    """The sentence for what msgspec raised while it read a `kind` from the `whole`, whose parts are `noun`s. `text`
    is what it read, if that was JSON or should have been."""
    if isinstance(error, UnicodeDecodeError):
        return f"The {whole} is not valid UTF-8: {_encoding(text) or 'send text encoded as UTF-8'}."
    if isinstance(error, RecursionError):
        return f"The {whole} is nested too deeply; send fewer lists and objects inside one another."
    if not isinstance(error, msgspec.ValidationError):
        return f"The {whole} is not valid JSON: {_not_json(str(error), text)}."
    match = _AT.fullmatch(str(error))
    assert match is not None, "the pattern matches any text"
    return _invalid(match["what"], (match["path"] or "$")[1:].lstrip("."), kind, noun, whole)


def _not_json(message: str, text: bytes) -> str:
    """What is wrong with a text that is not JSON, and what would be right."""
    if message == "Input data was truncated":
        return "it ends too early, or an escape in it is half of a surrogate pair" if text.strip() else "it is blank"
    match = _MALFORMED.fullmatch(message)
    if match is None:
        return message.removeprefix("JSON is malformed: ")
    at = int(match["at"])
    if at == 0 and (encoding := _encoding(text)):
        return encoding
    if at == 0 and _FORM.match(text):
        return "it looks like a form; send an object such as {\"key\": \"a\"}"
    return f"{match['what']} at byte {at}{_advice(match['what'], text, at)}"


def _encoding(text: bytes) -> str:
    """What to do about a text that does not have the encoding of JSON; empty if nothing shows that."""
    if text.startswith(_PACKED):
        return "it is compressed; send it as it is"
    if text.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in text[:4]:
        return "it is encoded as UTF-16 or UTF-32; send UTF-8"
    return ""


def _advice(what: str, text: bytes, at: int) -> str:
    """What would be right, judged by the byte where reading ended."""
    if what.startswith("trailing comma"):
        return "; leave out the comma behind the last item"
    if what == "trailing characters":
        return "; send one value, and nothing behind it"
    if what == "invalid escape character in string":
        return "; a backslash in a text is written as \\\\"
    if what == "invalid number":
        return "; numbers are like 5, -0.5 or 1e9"
    word = _word_at(text, at)
    if word in _LITERALS:
        return f"; `{word.decode()}` is not JSON, {_LITERALS[word]}"
    if text[at : at + 1] in (b"\n", b"\r", b"\t"):
        return "; line ends and tabs in a text are written as \\n, \\r and \\t"
    if text[at : at + 1] in (b",", b"}", b"]"):
        return "; a name or a value is missing before it"
    if text[at : at + 1] == b"/":
        return "; JSON has no comments"
    if text[at : at + 1] in (b"+", b"."):
        return "; numbers are like 5, -0.5 or 1e9"
    if text[at : at + 1] in (b"'", b"`", b"\xe2") or (what == "object keys must be strings" or word):
        return "; names and texts stand in double quotes"
    return ""


def _word_at(text: bytes, at: int) -> bytes:
    """The bare word that the byte at `at` belongs to; empty if it belongs to none."""
    if not _WORD.match(text, at):
        return b""
    start = at
    while start > 0 and at - start < _WORD_LENGTH_MAX and _WORD.fullmatch(text, start - 1, start):
        start -= 1
    match = _WORD.match(text, start)
    return b"" if match is None else match[0][:_WORD_LENGTH_MAX]


def _invalid(what: str, path: str, kind: type[msgspec.Struct], noun: str, whole: str) -> str:
    """`path` is empty for the whole, else like `locks[0].key`."""
    subject = f"The {noun} `{_clip(path)}`" if path else f"The {whole}"
    if match := _MISSING.fullmatch(what):
        return f"The {noun} `{_join(path, match['name'])}` is missing; add it."
    if match := _UNKNOWN.fullmatch(what):
        return _unknown(match["name"], path, kind, noun)
    if match := _WRONG_TYPE.fullmatch(what):
        wanted = " or ".join(_TYPES.get(name, name) for name in match["wanted"].split(" | "))
        got = _GOT_TYPES.get(match["got"], match["got"])
        return f"{subject} must be {wanted}, not {got}."
    if match := _LENGTH.fullmatch(what):
        unit = _UNITS.get(match["kind"], "item") + ("" if match["bound"] == "1" else "s")
        return f"{subject} must have {_RELATIONS[match['relation']]} {match['bound']} {unit}."
    if match := _BOUND.fullmatch(what):
        return f"{subject} must be {_RELATIONS[match['relation']]} {match['bound'].removesuffix('.0')}."
    if match := _ENUM.fullmatch(what):
        allowed = ", ".join(f"`{value}`" for value in _choices(_type_at(kind, path)))
        return f"{subject} cannot be {_clip(match['value'])}; use {allowed or 'a listed value'}."
    if what.lower().endswith("out of range"):
        return f"{subject} is a number out of range; give a smaller one."
    return f"{subject} is refused: {what[:200]}."


def _unknown(name: str, path: str, kind: type[msgspec.Struct], noun: str) -> str:
    known = [
        field.encode_name
        for struct in _alternatives(_type_at(kind, path))
        if isinstance(struct, inspect.StructType)
        for field in struct.fields
    ]
    near = difflib.get_close_matches(name[:QUOTED_LENGTH_MAX], known, n=1)
    if near:
        hint = f"did you mean `{near[0]}`?"
    elif known:
        hint = f"known here are {', '.join(f'`{each}`' for each in known)}."
    else:
        hint = f"no {noun} is taken here."
    return f"There is no {noun} `{_join(path, name)}`; {hint}"


def _join(path: str, name: str) -> str:
    return _clip(f"{path}.{name}" if path else name)


def _clip(text: str) -> str:
    return text if len(text) <= QUOTED_LENGTH_MAX else text[: QUOTED_LENGTH_MAX - 3] + "..."


def _type_at(kind: type[msgspec.Struct], path: str) -> inspect.Type | None:
    """The type at `path` in a `kind`; None if it is unknown."""
    found: inspect.Type | None = inspect.type_info(kind)
    for name, index in _STEP.findall(f".{path}" if path else ""):
        found = next(_inside(found, name if not index else None), None)
    return found


def _inside(container: inspect.Type | None, name: str | None) -> Iterator[inspect.Type]:
    """The type of the field `name`, or of an item if `name` is None."""
    for each in _alternatives(container):
        if name is not None and isinstance(each, inspect.StructType):
            yield from (field.type for field in each.fields if field.encode_name == name)
        elif name is None and isinstance(each, inspect.CollectionType):
            yield each.item_type
        elif name is None and isinstance(each, inspect.DictType):
            yield each.value_type


def _alternatives(found: inspect.Type | None) -> tuple[inspect.Type, ...]:
    if found is None:
        return ()
    if isinstance(found, inspect.Metadata):
        return _alternatives(found.type)
    if isinstance(found, inspect.UnionType):
        return tuple(each for one in found.types for each in _alternatives(one))
    return (found,)


def _choices(found: inspect.Type | None) -> list[Any]:
    choices: list[Any] = []
    for each in _alternatives(found):
        if isinstance(each, inspect.LiteralType):
            choices += each.values
        elif isinstance(each, inspect.EnumType):
            choices += [member.value for member in each.cls]
    return choices
