"""The two vocabularies: the short one (`key`, `client_id`, `val`, `X`) and the long one (`name`, `owner`, `value`,
`exclusive`). Both are understood everywhere. What means the same is said here and nowhere else.

Other paths of an operation stand in its row (`Path.aliases`).
"""

from typing import Any, Literal

from msgspec import Struct

from common.api_error import bad_request, check_name

#: Short word -> long word. A struct that has both has one field in truth, and exactly one of them has to be given.
ALIASES = {"key": "name", "client_id": "owner", "val": "value"}

Mode = Literal["X", "S", "exclusive", "shared"]
_EXCLUSIVE_MODES = frozenset({"X", "exclusive"})


def is_exclusive(mode: Mode) -> bool:
    return mode in _EXCLUSIVE_MODES


def are_one(kind: type[Struct], word: str) -> bool:
    """Whether `word` and its alias are the same field of `kind`."""
    fields = kind.__struct_fields__
    return word in ALIASES and word in fields and ALIASES[word] in fields


def name_of(body: Any, word: str, bytes_max: int) -> str:
    """The name that stands under `word` or its alias in `body`.

    Raises:
        ApiError: 400, neither or both are there, or it cannot be a name.
    """
    alias = ALIASES[word]
    short_value, long_value = getattr(body, word), getattr(body, alias)
    if short_value is None:
        if long_value is None:
            raise bad_request(f"The field `{word}` is missing; add it, or `{alias}`, which means the same.")
        return check_name(long_value, alias, bytes_max)
    if long_value is not None:
        raise bad_request(f"The fields `{word}` and `{alias}` mean the same; give one of them.")
    return check_name(short_value, word, bytes_max)
