"""Every limit of the queue service, in one place.

The rule: what a machine enforces is the same on every node of the group, because nodes that disagreed on it would
apply the same entry differently. `LIMITS` are replicated and can be changed (see `services.replicated.limits`),
what an operator may tune for one queue is replicated with `/queue/config`, and the rest are constants.
"""

from services.replicated.limits import Limit

# Limits of the group

#: Bytes that a message takes beside its payload: record, deadline, and its places in the tables. Measured: 174 for a
#: ready one, 294 for one with a delay and a time to live.
MESSAGE_OVERHEAD_BYTES = 300

LIMITS = (
    Limit(
        "queues_max", 10_000, 1, 100_000,
        "Queues; one that is empty, unconfigured and unused for a day is forgotten.",
    ),
    Limit(
        "bytes_max", 1 << 30, 1 << 20, 1 << 40,
        "Bytes of all messages: payloads, and 300 for each message.",
    ),
    Limit(
        "dead_bytes_max", 128 << 20, 0, 1 << 40,
        "Of these, bytes of all dead letters, and half of `bytes_max` at most; beyond it the oldest go.",
    ),
    Limit(
        "in_flight_per_queue_max", 100_000, 1, 10_000_000,
        "Messages of one queue that are with consumers at one time.",
    ),
)  # fmt: skip

#: `max_messages` and `max_bytes` of a queue unless configured otherwise; frozen, as the defaults of `LIMITS` are.
MESSAGES_DEFAULT = 10_000_000
BYTES_DEFAULT = 1 << 30

#: Highest numbers of messages and bytes that can be configured; `bytes_max` of the group holds besides.
MESSAGES_PER_QUEUE_MAX = 1_000_000_000
BYTES_PER_QUEUE_MAX = 1 << 40

#: Messages in one batch request, and deliveries in one answer.
BATCH_MAX = 1_000

#: Payload bytes after which an answer takes up no further delivery; the first always fits.
DELIVERY_BYTES_MAX = 4 << 20

#: Highest priority; 0 is the lowest and the default.
PRIORITY_MAX = 9

#: How long a delivered message is hidden unless the consumer or the queue's configuration says otherwise.
VISIBILITY_MS_DEFAULT = 30_000

#: Longest visibility: what is not done in 12 hours is extended on the way.
VISIBILITY_MS_MAX = 12 * 3_600_000

#: Longest `delay`, `ttl` and configured `message_ttl`.
DELAY_MS_MAX = 366 * 86_400_000

#: Longest `wait` of one request.
WAIT_MS_MAX = 3_600_000

#: Deliveries after which a message that comes back goes to the dead letters instead. 20 is the limit that
#: RabbitMQ's quorum queues have by default: enough for consumers that crash and restart, low enough that a
#: message which kills every consumer does not stand at the front for ever. 0 means no limit.
DELIVERIES_MAX_DEFAULT = 20

#: Highest `max_deliveries` that can be configured.
DELIVERIES_MAX_MAX = 1_000_000

#: Dead letters that a queue keeps unless configured otherwise, and their bytes: the oldest make room.
DEAD_MAX_DEFAULT = 100_000
DEAD_BYTES_MAX_DEFAULT = 64 << 20

#: How long after it was put in a message may still be a dead letter; 14 days, which is as long as SQS keeps any.
DEAD_TTL_MS_DEFAULT = 14 * 86_400_000

#: A queue that is empty, unconfigured and unused for so long is forgotten, with the first entry of an hour.
IDLE_MS = 86_400_000
FORGET_EVERY_MS = 3_600_000

#: Deadlines handled while one entry is applied (about 2 us each); the rest follow with the next entry.
DUE_PER_ENTRY_MAX = 2_000

#: Messages that one entry of a redrive, purge or delete moves or drops; the route proposes again until all are done.
SWEEP_PER_ENTRY_MAX = 2_000

#: Messages of whatever queue that one entry of a purge or delete looks at.
LOOKED_AT_PER_ENTRY_MAX = 20_000

#: Messages in the answer of a peek.
PEEK_MAX = 100

#: Queues in one page of the list.
LIST_MAX = 1_000
