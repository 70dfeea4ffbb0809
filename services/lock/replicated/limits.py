"""Every limit of the lock machine, in one place.

The rule of the file: what decides answers is the same on every node of the group. `LIMITS` are replicated (see
`services.replicated.limits`) and can be changed; a constant cannot.
"""

from services.lock.replicated.records import Hold, Waiter
from services.replicated.limits import Limit, text_bytes

#: Bytes that a hold with a ttl takes beside its texts: record, lock, expiry and their places in the tables. Measured.
HOLD_OVERHEAD_BYTES = 512
#: The same of a place in line, of each request in it, and of each that a hold still knows.
WAITER_OVERHEAD_BYTES = 640
LISTENER_OVERHEAD_BYTES = 240

LIMITS = (
    Limit(
        "holds_max", 1_000_000, 1, 100_000_000,
        "Holds at one time, shared ones counted each.",
    ),
    Limit(
        "holders_per_key_max", 10_000, 1, 1_000_000,
        "Shared holders of one key that are admitted without waiting.",
    ),
    Limit(
        "waiters_per_key_max", 10_000, 0, 1_000_000,
        "Owners in line for one key.",
    ),
    Limit(
        "waiters_max", 100_000, 0, 10_000_000,
        "Owners in all lines together.",
    ),
    Limit(
        "listeners_max", 16, 1, 1_000,
        "Requests of one owner that wait in one place.",
    ),
    Limit(
        "bytes_max", 512 << 20, 1 << 20, 1 << 40,
        "Bytes of holds and requests in line: names, 512 for a hold, 640 for a place, 240 for a request.",
    ),
)  # fmt: skip


def hold_bytes(hold: Hold) -> int:
    """What a hold counts for against `bytes_max`."""
    key, owner = hold.key, hold.owner
    if key.isascii() and owner.isascii():
        size = HOLD_OVERHEAD_BYTES + len(key) + len(owner)
    else:
        size = HOLD_OVERHEAD_BYTES + text_bytes(key) + text_bytes(owner)
    if hold.unheard:
        size += sum(LISTENER_OVERHEAD_BYTES + len(id) for id in hold.unheard)
    return size


def waiter_bytes(waiter: Waiter) -> int:
    """What a place in line counts for against `bytes_max`."""
    size = WAITER_OVERHEAD_BYTES + text_bytes(waiter.key) + text_bytes(waiter.owner)
    return size + sum(LISTENER_OVERHEAD_BYTES + len(listener.id) for listener in waiter.listeners)
