"""Bugs of queues: deliveries, their ends, their order, and consumers that wait."""

from tests.shell.planted import Planted

_MACHINE = "services.queue.replicated.machine:QueueMachine"
_STORE = "services.queue.replicated.store:QueueStore"
_CONSUMING = "services.queue.node.consuming"
_WAITING = "services.queue.node.waiting"

_IS_CURRENT = "if receipt is None or receipt == str(message.receipt):"
_STANDS = 'if message is not None and _not_current(message, delivery["receipt"]) is None:'
_BURY = "            self.bury(queue, message_id, message)\n"
_RETURNED = """\
        self.move(queue, message_id, message, message.moved(READY, 0, message.receipt, deliveries))
        self.tell_ready(context, queue, 1)
        return "ready"
"""
_DELAY_ENDED = """\
            self.move(queue, message_id, message, message.moved(READY, 0, message.receipt, message.deliveries))
            self.tell_ready(context, queue, 1)
"""

PLANTED = [
    Planted(
        "delivery_to_nobody_stays_out",
        "a message that reached no consumer is hidden until its visibility ends",
        "queue",
        ((f"{_CONSUMING}:_ask", "    call.take_back = partial(given_back.add, result)\n", ""),),
    ),
    Planted(
        "delivery_decided_for_nobody_stays_out",
        "a message that is delivered after its consumer has gone is hidden until its visibility ends",
        "queue",
        ((f"{_CONSUMING}:GiveBacks.on_answer_for_nobody", "self.add(asking.result())", "asking.result()"),),
    ),
    Planted(
        "delivery_to_nobody_counts",
        "a message becomes a dead letter by deliveries that reached nobody",
        "queue",
        ((f"{_MACHINE}._give_back", "unseen=True", "unseen=False"),),
    ),
    Planted(
        "ended_delivery_can_be_acknowledged",
        "a consumer whose time is over takes the message from the next one",
        "queue",
        (("services.queue.replicated.machine:_not_current", _IS_CURRENT, "if True:"),),
    ),
    Planted(
        "ended_delivery_is_told_again",
        "a request that is sent again is given a message that is another consumer's",
        "queue",
        ((f"{_MACHINE}.repeat", _STANDS, "if message is not None:"),),
    ),
    Planted(
        "extended_visibility_stays",
        "a message is given to another although its consumer asked for more time",
        "queue",
        ((f"{_MACHINE}._extend", "context.time_ms + visibility_ms,", "message.due_ms,"),),
    ),
    Planted(
        "restored_queue_knows_no_deadlines",
        "what was delivered or delayed when a snapshot was taken never comes back",
        "queue",
        (
            (
                f"{_STORE}.reinstate",
                "message_id, message)",
                "message_id, message)\n        self.calendar = type(self.calendar)()",
            ),
        ),
    ),
    Planted(
        "nack_forgets_its_delay",
        "a message that was given back for later comes at once",
        "queue",
        ((f"{_MACHINE}._nack", "command.delay_ms, command.unseen", "0, command.unseen"),),
    ),
    Planted(
        "delay_ends_early",
        "a delayed message is delivered before its time",
        "queue",
        ((f"{_STORE}.add", "now_ms + delay_ms if delay_ms else 0", "now_ms + delay_ms // 2 if delay_ms else 0"),),
    ),
    Planted(
        "returned_message_goes_to_the_end",
        "a message that came back is overtaken by later ones",
        "queue",
        (
            ("services.queue.replicated.state:Queue.enter", "if message.receipt:", "if False:"),
            ("services.queue.replicated.state:Lane.note_removed", "if not message.receipt:", "if True:"),
        ),
    ),
    Planted(
        "dead_letter_is_lost",
        "a message that was delivered too often is gone",
        "queue",
        ((f"{_STORE}.give_back", _BURY, _BURY.replace("self.bury(", "self.drop(")),),
    ),
    Planted(
        "end_of_a_visibility_is_no_delivery",
        "a message whose consumers die is delivered for ever",
        "queue",
        ((f"{_STORE}.on_due", "message_id, message, 0, False)", "message_id, message, 0, True)"),),
    ),
    Planted(
        "expired_message_is_not_counted",
        "the counters do not add up",
        "queue",
        ((f"{_STORE}.give_back", "            queue.counters.expired += 1\n", ""),),
    ),
    Planted(
        "key_is_known_at_one_node",
        "a message is put in twice by a repeat at another node",
        "queue",
        (
            (
                "services.operations.call:Call.replicate_at",
                "        key = self.idempotency_key\n",
                "        key = f\"{self.idempotency_key} {self.host.node_id}\"\n",
            ),
        ),
    ),
    Planted(
        "end_of_a_visibility_wakes_nobody",
        "a consumer sleeps on although a message came back",
        "queue",
        ((f"{_STORE}.give_back", _RETURNED, _RETURNED.replace("        self.tell_ready(context, queue, 1)\n", "")),),
    ),
    Planted(
        "end_of_a_delay_wakes_nobody",
        "a consumer sleeps on although a delayed message became ready",
        "queue",
        (
            (
                f"{_STORE}.on_due",
                _DELAY_ENDED,
                _DELAY_ENDED.replace("            self.tell_ready(context, queue, 1)\n", ""),
            ),
        ),
    ),
    Planted(
        "end_of_a_pause_wakes_nobody",
        "consumers sleep on although their queue is delivered from again",
        "queue",
        ((f"{_MACHINE}._configure", "if was_paused and queue.ready:", "if False:"),),
    ),
    Planted(
        "wake_up_goes_with_its_consumer",
        "a message is ready, and the next consumer in line sleeps on",
        "queue",
        ((f"{_WAITING}:ConsumerLine.leave", "if was_awake:", "if False:"),),
    ),
    Planted(
        "stop_wakes_no_consumer",
        "a node that stops leaves its waiting consumers without an answer",
        "queue",
        ((f"{_WAITING}:WaitingRoom._on_closed", "for line in self._lines.values():", "for line in ():"),),
    ),
]
