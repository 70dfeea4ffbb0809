"""A dumb queue to check the real one against: one flat list of dicts, searched from end to end every time.

It says the same things as `QueueMachine` in the plainest way there is: no heap, no index, no lazy deletion.
"""

from typing import Any

from services.queue.replicated import commands


class TwinQueues:
    """The meaning of the commands, spelled out."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.next_id = 1
        self.next_receipt = 1
        self.became_ready = 0
        self.max_deliveries = 20
        #: Queues that exist, and what was configured.
        self.settings: dict[str, dict[str, int]] = {}

    def advance(self, now_ms: int) -> None:
        """What falls due happens in order of (when, id)."""
        while self._do_next_due(now_ms):
            pass
        for queue in self.settings:
            while (old := self._too_old_or_too_many(now_ms, queue)) is not None:
                self.messages.remove(old)

    def _do_next_due(self, now_ms: int) -> bool:
        due = [(when, m["id"], m) for m in self.messages if (when := self._deadline(m)) and when <= now_ms]
        if not due:
            return False
        _, _, message = min(due, key=lambda entry: entry[:2])
        if message["state"] == "in_flight":
            self._give_back(now_ms, message)
        elif message["state"] == "delayed" and message["due"] <= now_ms and not self._is_expired(now_ms, message):
            self._make_ready(message)
        else:
            self.messages.remove(message)
        return True

    def _too_old_or_too_many(self, now_ms: int, queue: str) -> dict[str, Any] | None:
        """The next that its queue drops: the oldest dead letter, or what is at the head of an order and too old."""
        settings = self.settings[queue]
        dead = [m for m in self.messages if m["queue"] == queue and m["state"] == "dead"]
        dead.sort(key=lambda m: m["id"])
        size = sum(300 + len(m["payload"]) for m in dead)
        if dead and (
            self._is_expired(now_ms, dead[0]) or len(dead) > settings["max_dead"] or size > settings["max_dead_bytes"]
        ):
            return dead[0]
        heads: dict[tuple[int, bool], dict[str, Any]] = {}
        for message in self._ready(queue):
            heads.setdefault((message["priority"], message["receipt"] == 0), message)
        return next((head for head in heads.values() if self._is_expired(now_ms, head)), None)

    def apply(self, now_ms: int, command: Any) -> dict[str, Any]:
        self.advance(now_ms)
        return getattr(self, "on_" + command.OP)(now_ms, command)

    def on_enq(self, now_ms: int, command: commands.Enqueue) -> dict[str, Any]:
        self._queue(command.queue)
        message = {
            "enqueued": now_ms,
            "id": self.next_id,
            "queue": command.queue,
            "payload": command.payload,
            "priority": command.priority,
            "expires": now_ms + command.ttl_ms if command.ttl_ms else 0,
            "state": "delayed",
            "due": now_ms + command.delay_ms,
            "receipt": 0,
            "deliveries": 0,
            "place": 0,
        }
        self.next_id += 1
        self.messages.append(message)
        if not command.delay_ms:
            self._make_ready(message)
        return {"ok": True, "msg_id": str(message["id"])}

    def on_deq(self, now_ms: int, command: commands.Dequeue) -> dict[str, Any]:
        out = []
        while len(out) < command.max and (message := self._next_ready(now_ms, command.queue)):
            message.update(
                state="in_flight",
                due=now_ms + (command.visibility_ms or 30_000),
                receipt=self.next_receipt,
                deliveries=message["deliveries"] + 1,
            )
            self.next_receipt += 1
            out.append(
                {
                    "msg_id": str(message["id"]),
                    "payload": message["payload"],
                    "receipt": str(message["receipt"]),
                    "delivery": message["deliveries"],
                    "queue": message["queue"],
                }
            )
        return {"messages": out}

    def on_pop(self, now_ms: int, command: commands.Pop) -> dict[str, Any]:
        message = self._next_ready(now_ms, command.queue)
        if message is None:
            return {"ok": False, "reason": "empty"}
        self.messages.remove(message)
        return {
            "ok": True,
            "item": message["payload"],
            "msg_id": str(message["id"]),
            "delivery": message["deliveries"] + 1,
            "queue": message["queue"],
        }

    def on_ack(self, now_ms: int, command: commands.Ack) -> dict[str, Any]:
        message, refusal = self._current(command)
        if refusal:
            return refusal
        self.messages.remove(message)
        return {"ok": True}

    def on_nack(self, now_ms: int, command: commands.Nack) -> dict[str, Any]:
        message, refusal = self._current(command)
        if refusal:
            return refusal
        message["deliveries"] -= command.unseen
        return {"ok": True, "state": self._give_back(now_ms, message, command.delay_ms)}

    def on_extend(self, now_ms: int, command: commands.Extend) -> dict[str, Any]:
        message, refusal = self._current(command)
        if refusal:
            return refusal
        message["due"] = now_ms + command.visibility_ms
        return {"ok": True, "expires_in_s": command.visibility_ms / 1000}

    def on_reject(self, now_ms: int, command: commands.Reject) -> dict[str, Any]:
        message, refusal = self._current(command)
        if refusal:
            return refusal
        message["state"] = "dead"
        return {"ok": True}

    def on_config(self, now_ms: int, command: commands.Configure) -> dict[str, Any]:
        settings = self._queue(command.queue)
        for name, before in settings.items():
            changed = getattr(command, name)
            settings[name] = before if changed is None else changed
        return {"ok": True}

    def on_purge(self, now_ms: int, command: commands.Purge) -> dict[str, Any]:
        names = [("ready", "delayed", "in_flight", "dead")[state] for state in command.states]
        gone = [m for m in self.messages if m["queue"] == command.queue and m["state"] in names]
        self.messages = [m for m in self.messages if m not in gone]
        return {"ok": True, "purged": len(gone), "more": False, "before_id": self.next_id}

    def on_delete(self, now_ms: int, command: commands.Delete) -> dict[str, Any]:
        in_flight = len(self.ids(command.queue, "in_flight"))
        if in_flight and not command.force:
            return {"ok": False, "reason": "in_flight", "in_flight": in_flight}
        purged = self.on_purge(now_ms, commands.Purge(command.queue, (0, 1, 2, 3)))
        return {"deleted": self.settings.pop(command.queue, None) is not None, **purged}

    def on_redrive(self, now_ms: int, command: commands.Redrive) -> dict[str, Any]:
        dead = [m for m in self.messages if m["queue"] == command.queue and m["state"] == "dead"]
        for message in sorted(dead, key=lambda m: m["id"]):
            ttl_ms = self.settings[command.queue]["message_ttl_ms"]
            message.update(receipt=0, deliveries=0, expires=now_ms + ttl_ms if ttl_ms else 0)
            self._make_ready(message)
        return {"ok": True, "moved": len(dead), "more": False, "before_id": self.next_id}

    def ids(self, queue: str, state: str) -> list[int]:
        """In order of delivery for ready messages, else by id."""
        if state == "ready":
            return [m["id"] for m in self._ready(queue)]
        return sorted(m["id"] for m in self.messages if m["queue"] == queue and m["state"] == state)

    def _queue(self, name: str) -> dict[str, int]:
        plain = {"message_ttl_ms": 0, "max_dead": 100_000, "max_dead_bytes": 64 << 20, "dead_ttl_ms": 14 * 86_400_000}
        return self.settings.setdefault(name, plain)

    def _next_ready(self, now_ms: int, queue: str) -> dict[str, Any] | None:
        for message in self._ready(queue):
            if not self._is_expired(now_ms, message):
                return message
            self.messages.remove(message)
        return None

    def _ready(self, queue: str) -> list[dict[str, Any]]:
        ready = [m for m in self.messages if m["queue"] == queue and m["state"] == "ready"]
        return sorted(
            ready,
            key=lambda m: (-m["priority"], m["receipt"] == 0, m["id"] if m["receipt"] else m["place"]),
        )

    def _make_ready(self, message: dict[str, Any]) -> None:
        self.became_ready += 1
        message.update(state="ready", place=self.became_ready)

    def _give_back(self, now_ms: int, message: dict[str, Any], delay_ms: int = 0) -> str:
        if self._is_expired(now_ms, message):
            self.messages.remove(message)
            return "expired"
        if message["deliveries"] >= self.max_deliveries:
            message["state"] = "dead"
        elif delay_ms:
            message.update(state="delayed", due=now_ms + delay_ms)
        else:
            self._make_ready(message)
        return message["state"]

    def _current(self, command: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
        found = [m for m in self.messages if m["id"] == command.msg_id]
        message = found[0] if found else {"state": "gone", "receipt": 0}
        if message["state"] == "in_flight" and command.receipt in (None, str(message["receipt"])):
            return message, None
        stale = message["state"] == "in_flight" or (message["receipt"] and command.receipt is not None)
        return message, {"ok": False, "reason": "stale_receipt" if stale else "not_in_flight"}

    def _is_expired(self, now_ms: int, message: dict[str, Any]) -> bool:
        settings = self.settings[message["queue"]]
        if message["state"] != "dead" and message["expires"]:
            return message["expires"] <= now_ms
        ttl_ms = settings["dead_ttl_ms"] if message["state"] == "dead" else settings["message_ttl_ms"]
        return ttl_ms > 0 and message["enqueued"] + ttl_ms <= now_ms

    @staticmethod
    def _deadline(message: dict[str, Any]) -> int:
        if message["state"] == "in_flight":
            return message["due"]
        if message["state"] == "ready":
            return message["expires"]
        if message["state"] == "delayed":
            return min(message["due"], message["expires"] or message["due"])
        return 0
