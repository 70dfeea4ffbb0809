"""Every limit of the queue service, in one place.

The rule: a limit that a machine enforces is a constant, the same on every node of the group, because nodes that
disagreed on one would apply the same entry differently. What an operator may tune for one queue is replicated
with `/queue/config` and bounded by these constants.
"""

#: Queues in the group. A queue comes into being with its first message and stays.
QUEUES_MAX = 10_000

#: Messages that one queue holds in all states together, its dead letters included.
MESSAGES_PER_QUEUE_MAX = 10_000_000

#: Payload bytes that one queue holds in all states together.
BYTES_PER_QUEUE_MAX = 1 << 30

#: Payload bytes that all queues hold together: the machine lives in memory.
BYTES_MAX = 4 << 30

#: Messages of one queue that may be with consumers at the same time.
IN_FLIGHT_PER_QUEUE_MAX = 100_000

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

#: Deadlines handled while one entry is applied (about 2 us each); the rest follow with the next entry.
DUE_PER_ENTRY_MAX = 2_000

#: Dead letters that one entry of a redrive moves; the route proposes again until all are done.
SWEEP_PER_ENTRY_MAX = 2_000

#: Messages in the answer of a peek.
PEEK_MAX = 100

#: Queues in one page of the list.
LIST_MAX = 1_000
