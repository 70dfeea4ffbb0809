"""Clients that produce and consume, and write down what they were told; `queues_judged` holds it against itself.

Each client does all that one can do with a queue: it puts messages in, takes some, says that they are done or gives
them back, or forgets them. In the end a client empties all queues, so that what is missing is seen to be missing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from tests.shell.client import RETRY_S, Client, NotDone, Unknown
from tests.shell.queue_record import Delivery, Ending, Look, Peeked, Popped, Redrive, Sent, ToldAgain, Untold
from tests.shell.queues_judged import judge

if TYPE_CHECKING:
    from tests.shell.run import Run

VISIBILITIES_S = (0.3, 0.8, 1.5, 3.0)
WAITS_S = (0.0, 0.0, 0.0, 0.3, 1.0, 3.0)
MAXIMA = (1, 1, 1, 2, 5, 20)
DELAYS_S = (0.0,) * 8 + (0.2, 1.0)
PRIORITIES = (0, 0, 0, 5, 9)
TTLS_S = (None,) * 10 + (0.4, 2.0)
MAX_DELIVERIES = (None, None, 2, 4)
#: Beside the pause of the plan, which may be next to none: the queues grow long otherwise, and runs too.
PAUSE_S = 0.1
#: A consumer with so many deliveries takes no more.
HELD_MAX = 6
#: Now and then a message or a batch is so large.
PAD_BYTES = (60_000, 200_000)
BATCH = 50
#: How often an answer is asked for again later, and not at once.
AGAIN_LATER = 0.5
#: How the client takes that empties the queues.
DRAIN_MAX, DRAIN_VISIBILITY_S, DRAIN_TURNS_MAX = 50, 3.0, 100
#: Used only once all is mended (`tests.shell.queue_trials`).
WAKE, LEFT = "wake", "left"
#: Odd values that must come back as they were.
ODD = (None, 0.5, -0.0, "ü\u2028\U0001f600", [], {"a": [1, None]}, True)


@dataclass(slots=True)
class Asked:
    """One request and what came of it."""

    asked_us: int
    told_us: int = 0
    #: None: the client was not told.
    told: dict[str, Any] | None = None
    #: It was certainly not done.
    not_done: bool = False
    #: A try went before whose outcome nobody knows.
    unclear: bool = False
    #: When the try was sent that was answered.
    tried_us: int = 0


class QueueClient(Client):
    """Producer and consumer in one."""

    def __init__(self, run: Run, name: str, node: str = "") -> None:
        super().__init__(run, name)
        self.record = run.queues
        #: By receipt, oldest first.
        self.held: dict[int, Delivery] = {}
        #: The one node that it asks; empty: any.
        self.node = node
        #: Keys of requests that may have been done unheard.
        self._unclear: set[str] = set()
        #: When the first try was sent that may have been done, by key; None: of the last request without one.
        self._asked_us: dict[str | None, int] = {}
        self._count = 0
        self._must_configure = not any(isinstance(each, QueueClient) for each in run.clients)

    def any_node(self) -> str:
        return self.node or super().any_node()

    async def is_served(self) -> bool:
        """Whether its node takes it in: one that came up with few descriptors goes on with few connections."""
        try:
            await self.ask_get("/queue/stats")
        except (NotDone, Unknown):
            return False
        return True

    async def act(self) -> None:
        random = self.random
        await asyncio.sleep(random.random() * PAUSE_S)
        if self._must_configure:
            await self._configure_all()
        queue = f"queue{random.randrange(self.run.plan.key_count)}"
        if self.held and (len(self.held) >= HELD_MAX or random.random() < 0.4):
            await self._go_on()
        elif random.random() < 0.45:
            await self._put(queue)
        elif random.random() < 0.7:
            await self.take(queue, random.choice(MAXIMA), random.choice(WAITS_S), random.choice(VISIBILITIES_S))
        elif random.random() < 0.5:
            await self._pop(queue, random.choice(WAITS_S))
        elif random.random() < 0.3:
            await self.redrive(queue)
        else:
            await self._look(queue)

    # Asking

    async def request(
        self, path: str, body: dict[str, Any], *, wait_s: float = 0.0, keyed: bool | None = None
    ) -> Asked:
        """Ask until there is an answer, as `settle` does; what became of it is in the result."""
        key = self.new_key() if keyed or (keyed is None and self.random.random() < 0.6) else None
        asked = Asked(self.now_us)
        try:
            told = await self.settle(path, body, wait_s=wait_s, key=key)
        except NotDone:
            asked.not_done = True
            await asyncio.sleep(self.random.uniform(*RETRY_S))
        except Unknown:
            await asyncio.sleep(self.random.uniform(*RETRY_S))
        else:
            asked.told, asked.told_us, asked.unclear = told, self.now_us, key in self._unclear
            asked.asked_us, asked.tried_us = self._asked_us[key], self.tries[-1].asked_us
            if told.get("reason") == "idempotency_key_reused":
                self.run.fail(f"{self.name}: key {key} of {path} was taken for another request's")
        return asked

    async def ask(
        self, path: str, body: dict[str, Any], *, wait_s: float = 0.0, key: str | None = None
    ) -> dict[str, Any]:
        if key not in self._unclear:
            # What was certainly not done does not count.
            self._asked_us[key] = self.now_us
        try:
            return await super().ask(path, body, wait_s=wait_s, key=key)
        except Unknown:
            if key is not None:
                self._unclear.add(key)
            raise

    def check_repeated(self, path: str, body: dict[str, Any], key: str, answer: dict[str, Any]) -> None:
        # A consumer that waited in vain has no answer that could be kept: it would take something now.
        if not answer["ok"] and "wait" in body:
            return
        if path == "/queue/deq":
            self.process.start(self._take_again(path, body, key, answer), f"{self.name} again")
        else:
            super().check_repeated(path, body, key, answer)

    async def _take_again(self, path: str, body: dict[str, Any], key: str, answer: dict[str, Any]) -> None:
        """Now or somewhat later: what stands of it by then is told."""
        if self.random.random() < AGAIN_LATER:
            await asyncio.sleep(self.random.random() * VISIBILITIES_S[-1])
        asked_us = self.now_us
        try:
            again = await self.ask(path, body, key=key)
        except (NotDone, Unknown):
            return
        self.on_repeated(path, answer, again)
        for each in _messages_of(again):
            self.record.told_again.append(ToldAgain(each["msg_id"], int(each["receipt"]), asked_us))

    def on_repeated(self, path: str, answer: dict[str, Any], again: dict[str, Any]) -> None:
        is_same = answer["ok"] == again["ok"]
        if path == "/queue/deq":
            first = {each["receipt"]: each for each in _messages_of(answer)}
            is_same = all(first.get(each["receipt"]) == each for each in _messages_of(again))
        elif is_same:
            beside = ("replayed", "detail")
            is_same = all(answer.get(name) == again[name] for name in again if name not in beside)
        if not is_same or not again.get("replayed"):
            self.run.fail(f"{self.name}: one key of {path} was told {str(answer)[:200]} and {str(again)[:200]}")

    # Putting in

    async def _put(self, queue: str) -> None:
        random = self.random
        count = 1
        if random.random() < 0.15:
            count = BATCH if random.random() < 0.05 else random.randint(2, 6)
        rows = [self._new_message(queue) for _ in range(count)]
        sent = [each for each, _ in rows]
        bodies = [body for _, body in rows]
        if count > 1:
            path, body = "/queue/enq_batch", {"queue": queue, "messages": bodies}
        else:
            path = "/queue/push" if "payload" in bodies[0] else "/queue/enq"
            body = {"queue": queue, **bodies[0]}
        await self.put(sent, path, body)

    async def put(self, sent: list[Sent], path: str, body: dict[str, Any]) -> Asked:
        """Ask for these messages to be put in."""
        for each in sent:
            self.record.sent[each.name] = each
        asked = await self.request(path, body)
        for each in sent:
            each.asked_us, each.not_done = asked.asked_us, asked.not_done
        if asked.told is not None:
            ids = asked.told.get("msg_ids") or [asked.told.get("msg_id")]
            if not asked.told["ok"] or len(ids) != len(sent):
                self.run.fail(f"{self.name} was told {asked.told} for {len(sent)} messages")
                return asked
            for each, msg_id in zip(sent, ids, strict=True):
                each.told_us, each.msg_id = asked.told_us, msg_id
            self.world.count("queue: put in")
        return asked

    async def put_one(self, queue: str, delay_s: float) -> None:
        """Put in one message that is nothing special but for its delay."""
        self._count += 1
        name = f"{self.name}-{self._count}"
        sent = Sent(name, queue, {"n": name}, 0, delay_s, None, self.now_us)
        await self.put([sent], "/queue/push", {"queue": queue, "payload": sent.payload, "delay": delay_s})

    def _new_message(self, queue: str) -> tuple[Sent, dict[str, Any]]:
        """A message of a new name, and what a request says for it."""
        random = self.random
        self._count += 1
        name = f"{self.name}-{self._count}"
        value: dict[str, Any] = {"n": name}
        if random.random() < 0.005:
            value["pad"] = "x" * random.choice(PAD_BYTES)
        elif random.random() < 0.2:
            value["odd"] = random.choice(ODD)
        payload: Any = value
        body: dict[str, Any] = {"payload": value}
        if random.random() < 0.5:
            key = random.choice((None, "a", "ü"))
            payload, body = {"key": key, "value": value}, {"value": value}
            if key is not None:
                body["key"] = key
        priority, delay_s, ttl_s = random.choice(PRIORITIES), random.choice(DELAYS_S), random.choice(TTLS_S)
        sent = Sent(name, queue, payload, priority, delay_s, ttl_s, self.now_us)
        for field, said in (("priority", sent.priority), ("delay", sent.delay_s), ("ttl", sent.ttl_s)):
            if said:
                body[field] = said
        return sent, body

    # Taking out

    async def take(
        self, queue: str, maximum: int, wait_s: float, visibility_s: float, keyed: bool | None = None
    ) -> list[Delivery]:
        """Take up to `maximum` messages."""
        body: dict[str, Any] = {"queue": queue, "visibility": visibility_s}
        if maximum > 1:
            body["max"] = maximum
        if wait_s:
            body["wait"] = wait_s
        asked = await self.request("/queue/deq", body, wait_s=wait_s, keyed=keyed)
        self._note_untold("deq", queue, asked, wait_s)
        if asked.told is None:
            return []
        messages = _messages_of(asked.told)
        if not messages and "replayed" not in asked.told:
            self.record.looks.append(Look(queue, asked.asked_us, asked.told_us))
            self.world.count("queue: empty")
        taken = []
        for each in messages:
            name = self._name_of(queue, each["msg_id"], each["payload"])
            delivery = Delivery(
                name, each["msg_id"], queue, int(each["receipt"]), each["delivery"], visibility_s,
                asked.asked_us, asked.told_us,
            )  # fmt: skip
            taken.append(delivery)
            self.held[delivery.receipt] = delivery
            self.world.count("queue: delivered" if delivery.number == 1 else "queue: delivered again")
            if asked.unclear:
                self.record.told_again.append(ToldAgain(delivery.msg_id, delivery.receipt, asked.tried_us))
        self.record.deliveries.extend(taken)
        self._check_answer(taken, maximum)
        return taken

    def _check_answer(self, taken: list[Delivery], maximum: int) -> None:
        priorities = [self.record.sent[each.name].priority for each in taken if each.name]
        if len(taken) > maximum or priorities != sorted(priorities, reverse=True):
            self.run.fail(f"{self.name} asked for {maximum} and was told {taken}, of priorities {priorities}")

    async def _pop(self, queue: str, wait_s: float) -> None:
        body: dict[str, Any] = {"queue": queue}
        if wait_s:
            body["wait"] = wait_s
        asked = await self.request("/queue/pop", body, wait_s=wait_s)
        self._note_untold("pop", queue, asked, wait_s)
        told = asked.told
        if told is None:
            return
        if not told["ok"]:
            if "replayed" not in told:
                self.record.looks.append(Look(queue, asked.asked_us, asked.told_us))
            return
        name = self._name_of(queue, told["msg_id"], told["item"])
        self.record.pops.append(
            Popped(name, told["msg_id"], queue, told["delivery"], asked.asked_us, asked.told_us)
        )
        self.world.count("queue: popped")

    def _note_untold(self, kind: str, queue: str, asked: Asked, wait_s: float) -> None:
        is_untold = asked.told is None and not asked.not_done
        if asked.told is not None and asked.unclear and wait_s and not asked.told["ok"]:
            # That it waited in vain is not kept under its key: an earlier try may take something yet.
            is_untold = True
        if is_untold:
            self.record.untold.append(Untold(kind, queue, asked.asked_us))

    def _name_of(self, queue: str, msg_id: str, payload: Any) -> str:
        """The name of a message that somebody was given; empty where nobody put it in."""
        value = payload.get("value", payload) if isinstance(payload, dict) else {}
        sent = self.record.sent.get(value.get("n", ""))
        if sent is None or sent.queue != queue or sent.payload != payload:
            self.run.fail(f"{self.name} was given message {msg_id} of {queue}, {str(payload)[:200]}: not put in")
            return ""
        return sent.name

    # Ending deliveries

    async def _go_on(self) -> None:
        """Do something about the oldest delivery, or about all of them."""
        random = self.random
        delivery = next(iter(self.held.values()))
        if self.has("forgets"):
            del self.held[delivery.receipt]
            return
        if self.has("overstays"):
            await asyncio.sleep(random.random() * 3)
        chance = random.random()
        if chance < 0.15:
            await self._extend(delivery)
        elif chance < 0.35:
            await self.end("nack", delivery)
        elif chance < 0.42:
            await self.end("reject", delivery)
        elif len(self.held) > 1 and random.random() < 0.6:
            await self.ack_all(list(self.held.values()))
        else:
            await self.end("ack", delivery)
            if random.random() < 0.05:
                await self.end("ack", delivery)

    async def end(self, kind: str, delivery: Delivery) -> None:
        self.held.pop(delivery.receipt, None)
        body: dict[str, Any] = {"msg_id": delivery.msg_id, "receipt": str(delivery.receipt)}
        if kind == "nack":
            delay_s = self.random.choice((0.0, 0.0, 0.3, 1.0))
            if delay_s and delivery.queue != WAKE:
                body["delay"] = delay_s
        asked = await self.request(f"/queue/{kind}", body)
        self._ended(kind, delivery, asked, asked.told, delay_s=body.get("delay", 0.0))

    async def _extend(self, delivery: Delivery) -> None:
        visibility_s = self.random.choice(VISIBILITIES_S)
        body = {"msg_id": delivery.msg_id, "receipt": str(delivery.receipt), "visibility": visibility_s}
        asked = await self.request("/queue/extend", body)
        self._ended("extend", delivery, asked, asked.told, visibility_s=visibility_s)
        if asked.told is None or not asked.told["ok"]:
            self.held.pop(delivery.receipt, None)

    async def ack_all(self, deliveries: list[Delivery]) -> bool:
        """Acknowledge these in one request; True where they all were."""
        for each in deliveries:
            self.held.pop(each.receipt, None)
        messages = [{"msg_id": each.msg_id, "receipt": str(each.receipt)} for each in deliveries]
        path = self.random.choice(("/queue/ack", "/queue/ack_batch"))
        asked = await self.request(path, {"messages": messages})
        results: list[dict[str, Any] | None] = [None] * len(deliveries)
        if asked.told is not None:
            results = asked.told["results"]
        for each, result in zip(deliveries, results, strict=True):
            self._ended("ack", each, asked, result)
        return asked.told is not None and asked.told["ok"]

    def _ended(
        self, kind: str, delivery: Delivery, asked: Asked, result: dict[str, Any] | None, **said: float
    ) -> None:
        if asked.not_done:
            return
        ending = Ending(kind, delivery.msg_id, delivery.receipt, asked.asked_us, **said)
        self.record.endings.append(ending)
        if result is not None:
            ending.told_us, ending.ok, ending.state = asked.told_us, result["ok"], result.get("state", "")
            self.world.count(f"queue: {kind} {'ok' if ending.ok else result['reason']}")

    # Running a queue

    async def _configure_all(self) -> None:
        """Some queues have dead letters."""
        self._must_configure = False
        chance = Random(f"{self.run.plan.seed} queues")
        for number in range(self.run.plan.key_count):
            maximum = chance.choice(MAX_DELIVERIES)
            if maximum is None:
                continue
            queue = f"queue{number}"
            asked = await self.request("/queue/config", {"queue": queue, "max_deliveries": maximum})
            if asked.told is not None:
                self.record.configured[queue] = (asked.told_us, maximum)

    async def redrive(self, queue: str) -> bool:
        """Put dead letters back."""
        # Written down before: messages may come back long before it is told.
        redrive = Redrive(queue, self.now_us)
        self.record.redrives.append(redrive)
        asked = await self.request("/queue/redrive", {"queue": queue}, keyed=True)
        if asked.told is None:
            return False
        redrive.told_us = asked.told_us
        if asked.told["moved"]:
            self.world.count("queue: redriven")
        return True

    async def _look(self, queue: str) -> None:
        asked_us = self.now_us
        if self.random.random() < 0.5:
            await self.ask_get(f"/queue/stats?queue={queue}")
            return
        state = self.random.choice(("ready", "in_flight", "delayed", "dead"))
        told = await self.ask_get(f"/queue/peek?queue={queue}&state={state}")
        for each in told["messages"]:
            name = self._name_of(queue, each["msg_id"], each["payload"])
            self.record.peeked.append(Peeked(name, each["msg_id"], asked_us))


def _messages_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The deliveries that a deq was told."""
    if "messages" in answer:
        messages: list[dict[str, Any]] = answer["messages"]
        return messages
    if not answer["ok"]:
        return []
    fields = ("msg_id", "payload", "receipt", "delivery", "queue")
    return [{name: answer[name] for name in fields}]


# At the end


def check_queues(run: Run) -> None:
    """Whether what all clients were told can be true at once."""
    complaint = judge(run.queues)
    if complaint:
        run.fail(complaint)


async def queues_are_empty(client: QueueClient) -> bool:
    """Take out all that is there, dead letters too; whether nothing is left in any state."""
    record = client.record
    names = [f"queue{number}" for number in range(client.run.plan.key_count)]
    for queue in names:
        if not await client.redrive(queue):
            return False
        for _ in range(DRAIN_TURNS_MAX):
            taken = await client.take(queue, DRAIN_MAX, 0.0, DRAIN_VISIBILITY_S, keyed=False)
            if not taken:
                break
            if not await client.ack_all(taken):
                return False
    for queue in names:
        try:
            record.stats[queue] = await client.ask_get(f"/queue/stats?queue={queue}")
        except (NotDone, Unknown):
            return False
    record.is_drained = not any(
        stats[state] for stats in record.stats.values() for state in ("ready", "in_flight", "delayed", "dead")
    )
    return record.is_drained
