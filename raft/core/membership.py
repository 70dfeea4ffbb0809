"""Configurations: who the members of a group are, as bytes in the log, as a history, and changed by one server.

All of this is pure; how a leader brings a change about is in `raft.core.reconfiguration`.
"""

from collections.abc import Sequence
from dataclasses import replace

from raft.core.errors import ConfigurationRefused
from raft.core.types import NOBODY, Configuration, Entry, EntryKind, Index, NodeId

Pairs = tuple[tuple[NodeId, str], ...]


def encode_configuration(configuration: Configuration) -> bytes:
    """`voter,voter;learner` in ASCII; then `;id=address,...;id=incarnation,...` if any of the following is known;
    then `;life` if the life or the lease length is known; then `;lease_ms` if the group has agreed on it."""
    parts = [",".join(configuration.voters), ",".join(configuration.learners)]
    later = configuration.needs_later_version
    if configuration.addresses or configuration.incarnations or later:
        parts += [_encode_pairs(configuration.addresses), _encode_pairs(configuration.incarnations)]
    if later:
        parts.append(configuration.life)
    if configuration.lease_ms:
        parts.append(str(configuration.lease_ms))
    return ";".join(parts).encode("ascii")


def decode_configuration(data: bytes) -> Configuration:
    """Raises ValueError if the bytes are no configuration."""
    parts = data.decode("ascii").split(";")
    if len(parts) not in (2, 4, 5, 6):
        raise ValueError(f"a configuration has 2, 4, 5 or 6 parts, not {len(parts)}")
    absent = ("", "", "", "", "", "0")
    voters, learners, addresses, incarnations, life, lease_ms = (*parts, *absent[len(parts) :])
    return Configuration(
        tuple(sorted(voter for voter in voters.split(",") if voter)),
        tuple(sorted(learner for learner in learners.split(",") if learner)),
        _decode_pairs(addresses),
        _decode_pairs(incarnations),
        life,
        int(lease_ms),
    )


def _encode_pairs(pairs: Pairs) -> str:
    return ",".join(f"{id}={value}" for id, value in pairs)


def _decode_pairs(text: str) -> Pairs:
    pairs = []
    for pair in text.split(",") if text else ():
        id, value = pair.split("=")
        pairs.append((id, value))
    return tuple(sorted(pairs))


def survives_encoding(configuration: Configuration) -> bool:
    """Whether every server reads from the log exactly what the leader already uses."""
    try:
        same = decode_configuration(encode_configuration(configuration)) == configuration
    except ValueError:
        return False
    members = configuration.members
    return same and len(set(members)) == len(members)


def is_readable(data: bytes) -> bool:
    """Whether the bytes are a configuration with which a group can decide anything."""
    try:
        return bool(decode_configuration(data).voters)
    except ValueError:
        return False


class ConfigurationHistory:
    """The configurations in the log, newest last; the first is the one that the snapshot or the start gave."""

    def __init__(self, index: Index, base: Configuration, entries: Sequence[Entry]) -> None:
        self._history: list[tuple[Index, Configuration]] = [(index, base)]
        self.append(entries)

    @property
    def latest(self) -> Configuration:
        return self._history[-1][1]

    @property
    def latest_index(self) -> Index:
        return self._history[-1][0]

    def append(self, entries: Sequence[Entry]) -> bool:
        """`entries` went into the log and replaced what was there. True if the configuration changed."""
        before = self.latest
        while len(self._history) > 1 and self._history[-1][0] >= entries[0].index if entries else False:
            self._history.pop()
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                self._history.append((entry.index, decode_configuration(entry.data)))
        return self.latest != before

    def at(self, index: Index) -> Configuration:
        """The configuration that a snapshot at `index` must carry."""
        for since, configuration in reversed(self._history):
            if since <= index:
                return configuration
        return self._history[0][1]

    def index_at(self, index: Index) -> Index:
        """The index of the configuration that is in force at `index`, or an index before it."""
        for since, _ in reversed(self._history):
            if since <= index:
                return since
        return self._history[0][0]

    def since(self, index: Index) -> list[Configuration]:
        """The configuration at `index` and all later ones: a server that knows only `index` as committed may be under
        any of them."""
        later = [configuration for since, configuration in self._history if since > index]
        return [self.at(index), *later]

    def compact(self, index: Index) -> None:
        while len(self._history) > 1 and self._history[1][0] <= index:
            del self._history[0]


def changed(current: Configuration, *, add: NodeId = NOBODY, remove: NodeId = NOBODY) -> Configuration:
    """`current` with one server added as learner, a learner promoted (added once more), or a server removed.

    Raises:
        ConfigurationRefused: the change changes nothing or leaves no voter.
    """
    voters, learners = set(current.voters), set(current.learners)
    if remove:
        if remove not in voters | learners:
            raise ConfigurationRefused(f"{remove} is no member")
        voters.discard(remove)
        learners.discard(remove)
        if not voters:
            raise ConfigurationRefused(f"{remove} is the last voter")
    elif add in voters:
        raise ConfigurationRefused(f"{add} votes already")
    elif add in learners:
        learners.discard(add)
        voters.add(add)
    else:
        learners.add(add)
    members = voters | learners
    return Configuration(
        tuple(sorted(voters)),
        tuple(sorted(learners)),
        tuple(pair for pair in current.addresses if pair[0] in members),
        tuple(pair for pair in current.incarnations if pair[0] in members),
        current.life,
        current.lease_ms,
    )


def described(
    current: Configuration, member: NodeId, *, address: str = "", incarnation: str = "", life: str = ""
) -> Configuration:
    """`current` with the address and the incarnation of a member replaced, if they are given, and with the group's
    life, if it had none."""
    assert member in current.members
    addresses, incarnations = dict(current.addresses), dict(current.incarnations)
    if address:
        addresses[member] = address
    if incarnation:
        incarnations[member] = incarnation
    return replace(
        current,
        addresses=tuple(sorted(addresses.items())),
        incarnations=tuple(sorted(incarnations.items())),
        life=current.life or life,
    )
