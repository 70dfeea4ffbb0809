"""Whether enough voters of a proposed configuration answer to be a majority of it (etcd: strict reconfiguration
check).

A configuration is used as soon as it is in the log (thesis 4.1). If the voters that answer are no majority of it, it
could not even be committed: the group would stand still, and nobody could change it back. So a leader does not
propose such a configuration.

    alive     answered a message of this leadership that is no older than an election timeout
    unknown   may still be alive, or has answered nothing since the moment that the asker names
    silent    an election timeout passed without an answer

An unknown voter becomes alive or silent within an election timeout; until then the leader says "try again" rather
than no. A voter that answered a moment ago may be dead by now, so the asker of a removal names the moment of its
request.
"""

from collections.abc import Sequence

from raft.core.errors import ConfigurationBusy, VotersSilent
from raft.core.quorum import quorum_size
from raft.core.server import Server
from raft.core.types import Configuration, NodeId


def check_removal(raft: Server, configuration: Configuration, *, after_ms: int = -1) -> None:
    """Leader: if `configuration` removes a voter, check that the voters that stay can go on without it.

    Args:
        after_ms: by this node's clock; a voter is alive if it answered a message that was sent later.

    Raises:
        ConfigurationBusy: that is not known yet.
        VotersSilent: they cannot; the text says which voters do not answer.
    """
    removed = set(raft.configuration.voters) - set(configuration.voters)
    if removed:
        _check_majority(raft, configuration.voters, f"without {', '.join(sorted(removed))}", after_ms)


def check_promotion(raft: Server, configuration: Configuration) -> None:
    """Leader: the same for a configuration that adds a voter. Raises as `check_removal`."""
    added = set(configuration.voters) - set(raft.configuration.voters)
    _check_majority(raft, configuration.voters, f"with {', '.join(sorted(added))}", -1)


def _check_majority(raft: Server, voters: Sequence[NodeId], change: str, after_ms: int) -> None:
    silent = [voter for voter in voters if _is_silent(raft, voter)]
    unknown = [voter for voter in voters if voter not in silent and not _is_alive(raft, voter, after_ms)]
    needed = quorum_size(len(voters))
    if len(voters) - len(silent) - len(unknown) >= needed:
        return
    if len(voters) - len(silent) >= needed:
        raise ConfigurationBusy("it is not known yet who of the voters answers; try again")
    raise VotersSilent(
        f"{change}, {needed} of the voters {', '.join(voters)} would have to answer, and "
        f"{', '.join(silent)} {'does' if len(silent) == 1 else 'do'} not: start {' or '.join(silent)}, or remove "
        f"{'that one' if len(silent) == 1 else 'one of them'} first"
    )


def _is_silent(raft: Server, voter: NodeId) -> bool:
    if voter == raft.id:
        return False
    progress = raft.progress.get(voter)
    return progress is None or raft.now_ms - progress.acked_sent_ms > raft.config.election_timeout_max_ms


def _is_alive(raft: Server, voter: NodeId, after_ms: int) -> bool:
    if voter == raft.id:
        return True
    progress = raft.progress[voter]
    return progress.acked_sequence > 0 and progress.acked_sent_ms > after_ms
