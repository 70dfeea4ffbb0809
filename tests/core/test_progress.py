"""One peer's progress alone: probe, replicate, snapshot, and what each answer does to it."""

from raft.core.progress import SEND_TIMES_MAX, Progress, ProgressState

ROOM = {"messages_max": 3, "bytes_max": 100}


def probing(next_index: int = 11) -> Progress:
    return Progress(next_index=next_index, now_ms=1_000)


def replicating(match_index: int = 10) -> Progress:
    progress = probing(match_index + 1)
    progress.on_match(match_index)
    assert progress.state is ProgressState.REPLICATE
    return progress


def test_a_new_peer_is_probed_from_the_end_of_the_log() -> None:
    """Paper 5.3: nextIndex begins just after the leader's last entry, matchIndex at 0."""
    progress = probing(11)

    assert progress.state is ProgressState.PROBE
    assert (progress.next_index, progress.match_index) == (11, 0)


def test_a_probe_pauses_until_it_is_answered() -> None:
    """One question at a time while it is unknown where the logs meet."""
    progress = probing()
    assert progress.may_send_entries(**ROOM)

    progress.on_entries_sent(1, 11, 5)

    assert not progress.may_send_entries(**ROOM)
    progress.resume_probe()
    assert progress.may_send_entries(**ROOM)


def test_a_probe_does_not_move_the_next_index() -> None:
    """It is a question; it may be lost."""
    progress = probing()

    progress.on_entries_sent(1, 15, 5)

    assert progress.next_index == 11


def test_the_answer_to_a_probe_opens_the_window() -> None:
    progress = probing()

    assert progress.on_match(10)

    assert progress.state is ProgressState.REPLICATE
    assert progress.may_send_entries(**ROOM)


def test_an_older_acknowledgement_does_not_answer_a_probe() -> None:
    """A heartbeat about index 0 proves nothing about index 10."""
    progress = probing()

    assert not progress.on_match(0)

    assert progress.state is ProgressState.PROBE


def test_the_window_is_bounded_by_messages() -> None:
    """known bug 36: a follower that does not answer is sent no more than this."""
    progress = replicating()

    for number in range(3):
        assert progress.may_send_entries(**ROOM)
        progress.on_entries_sent(number, 11 + number, 1)

    assert not progress.may_send_entries(**ROOM)
    assert progress.inflight_messages == 3


def test_the_window_is_bounded_by_bytes() -> None:
    """known bug 36."""
    progress = replicating()

    progress.on_entries_sent(1, 11, 100)

    assert not progress.may_send_entries(**ROOM)
    assert progress.inflight_bytes == 100


def test_an_acknowledgement_frees_everything_up_to_it() -> None:
    """Answers may be lost; the later one stands for the earlier."""
    progress = replicating()
    for number in range(3):
        progress.on_entries_sent(number, 11 + number, 10)

    progress.on_match(12)

    assert (progress.inflight_messages, progress.inflight_bytes) == (1, 10)
    assert (progress.match_index, progress.next_index) == (12, 14)


def test_a_stale_acknowledgement_moves_nothing_back() -> None:
    """known bug 28."""
    progress = replicating()
    progress.on_entries_sent(1, 11, 10)
    progress.on_match(11)

    assert not progress.on_match(10)

    assert (progress.match_index, progress.next_index) == (11, 12)


def test_a_refusal_while_replicating_starts_a_probe_at_the_last_proven_entry() -> None:
    """Something on the way was lost."""
    progress = replicating()
    progress.on_entries_sent(1, 12, 10)

    assert progress.on_refusal(12, 5)

    assert progress.state is ProgressState.PROBE
    assert progress.next_index == 11
    assert progress.inflight_messages == 0


def test_a_refusal_of_what_is_proven_is_stale() -> None:
    """known bug 29: a stale refusal must not rewind (openraft fbbf37b1, CCF#3723)."""
    progress = replicating()

    assert not progress.on_refusal(10, 3)
    assert not progress.on_refusal(4, 3)

    assert progress.state is ProgressState.REPLICATE
    assert progress.next_index == 11


def test_a_refusal_of_another_probe_than_the_last_is_stale() -> None:
    """known bug 29: it was sent before the probe that is out."""
    progress = probing(11)
    progress.on_refusal(10, 6)
    assert progress.next_index == 7
    progress.on_entries_sent(2, 7, 0)

    assert not progress.on_refusal(10, 2)

    assert progress.next_index == 7
    assert progress.probe_sent


def test_a_probe_goes_back_to_where_the_hint_says() -> None:
    """Paper 5.3: a whole conflicting term in one step."""
    progress = probing(1001)

    assert progress.on_refusal(1000, 400)

    assert progress.next_index == 401
    assert not progress.probe_sent


def test_a_probe_always_goes_back_and_never_below_what_is_proven() -> None:
    """Whatever a hint says, the search ends."""
    progress = probing(11)
    progress.on_refusal(10, 500)
    assert progress.next_index == 10

    progress.on_match(3)
    progress.on_refusal(9, 0)

    assert progress.next_index == 4


def test_a_peer_that_is_sent_a_snapshot_gets_no_entries() -> None:
    progress = probing()

    progress.become_snapshot(20)

    assert not progress.may_send_entries(**ROOM)
    assert not progress.on_refusal(15, 0)


def test_a_snapshot_ends_with_the_acknowledgement_of_its_last_index() -> None:
    """known bug 45: a later refusal, stale, must not push the peer back to it."""
    progress = probing()
    progress.become_snapshot(20)

    progress.on_match(20)

    assert progress.state is ProgressState.PROBE
    assert progress.next_index == 21
    assert not progress.on_refusal(10, 0)


def test_an_acknowledgement_below_the_snapshot_does_not_end_it() -> None:
    progress = probing()
    progress.become_snapshot(20)

    progress.on_match(15)

    assert progress.state is ProgressState.SNAPSHOT


def test_a_snapshot_that_failed_is_found_out_about_anew() -> None:
    progress = probing()
    progress.become_snapshot(20)

    progress.on_snapshot_failed()

    assert progress.state is ProgressState.PROBE
    assert progress.next_index == 1
    assert progress.may_send_entries(**ROOM)


def test_a_delivered_snapshot_is_asked_about_only_after_the_next_heartbeat() -> None:
    """known bug 44: the reply may take its time, and may be lost."""
    progress = probing()
    progress.become_snapshot(20)

    progress.on_snapshot_delivered()

    assert (progress.state, progress.next_index) == (ProgressState.PROBE, 21)
    assert not progress.may_send_entries(**ROOM)
    progress.resume_probe()
    assert progress.may_send_entries(**ROOM)


def test_reports_about_a_snapshot_that_is_not_under_way_change_nothing() -> None:
    """The peer may have been heard from meanwhile."""
    progress = replicating()

    progress.on_snapshot_failed()
    progress.on_snapshot_delivered()

    assert progress.state is ProgressState.REPLICATE


def test_contact_is_dated_from_the_request_and_not_from_its_answer() -> None:
    """known bug 69: what the answer proves is that the peer followed after the request was sent."""
    progress = probing()
    progress.on_sent(1, 1_100)
    progress.on_sent(2, 1_200)
    progress.on_sent(3, 1_300)

    progress.on_answer(2)

    assert (progress.acked_sequence, progress.acked_sent_ms) == (2, 1_200)


def test_an_older_answer_dates_nothing_back() -> None:
    """Reordered replies."""
    progress = probing()
    for sequence in (1, 2, 3):
        progress.on_sent(sequence, 1_000 + 100 * sequence)
    progress.on_answer(3)

    progress.on_answer(1)

    assert (progress.acked_sequence, progress.acked_sent_ms) == (3, 1_300)


def test_remembered_send_times_are_bounded() -> None:
    """A peer that never answers costs no memory; its late answer to something forgotten proves less."""
    progress = probing()
    for sequence in range(1, SEND_TIMES_MAX + 51):
        progress.on_sent(sequence, 1_000 + sequence)

    progress.on_answer(10)

    assert len(progress._send_times) <= SEND_TIMES_MAX
    assert progress.acked_sent_ms == 1_000


def test_a_lost_message_is_asked_about_once_in_a_pause() -> None:
    """Each answer that brings no news would otherwise lead to the next question."""
    progress = replicating()

    asked = [progress.take_loss_check(now_ms, 25) for now_ms in (1_000, 1_010, 1_024, 1_025, 1_049, 1_050)]

    assert asked == [True, False, False, True, False, True]
