"""Every limit of the cache that its replicas share.

The rule of the file: `LIMITS` are replicated (see `services.replicated.limits`): the log decides what is evicted,
so all nodes must reckon with the same numbers. How much of the lines a node answers from memory is its own affair
(`held.py`).
"""

from services.replicated.limits import Limit

#: Bytes that a line takes beside its texts and its value: record, deadline, and its places in the tables. Measured.
LINE_OVERHEAD_BYTES = 350
#: The same for each tag of a line, and for each different tag that lines carry.
LINE_TAG_OVERHEAD_BYTES = 64
TAG_OVERHEAD_BYTES = 640

LIMITS = (
    Limit(
        "lines_max", 1_000_000, 1, 100_000_000,
        "Lines; one more evicts the least recently written or filled.",
    ),
    Limit(
        "bytes_max", 256 << 20, 1 << 20, 1 << 40,
        "Bytes of lines: keys, values and tags, 350 for each line, 64 for each tag on it, 640 for each tag.",
    ),
    Limit(
        "fill_leases_max", 100_000, 0, 10_000_000,
        "Leases to fill an absent key that run at one time.",
    ),
)  # fmt: skip
