"""The cache's state machine: what each command does to the lines, a pure function of the log.

The rule of this file: a command looks at a line through `_live` first, so that nobody meets one that is gone, and
changes it through `services.cache.replicated.store` alone. Each command ends with one `Answered` in
`context.events`: the leader holds its answer for as long as somebody may serve something older of the keys that it
names.
"""

import re
from collections.abc import Callable, Sequence
from sys import intern
from typing import Any

from raft.state_machine import ApplyContext
from services.cache.replicated.commands import (
    Delete,
    Fill,
    FillMany,
    GiveBack,
    Incr,
    Invalidate,
    Put,
    PutMany,
)
from services.cache.replicated.directory import I, M
from services.cache.replicated.line import Answered, Line
from services.cache.replicated.store import LEASE_TOLD_TOPIC, SWEPT_PER_ENTRY_MAX, TRANSITION_TOPIC, LineStore

#: Range of a number that `Incr` counts in.
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1

#: Topic in `context.events` of one `Answered` for each command.
ANSWER_TOPIC = "cache.answer"

#: Commands that make a node the owner of what it wrote.
WRITES = (Put, PutMany, Incr)

#: Earlier writes' evictions are under way and too far behind; nothing was done.
_CROWDED = {
    "ok": False,
    "reason": "overloaded",
    "detail": "The cache is removing old lines to make room for large ones; try again in a moment.",
}

_INTEGER = re.compile(rb"-?(0|[1-9][0-9]{0,18})")

__all__ = ["ANSWER_TOPIC", "TRANSITION_TOPIC", "CacheMachine", "keys_of", "tag_key"]


class CacheMachine(LineStore):
    """The cache as a pure function of its log."""

    COMMANDS: tuple[type, ...] = (Put, PutMany, Fill, FillMany, Delete, GiveBack, Incr, Invalidate)

    def __init__(self, **limits: int) -> None:
        """See `LineStore`."""
        super().__init__(**limits)
        self._handlers: dict[type, Callable[[ApplyContext, Any], dict[str, Any]]] = {
            Put: self._put,
            PutMany: self._put_many,
            Fill: self._fill,
            FillMany: self._fill_many,
            Delete: self._delete,
            GiveBack: self._give_back,
            Incr: self._incr,
            Invalidate: self._invalidate_tag,
        }

    def apply(self, context: ApplyContext, command: Any) -> dict[str, Any]:
        """Carry out one command. Values in the answer are raw JSON bytes, under `val`; the answer to
        `FillMany` has one such answer per key under `items`."""
        handler = self._handlers[type(command)]
        keys = keys_of(command)
        self._sweep(context, len(keys))
        answer = handler(context, command)
        writer = command.node if answer.get("state") == M and isinstance(command, WRITES) else ""
        self._announce(context, keys, writer)
        return answer

    def kept(self, answer: dict[str, Any]) -> dict[str, Any]:
        """All of it."""
        return answer

    def repeat(self, context: ApplyContext, command: Any, kept: dict[str, Any]) -> dict[str, Any]:
        """An earlier answer to this very command is given again: it speaks of the same keys."""
        self._announce(context, keys_of(command), "")
        return kept

    def advance(self, context: ApplyContext, command: Any = None) -> None:
        """Let cluster time reach the entry's; see `LineStore`. Little is swept where a command follows."""
        self._sweep(context, SWEPT_PER_ENTRY_MAX if command is None else len(keys_of(command)))

    def _announce(self, context: ApplyContext, keys: tuple[str, ...], writer: str) -> None:
        context.events.append((ANSWER_TOPIC, Answered(context.index, keys, writer)))

    # Writing

    def _put(self, context: ApplyContext, command: Put) -> dict[str, Any]:
        line = self._live(context, command.key)
        tags = _tags(command.tags)
        if command.lease is not None and not self._may_fill(context, command.key, command.lease, tags):
            return _lease_lost(command.key, line)
        if command.if_version is not None and command.if_version != _version(line):
            return _mismatch(command.key, line)
        if self._is_crowded():
            return dict(_CROWDED)
        expires_at = self._expiry(command.ttl_ms)
        self._write(context, line, command.key, command.value, command.node, expires_at, tags)
        self._evict(context)
        return {"ok": True, "version": context.index, "state": M}

    def _put_many(self, context: ApplyContext, command: PutMany) -> dict[str, Any]:
        items = sorted(command.items, key=lambda item: item[0])
        for key, _, _, if_version, *_ in items:
            line = self._live(context, key)
            if if_version is not None and if_version != _version(line):
                return _mismatch(key, line)
        if self._is_crowded():
            return dict(_CROWDED)
        for key, value, ttl_ms, _, *rest in items:
            tags = _tags(rest[0]) if rest else ()
            self._write(context, self._lines.get(key), key, value, command.node, self._expiry(ttl_ms), tags)
        self._evict(context)
        return {"ok": True, "version": context.index, "state": M}

    def _incr(self, context: ApplyContext, command: Incr) -> dict[str, Any]:
        line = self._live(context, command.key)
        value = b"0" if line is None else line.value
        if not _INTEGER.fullmatch(value) or not INTEGER_MIN <= int(value) <= INTEGER_MAX:
            return {"ok": False, "reason": "not_an_integer", "key": command.key, "version": _version(line)}
        number = int(value) + command.by
        if not INTEGER_MIN <= number <= INTEGER_MAX:
            return {"ok": False, "reason": "out_of_range", "key": command.key, "value": int(value)}
        if self._is_crowded():
            return dict(_CROWDED)
        expires_at, tags = (None, ()) if line is None else (line.expires_at, line.tags)
        if command.ttl_ms is not None:
            expires_at = self._expiry(command.ttl_ms)
        self._write(context, line, command.key, b"%d" % number, command.node, expires_at, tags)
        self._evict(context)
        return {"ok": True, "value": number, "version": context.index, "state": M}

    # Removing

    def _delete(self, context: ApplyContext, command: Delete) -> dict[str, Any]:
        line = self._live(context, command.key)
        if command.lease is not None and not self._may_fill(context, command.key, command.lease, ()):
            return _lease_lost(command.key, line)
        if command.if_version is not None and command.if_version != _version(line):
            return _mismatch(command.key, line)
        self._end_lease(context, command.key)
        if line is not None:
            self._drop(context, line, "delete")
        return {"ok": True, "deleted": line is not None}

    def _invalidate_tag(self, context: ApplyContext, command: Invalidate) -> dict[str, Any]:
        return {"ok": True, "invalidated": self._invalidate(context, command.tag)}

    # Reading

    def _fill(self, context: ApplyContext, command: Fill) -> dict[str, Any]:
        answer = self._filled(context, command.key, command.node)
        if command.lease_ms and not answer["hit"]:
            return self._lease(context, command, answer)
        return answer

    def _fill_many(self, context: ApplyContext, command: FillMany) -> dict[str, Any]:
        keys = sorted(set(command.keys))
        context.spend(len(keys))
        return {"ok": True, "items": {key: self._filled(context, key, command.node) for key in keys}}

    def _filled(self, context: ApplyContext, key: str, node: str) -> dict[str, Any]:
        line = self._live(context, key)
        if line is None:
            return {"hit": False, "val": None, "state": I}
        line = self._touch(context, line, node)
        state = line.directory.state_of(node)
        return {"hit": True, "val": line.value, "state": state, "version": line.version, "source": "fill"}

    def _lease(self, context: ApplyContext, command: Fill, absent: dict[str, Any]) -> dict[str, Any]:
        """The answer about an absent key to somebody who would fill it: whose lease it is already is told of it
        again (`FillLease.is_of`)."""
        leases = self._fill_leases
        asker, claim = intern(command.asker), command.claim or ""
        lease = leases.of(command.key, context.time_ms)
        if lease is None:
            self._end_lease(context, command.key)
            leases_max = self._limit["fill_leases_max"]
            if len(leases) >= leases_max:
                return {"ok": False, "reason": "quota", "limit": "fill_leases_max", "limit_value": leases_max}
            lease = leases.take(command.key, context.index, context.time_ms, command.lease_ms, asker, claim)
        elif not lease.is_of(asker, claim):
            return {**absent, "filling": True, "lease_expires_ms": lease.expires_at}
        elif command.claim is not None:
            told = leases.tell_again(lease, context.index, asker, beside=command.beside)
            if told is None:
                return {**absent, "filling": True, "lease_expires_ms": lease.expires_at}
            lease = told
        context.events.append((LEASE_TOLD_TOPIC, lease))
        answer = {**absent, "lease": lease.token, "lease_expires_ms": lease.expires_at}
        if claim and lease.told != lease.token:
            answer["replayed"] = True
        return answer

    def _give_back(self, context: ApplyContext, command: GiveBack) -> dict[str, Any]:
        for key, token, told in command.leases:
            lease = self._fill_leases.of(key, context.time_ms)
            if lease is not None and lease.token == token and self._fill_leases.give_back(lease, told):
                self._end_lease(context, key)
        return {"ok": True}

    def _may_fill(self, context: ApplyContext, key: str, token: int, tags: tuple[str, ...]) -> bool:
        """Whether the lease still stands. A value that is too old for its tags ends it: another is to compute."""
        if self._fill_leases.may_fill(key, token, tags, context.time_ms):
            return True
        if self.lease_token(key) == token:
            self._end_lease(context, key)
        return False


def keys_of(command: Any) -> tuple[str, ...]:
    """The keys that a command names; for a tag, the name under which all its lines are waited for."""
    if isinstance(command, PutMany):
        return tuple(item[0] for item in command.items)
    if isinstance(command, FillMany):
        return tuple(command.keys)
    if isinstance(command, Invalidate):
        return (tag_key(command.tag),)
    if isinstance(command, GiveBack):
        # Its answer shows nothing of any line.
        return ()
    return (command.key,)


def tag_key(tag: str) -> str:
    """What stands for a tag among keys. No key is called so: names hold no control characters."""
    return "\0" + tag


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(intern, tags)) if tags else ()


def _version(line: Line | None) -> int:
    """The version that `if_version` is compared with; 0 where the key is absent."""
    return 0 if line is None else line.version


def _mismatch(key: str, line: Line | None) -> dict[str, Any]:
    return {"ok": False, "reason": "version_mismatch", "key": key, "version": _version(line)}


def _lease_lost(key: str, line: Line | None) -> dict[str, Any]:
    return {"ok": False, "reason": "lease_lost", "key": key, "version": _version(line)}
