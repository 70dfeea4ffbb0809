"""What must occur in a campaign: every fault, every manner of a client, and rare situations, by the names under which
they are counted. A campaign that is long enough fails where one of them never did."""

from collections import Counter

from tests.shell.plan import FAULT_WEIGHTS, MANNERS

#: A campaign of so many seeds shows all of it.
SEEDS_FOR_COVERAGE = 2_000
FAULTS: tuple[str, ...] = (
    *(f"fault: {kind}" for kind in FAULT_WEIGHTS),
    "fault: a connection broke in silence",
    "fault: a piece arrived in two",
    "fault: a quiet connection broke in silence",
    "fault: bytes lost and sent again",
    "fault: disk full",
    "fault: disk hangs",
    "fault: slow disk",
    "fault: sync failed",
    "fault: unsynced name kept",
    "fault: unsynced name lost",
    "fault: unsynced sector kept",
    "fault: unsynced sector lost",
    "fault: unsynced sector torn",
)
SITUATIONS: tuple[str, ...] = (
    *(f"client {manner}" for manner in MANNERS),
    "a patient client had no answer",
    "a wait for cache was answered",
    "a wait for queue was answered",
    "cache: a retry kept its lease",
    "cache: a watcher reads late",
    "cache: a watcher's stream broke",
    "cache: left without a lease",
    "cache: lease told again",
    "cache: read stale",
    "cache: swap refused",
    "cache: told gap history",
    "cache: told gap slow",
    "cache: told gap snapshot",
    "cache: waited for a value",
    "deadlock told",
    "disk lost",
    "lock that nobody gives back",
    "log: connections are turned away",
    "log: cut a torn last write",
    "log: no snapshot was taken",
    "log: not withdrawn before this node left",
    "log: peer refuses the stream",
    "log: snapshot installed",
    "log: snapshot transfer failed",
    "log: stopping after a fatal error",
    "log: takes no part",
    "log: the disk is full: this node refuses writes",
    "log: the group has no leader, for longer than an election should take",
    "log: the log has a new version",
    "member added",
    "member removed",
    "no descriptor to accept with",
    "node ended by itself",
    "queue: ack stale_receipt",
    "queue: all woken",
    "queue: delivered again",
    "queue: left before the answer",
    "queue: redriven",
    "queue: the next in line woke",
    "told 413 of a body of one byte too much",
    "told 429 overloaded",
    "told 503 no_leader",
    "told 503 no_quorum",
    "told 503 stopping",
    "told 503 storage_failed",
    "told 504 outcome_unknown",
    "told membership_refused",
)


def missing(cover: Counter[str]) -> list[str]:
    """What never occurred."""
    return [name for name in (*FAULTS, *SITUATIONS) if not cover[name]]
