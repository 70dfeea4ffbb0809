"""Leader election: paper 5.2, 5.4.1; PreVote, thesis 9.6; CheckQuorum, thesis 6.2; transfer, thesis 3.10.

A node that hears from a leader grants nobody a vote, pre-vote or real, so that a node which was away cannot depose a
working leader. A node no longer hears a leader when the election timeout's lower bound has passed without a message,
or at once when the connection from the leader breaks (`peer_lost`). In the second case its pre-vote starts after a
small random delay. Its retries do the same, with a delay that doubles up to the election timeout. Safety depends on
terms and votes alone.
"""

from raft.core.messages import RequestVote, RequestVoteReply, TimeoutNow
from raft.core.quorum import VoteResult, quorum_value, vote_result
from raft.core.server import Server
from raft.core.types import NOBODY, NodeId, Role

#: The fast delay doubles this often at most before the ordinary election timeout applies.
FAST_RETRIES_MAX = 6


def reset_deadline(raft: Server) -> None:
    """A fresh random election timeout from now; shorter while the leader is known to be gone."""
    config, election = raft.config, raft.election
    if election.leader_lost and election.fast_attempts < FAST_RETRIES_MAX:
        bound = min(
            config.fast_election_delay_max_ms << election.fast_attempts, config.election_timeout_max_ms
        )
        election.fast_attempts += 1
        election.deadline_ms = raft.now_ms + raft.random.randint(1, max(1, bound))
        return
    election.deadline_ms = raft.now_ms + _random_timeout_ms(raft)


def _random_timeout_ms(raft: Server) -> int:
    return raft.random.randint(raft.config.election_timeout_min_ms, raft.config.election_timeout_max_ms)


def postpone_after_lost_pre_vote(raft: Server) -> None:
    """Peers still heard the leader, or have longer logs: ask again soon. Their timeouts may run out one heartbeat
    after ours, and to wait a whole timeout for that would double the failover time."""
    if raft.election.leader_lost:
        reset_deadline(raft)
        return
    heartbeat_ms = raft.config.heartbeat_ms
    raft.election.deadline_ms = raft.now_ms + raft.random.randint(heartbeat_ms, 3 * heartbeat_ms)


def on_leader_heard(raft: Server) -> None:
    """A message of the current term's leader arrived."""
    raft.election.leader_contact_ms = raft.now_ms
    raft.election.leader_lost = False
    raft.election.fast_attempts = 0
    reset_deadline(raft)


def on_peer_lost(raft: Server, peer: NodeId) -> None:
    """The connection from `peer` broke or was refused. If that is not so, the cost is one refused pre-vote."""
    if raft.state.role is Role.FOLLOWER and peer == raft.state.leader and not raft.election.leader_lost:
        raft.election.leader_lost = True
        raft.election.fast_attempts = 0
        if raft.may_campaign:
            reset_deadline(raft)


def hears_leader(raft: Server) -> bool:
    """Whether this node believes that there is a leader (thesis 4.2.3). While it does, it helps nobody to depose that
    leader."""
    if not raft.config.check_quorum:
        return False
    if raft.state.role is Role.LEADER:
        return raft.now_ms - quorum_contact_ms(raft) < raft.config.election_timeout_min_ms
    return (
        raft.state.leader != NOBODY
        and not raft.election.leader_lost
        and raft.now_ms - raft.election.leader_contact_ms < raft.config.election_timeout_min_ms
    )


def quorum_contact_ms(raft: Server) -> int:
    """Leader: the send time of its newest round that a quorum has acknowledged (the design's Q)."""
    contacts = {peer: progress.acked_sent_ms for peer, progress in raft.progress.items()}
    contacts[raft.id] = raft.now_ms
    return quorum_value(contacts, raft.configuration.voters)


def maybe_start(raft: Server) -> bool:
    """The election timeout passed: start a pre-vote, or a vote where PreVote is off."""
    if not raft.may_campaign:
        reset_deadline(raft)
        return False
    if raft.config.pre_vote:
        _start_pre_vote(raft)
    else:
        campaign(raft, transfer=False)
    return True


def _start_pre_vote(raft: Server) -> None:
    raft.state.become_pre_candidate()
    reset_deadline(raft)
    raft.election.votes = {raft.id: True}
    _request_votes(raft, term=raft.state.term + 1, pre_vote=True, transfer=False)
    _maybe_conclude(raft)


def campaign(raft: Server, *, transfer: bool) -> None:
    """Paper 5.2. The node's own vote counts once it is durable, and no request leaves before."""
    raft.leases.on_new_term()
    raft.state.become_candidate()
    # Not the short delay of a lost leader: a vote needs the disks of a quorum, and to give up a round that is about
    # to be won costs more than to wait.
    raft.election.deadline_ms = raft.now_ms + _random_timeout_ms(raft)
    raft.election.votes = {}
    _request_votes(raft, term=raft.state.term, pre_vote=False, transfer=transfer)


def _request_votes(raft: Server, *, term: int, pre_vote: bool, transfer: bool) -> None:
    sequence = raft.election.round_sequence = raft.next_sequence()
    for peer in raft.configuration.voters:
        if peer != raft.id:
            raft.send(
                RequestVote(
                    sender=raft.id,
                    to=peer,
                    term=term,
                    sequence=sequence,
                    last_log_index=raft.log.last_index,
                    last_log_term=raft.log.last_term,
                    pre_vote=pre_vote,
                    transfer=transfer,
                )
            )


def on_hard_state_durable(raft: Server) -> None:
    """A candidate's vote for itself reached the disk."""
    if raft.state.role is Role.CANDIDATE and raft.durable_hard_state == raft.state.hard_state:
        raft.election.votes[raft.id] = True
        _maybe_conclude(raft)


def on_request_vote(raft: Server, message: RequestVote) -> None:
    """Receiver's rules of RequestVote (Figure 2), after the promise to a leader that this node hears."""
    if message.term < raft.state.term or (hears_leader(raft) and not message.transfer):
        _reply(raft, message, granted=False)
        return
    if message.pre_vote:
        granted = message.term > raft.state.term and raft.log.is_up_to_date(
            message.last_log_index, message.last_log_term
        )
        # Granting a pre-vote touches no timer and no leader (hashicorp/raft 42d3446).
        _reply(raft, message, granted=granted)
        return
    if message.term > raft.state.term:
        raft.become_follower(message.term, NOBODY)
    state = raft.state
    granted = (
        state.role in (Role.FOLLOWER, Role.PRE_CANDIDATE)
        and (state.vote == message.sender or (state.vote == NOBODY and state.leader == NOBODY))
        and raft.log.is_up_to_date(message.last_log_index, message.last_log_term)
    )
    if granted:
        if state.role is Role.PRE_CANDIDATE:
            raft.become_follower(state.term, NOBODY)
        state.grant_vote(message.sender)
        # Paper 5.2: a follower that grants a vote waits a whole timeout for the winner.
        raft.election.leader_lost = False
        raft.election.fast_attempts = 0
        reset_deadline(raft)
    _reply(raft, message, granted=granted)


def _reply(raft: Server, request: RequestVote, *, granted: bool) -> None:
    raft.send(
        RequestVoteReply(
            sender=raft.id,
            to=request.sender,
            term=request.term if granted else raft.state.term,
            sequence=request.sequence,
            granted=granted,
            pre_vote=request.pre_vote,
        )
    )


def on_request_vote_reply(raft: Server, message: RequestVoteReply) -> None:
    """Count a reply of the running round. The caller has adopted a higher term in a refusal before."""
    expected = Role.PRE_CANDIDATE if message.pre_vote else Role.CANDIDATE
    if raft.state.role is not expected or message.sequence != raft.election.round_sequence:
        return
    raft.election.votes.setdefault(message.sender, message.granted)
    _maybe_conclude(raft)


def _maybe_conclude(raft: Server) -> bool:
    result = vote_result(raft.election.votes, raft.configuration.voters)
    if result is VoteResult.PENDING:
        return False
    if result is VoteResult.LOST:
        raft.become_follower(raft.state.term, NOBODY)
    elif raft.state.role is Role.PRE_CANDIDATE:
        campaign(raft, transfer=False)
    else:
        raft.become_leader()
    return True


def on_timeout_now(raft: Server, message: TimeoutNow) -> None:
    """The leader chose this node: campaign at once, without PreVote (thesis 3.10)."""
    if raft.state.role is Role.FOLLOWER and message.sender == raft.state.leader and raft.may_campaign:
        campaign(raft, transfer=True)


def check_leadership(raft: Server) -> bool:
    """Leader: step down without a quorum (CheckQuorum) or with a disk that hangs (etcd#3068,
    hashicorp/raft#503). True where it still leads."""
    limit_ms = raft.config.election_timeout_max_ms
    lost_quorum = raft.config.check_quorum and raft.now_ms - quorum_contact_ms(raft) > limit_ms
    disk_hangs = raft.oldest_persist_ms is not None and raft.now_ms - raft.oldest_persist_ms > limit_ms
    if lost_quorum or disk_hangs:
        raft.become_follower(raft.state.term, NOBODY)
        return False
    return True
