"""What stands around every replicated command, as it is in the log.

    [op, [field, ...], idempotency key or nil, fingerprint or nil]          (msgpack)

The last fields are left out where they came later (`FIELDS_SINCE`) and say nothing. `services.replicated.machine`
takes it off again.
"""

from dataclasses import fields
from hashlib import blake2b
from typing import Any, ClassVar, Protocol

from common.wire import pack

#: Fields of a command that differ when the same request is sent again, perhaps to another node.
PER_TRY_FIELDS = frozenset({"waiter", "node", "boot"})


class Command(Protocol):
    """A frozen dataclass of msgpack-able fields, named on disk by `OP`."""

    OP: ClassVar[str]


def encode_command(
    command: Command, *, idempotency_key: str | None = None, fingerprint: bytes | None = None
) -> bytes:
    """The bytes of one log entry."""
    return pack([command.OP, _written(command), idempotency_key, fingerprint])


class _FieldNames(dict[type[Any], tuple[str, ...]]):
    def __missing__(self, cls: type[Any]) -> tuple[str, ...]:
        names = self[cls] = tuple(field.name for field in fields(cls))
        return names


#: The names of the fields of each class of commands that was seen.
_names = _FieldNames()


def _written(command: Any) -> list[Any]:
    """The values of the fields, as far as they say what nodes of before those fields would not read anyway."""
    names = _names[type(command)]
    values = [getattr(command, name) for name in names]
    since = getattr(command, "FIELDS_SINCE", None)
    if since is not None:
        for name in reversed(names):
            if name not in since or values[-1] != command.ADDED[name]:
                break
            values.pop()
    return values


def values_by_name(command: Any) -> dict[str, Any]:
    """The fields of a command."""
    return {name: getattr(command, name) for name in _names[type(command)]}


def fingerprint(command: Command) -> bytes:
    """16 bytes that tell one request from another: what was asked, whichever node or vocabulary said it. A field that
    its command was given later (`ADDED`) counts where it says something: an answer that was kept before an upgrade is
    found after it."""
    added: dict[str, Any] = getattr(command, "ADDED", {})
    asked = {
        name: value
        for name, value in values_by_name(command).items()
        if name not in PER_TRY_FIELDS and not (name in added and value == added[name])
    }
    return blake2b(pack([command.OP, asked]), digest_size=16).digest()
