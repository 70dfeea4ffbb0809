"""How roles and messages are told in a trace: `index/term` for a place in the log, one line for each message.

a -> b pre-vote term 3, log ends 5/2          a -> b append term 2 after 5/2, commits 4: 6/2 7/2
b -> a pre-vote term 3: yes                   b -> a append term 2: holds 7
"""

from collections.abc import Callable
from typing import Any

from raft.core import messages as m
from raft.core.types import Role
from tests.core.replica import Replica

SERVICES = {
    Role.FOLLOWER: "follower",
    Role.PRE_CANDIDATE: "pre-candidate",
    Role.CANDIDATE: "candidate",
    Role.LEADER: "leader",
}


def tell_role(node: Replica) -> str:
    state = node.core.state
    of = f" of {state.leader}" if state.role is Role.FOLLOWER and state.leader else ""
    vote = f", vote {state.vote}" if state.vote else ""
    return f"{SERVICES[state.role]}{of}, term {state.term}{vote}"


def kind_of(message: m.Message) -> str:
    """The word by which commands choose messages: `vote`, `pre-vote-reply`, `append`, ..."""
    if isinstance(message, m.RequestVote | m.RequestVoteReply):
        kind = "pre-vote" if message.pre_vote else "vote"
        return kind + ("-reply" if isinstance(message, m.RequestVoteReply) else "")
    return _KINDS.get(type(message), type(message).__name__)


def tell_message(message: m.Message) -> str:
    tell = _TELL.get(type(message), repr)
    return f"{message.sender} -> {message.to} {tell(message)}"


def _vote(message: m.RequestVote) -> str:
    transfer = ", asked to by the leader" if message.transfer else ""
    ends = f"{message.last_log_index}/{message.last_log_term}"
    return f"{kind_of(message)} term {message.term}, log ends {ends}{transfer}"


def _vote_reply(message: m.RequestVoteReply) -> str:
    kind = "pre-vote" if message.pre_vote else "vote"
    return f"{kind} term {message.term}: {'yes' if message.granted else 'no'}"


def _append(message: m.AppendEntries) -> str:
    told = f"append term {message.term} after {message.prev_log_index}/{message.prev_log_term}"
    told += f", commits {message.leader_commit}"
    if message.entries:
        told += ": " + " ".join(f"{e.index}/{e.term}" for e in message.entries)
    return told


def _append_reply(message: m.AppendEntriesReply) -> str:
    if message.success:
        return f"append term {message.term}: holds {message.match_index}"
    hint = f"{message.hint_index}/{message.hint_term}"
    return f"append term {message.term}: refused after {message.rejected_index}, try {hint}"


def _snapshot(message: m.InstallSnapshot) -> str:
    return f"snapshot term {message.term} at {message.snapshot.index}/{message.snapshot.term}"


_KINDS: dict[type, str] = {
    m.AppendEntries: "append",
    m.AppendEntriesReply: "append-reply",
    m.InstallSnapshot: "snapshot",
    m.InstallSnapshotReply: "snapshot-reply",
    m.ReadIndex: "read",
    m.ReadIndexReply: "read-reply",
    m.TimeoutNow: "timeout-now",
}
_TELL: dict[type, Callable[[Any], str]] = {
    m.RequestVote: _vote,
    m.RequestVoteReply: _vote_reply,
    m.AppendEntries: _append,
    m.AppendEntriesReply: _append_reply,
    m.InstallSnapshot: _snapshot,
    m.InstallSnapshotReply: lambda reply: f"snapshot term {reply.term}: holds {reply.match_index}",
    m.ReadIndex: lambda read: f"read term {read.term}: question {read.sequence}",
    m.ReadIndexReply: lambda reply: f"read term {reply.term}: question {reply.sequence}, index {reply.index}",
    m.TimeoutNow: lambda message: f"timeout-now term {message.term}",
}
