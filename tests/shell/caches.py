"""Clients of the cache, and what must be once all is mended.

A client uses keys of four kinds:

    key       plain ones: written, swapped, removed, filled under leases, and read most of the time
    tagged    the same, and removed by one of two tags: all values of one carry both
    count     counted up by one, and never removed
    ttl       written with a time to live

What it is told goes into `run.caches` and is judged in the end (`tests.shell.cache_judge`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.shell.cache_record import Deed, Kind, Lease
from tests.shell.client import PATIENCE_S, Client, NotDone, Unknown
from tests.shell.watchers import Watcher

if TYPE_CHECKING:
    from tests.shell.run import Run

LEASE_TTLS_S = (0.3, 0.8, 2.0)
WAITS_S = (0.0, 0.3, 1.0, 3.0)
TTLS_S = (0.2, 0.5, 1.5)
#: How often which of it is done.
ACTS = {"read": 10, "read_on": 15, "around": 12, "write": 14, "swap": 8, "remove": 6, "guard": 14, "count": 6,
        "many": 6, "expiring": 5, "invalidate": 3}  # fmt: skip
#: Of the keys that are used as plain ones, which kind.
PLAIN = ("key", "key", "tagged")
#: How often a request that changes something may be sent again.
KEYED = 0.7
#: Of a run, the first client brings so many watchers.
WATCHERS = (1, 1, 2)
#: The names that only the probe uses; it holds leases for so long, and reads so many keys at once.
LAST, LEASE_S, KEYS_AT_ONCE = "last", 2.0, 100
#: Reads in a row, and the pause between two, at most.
ON, ON_PAUSE_S = (2, 8), 0.03
#: While it changes something a client looks around so often at most, and waits so long for each node.
LOOKS_MAX, LOOK_S = 20, 0.2
#: Before each thing that is done, at most: one is many requests.
PAUSE_S = 0.3
#: How often a client asks the node that it is at home at: that holds lines, and may be cut off with them.
AT_HOME = 0.6


class CacheClient(Client):
    """One client. It does one thing at a time, and believes what it read last of each key."""

    def __init__(self, run: Run, name: str) -> None:
        super().__init__(run, name)
        #: By key: version and value that it was told last.
        self._seen: dict[str, tuple[int, str | int | None]] = {}
        self._values = 0
        self._home = super().any_node()
        #: Where it asks at present; empty: anywhere.
        self._at = ""

    def any_node(self) -> str:
        if self._at:
            return self._at
        return self._home if self.random.random() < AT_HOME else super().any_node()

    def stay_at(self, node: str) -> None:
        """Ask this node alone."""
        self._at = node

    def start(self) -> None:
        super().start()
        if not self.run.caches.watches:
            for number in range(self.random.choice(WATCHERS)):
                Watcher(self.run, f"watcher{number}").start()

    async def act(self) -> None:
        await asyncio.sleep(self.random.random() * PAUSE_S)
        (what,) = self.random.choices(tuple(ACTS), tuple(ACTS.values()))
        await getattr(self, "_" + what)()

    def _plain_key(self) -> str:
        return self._key(self.random.choice(PLAIN))

    def _key(self, kind: str) -> str:
        return self.run.caches.key(f"{kind}{self.random.randrange(self.run.plan.key_count)}")

    def new_value(self) -> str:
        self._values += 1
        return f"{self.name}-{self._values}"

    # What is written down

    def _begin(self, kind: Kind, key: str, value: str | int | None = None, **more: Any) -> Deed:
        deed = Deed(self.name, kind, key, self.now_us, value, **more)
        self.run.caches.deeds.append(deed)
        return deed

    async def change(self, path: str, body: dict[str, Any], *deeds: Deed) -> dict[str, Any]:
        """Ask for a change, which is these deeds.

        Raises:
            NotDone, Unknown.
        """
        key = self.new_key() if self.random.random() < KEYED else None
        try:
            told = await self.settle(path, body, key=key)
        except NotDone:
            for deed in deeds:
                deed.fate = "not done"
            raise
        for deed in deeds:
            deed.told_us = self.now_us
            deed.fate = "done" if told["ok"] else "refused"
            deed.version = told.get("version", 0)
            if deed.fate == "refused":
                self._seen.pop(deed.key, None)
            elif deed.writes or deed.kind == "swap":
                self._seen[deed.key] = deed.version, deed.value
            else:
                deed.found = told.get("deleted")
                self._seen[deed.key] = 0, None
        self.world.count(f"cache: {deeds[0].kind} {deeds[0].fate}")
        return told

    def _on_read(self, key: str, asked_us: int, told: dict[str, Any]) -> None:
        """A read's answer, in either vocabulary, or one of many."""
        found = told.get("value", told)
        is_hit = "version" in found
        value = (found["val"] if "val" in found else found["value"]) if is_hit else None
        version = found["version"] if is_hit else 0
        is_stale = told.get("stale", False)
        deed = Deed(self.name, "read", key, asked_us, value, fate="done", told_us=self.now_us, version=version)
        deed.is_stale = is_stale
        self.run.caches.deeds.append(deed)
        if not is_stale:
            self._seen[key] = version, value
        source = "stale" if is_stale else told.get("source", "") or ("found" if is_hit else "nothing")
        self.world.count(f"cache: read {source}")

    # Reading

    async def _read(self) -> None:
        await self.read_key(self.random.choice((self._plain_key, self._plain_key, lambda: self._key("count")))())

    async def _read_on(self) -> None:
        """One key several times, so that the line is held in many places."""
        key = self._plain_key()
        for _ in range(self.random.randint(*ON)):
            await self.read_key(key)
            await asyncio.sleep(self.random.random() * ON_PAUSE_S)

    async def _around(self) -> None:
        """Change what every node holds, and look all the while whether one still does."""
        key = self._plain_key()
        await self._look_around(key)
        changes = (self._write, self._remove, self._swap, self._invalidate)
        change = self.random.choices(changes, (2, 2, 1, 1))[0]
        changing = asyncio.create_task(change(key), name=f"{self.name} changes")
        for _ in range(LOOKS_MAX):
            await self._look_around(key)
            if changing.done():
                break
        await changing
        await self._look_around(key)

    async def _look_around(self, key: str) -> None:
        """Read it at each node that answers soon."""
        nodes = list(self.world.nodes)
        self.random.shuffle(nodes)
        for node in nodes:
            self._at = node
            try:
                async with asyncio.timeout(LOOK_S):
                    await self.read_key(key)
            except (NotDone, Unknown, TimeoutError):
                self.world.count("cache: a node did not answer soon")
            finally:
                self._at = ""

    async def read_key(self, key: str) -> None:
        asked_us, random = self.now_us, self.random
        if random.random() < 0.3:
            told = await self.ask_get(f"/cache/read?key={quote(key)}")
        else:
            body: dict[str, Any] = {"key": key}
            if random.random() < 0.1:
                body["stale_ok"] = True
            told = await self.ask("/cache/get", body)
        self._on_read(key, asked_us, told)

    # Changing

    async def change_line(self, kind: str, key: str, ttl_s: float | None = None) -> None:
        """Change this key in one of these ways: write, swap, remove, invalidate.

        Raises:
            NotDone, Unknown.
        """
        if ttl_s is None:
            await getattr(self, f"_{kind}")(key)
        else:
            await self._write_for(key, ttl_s)

    async def _write(self, key: str = "") -> None:
        key, value = key or self._plain_key(), self.new_value()
        body = {"key": key, "val": value, "tags": tags_of(key)}
        await self.change(self.random.choice(("/cache/put", "/cache/write")), body, self._begin("write", key, value))

    async def _write_for(self, key: str, ttl_s: float) -> None:
        """Write what goes by itself."""
        value = self.new_value()
        deed = self._begin("write", key, value, ttl_s=ttl_s)
        await self.change("/cache/put", {"key": key, "val": value, "ttl": ttl_s}, deed)

    async def _swap(self, key: str = "") -> None:
        """Put a value over the version that was seen last, or where nothing was; or remove just that version."""
        key = key or self._plain_key()
        version, expects = self._seen.get(key, (0, None))
        if version and self.random.random() < 0.2:
            deed = self._begin("swap", key, None, expects=expects)
            await self.change("/cache/delete", {"key": key, "if_version": version}, deed)
            return
        value = self.new_value()
        body = {"key": key, "val": value, "if_version": version, "tags": tags_of(key)}
        await self.change("/cache/put", body, self._begin("swap", key, value, expects=expects))

    async def _remove(self, key: str = "") -> None:
        key = key or self._plain_key()
        await self.change("/cache/delete", {"key": key}, self._begin("remove", key))

    async def _invalidate(self, key: str = "") -> None:
        """Remove what carries one of the tags: one key, or all of that generation."""
        key = key if key.startswith("tagged") else self._key("tagged")
        tag, generation = self.random.choice(tags_of(key)), key.rpartition(".")[2]
        # Also those that nobody uses yet: somebody may by the time that it is done.
        keys = [f"tagged{number}.{generation}" for number in range(self.run.plan.key_count)]
        keys = [each for each in keys if tag in tags_of(each)]
        await self.change("/cache/invalidate", {"tag": tag}, *(self._begin("remove", each) for each in keys))

    async def _count(self) -> None:
        key = self._key("count")
        deed = self._begin("incr", key)
        told = await self.change("/cache/incr", {"key": key}, deed)
        deed.value = told["value"]

    async def _expiring(self) -> None:
        key = self._key("ttl")
        if self.random.random() < 0.5:
            await self.read_key(key)
            return
        await self._write_for(key, self.random.choice(TTLS_S))

    async def _many(self) -> None:
        keys = list(dict.fromkeys((self._plain_key(), self._plain_key(), self._key("ttl"), self._plain_key())))
        if self.random.random() < 0.6:
            asked_us = self.now_us
            told = await self.ask("/cache/mget", {"keys": keys})
            for item in told["items"]:
                self._on_read(item["key"], asked_us, item)
            return
        items = [{"key": key, "val": self.new_value(), "tags": tags_of(key), "ttl": ttl_of(key)} for key in keys]
        deeds = [self._begin("write", item["key"], item["val"], ttl_s=item["ttl"]) for item in items]
        await self.change("/cache/mput", {"items": items}, *deeds)

    # Leases

    async def _guard(self) -> None:
        """A read that takes the lease to fill what is absent, or waits for whoever has it. Many want the same."""
        random = self.random
        key = self.run.caches.key(random.choice(("key0", "tagged0")))
        if random.random() < 0.4:
            await self._remove(key)
        ttl_s, wait_s = random.choice(LEASE_TTLS_S), random.choice(WAITS_S)
        body: dict[str, Any] = {"key": key, "lease_ttl": ttl_s}
        if wait_s:
            body["wait"] = wait_s
        claim = self.new_key() if random.random() < KEYED else None
        asked_us = self.now_us
        told = await self.settle("/cache/get", body, wait_s=wait_s, key=claim)
        self._on_read(key, asked_us, told)
        if "filling" in told:
            self.world.count("cache: somebody else fills")
        if "lease" in told:
            self.world.count("cache: lease")
            await self._fill(self._on_lease(key, asked_us, ttl_s, told, claim), ttl_s)

    def _on_lease(
        self, key: str, asked_us: int, ttl_s: float, told: dict[str, Any], claim: str | None
    ) -> Lease:
        """Without a claim it may be one that another caller of that node has asked for, and left."""
        left_s = told["lease_expires_in_s"]
        if left_s < 0 or (claim and left_s > ttl_s):
            self.run.fail(f"a lease of {ttl_s} s on {key} ends in {left_s} s")
        lease = Lease(key, self.name, told["lease"], asked_us, self.now_us, ttl_s if claim else left_s, bool(claim))
        self.run.caches.leases.append(lease)
        return lease

    async def _fill(self, lease: Lease, ttl_s: float) -> None:
        random, key = self.random, lease.key
        if self.has("forgets"):
            return
        if self.has("overstays"):
            await asyncio.sleep(ttl_s * random.uniform(0.7, 2.0))
        else:
            await asyncio.sleep(random.random() * 0.1)
        if random.random() < 0.15:
            body: dict[str, Any] = {"key": key, "lease": lease.token}
            await self.change("/cache/delete", body, self._begin("remove", key, lease=lease.token))
            return
        value = self.new_value()
        body = {"key": key, "val": value, "lease": lease.token, "tags": tags_of(key)}
        await self.change("/cache/put", body, self._begin("fill", key, value, lease=lease.token))

    # Asking again

    def check_repeated(self, path: str, body: dict[str, Any], key: str, answer: dict[str, Any]) -> None:
        if path == "/cache/get":
            self.process.start(self._guard_again(body, key, answer), f"{self.name} again")
        else:
            super().check_repeated(path, body, key, answer)

    async def _guard_again(self, body: dict[str, Any], claim: str, answer: dict[str, Any]) -> None:
        """The same lease, as long as that runs. Where its telling is lost, the lease stays with who had it before."""
        asked_us = self.now_us
        try:
            told = await self.ask("/cache/get", body, wait_s=body.get("wait", 0.0), key=claim)
        except (NotDone, Unknown):
            return
        self._on_read(body["key"], asked_us, told)
        if "lease" in told:
            # It was taken by the first request, which was asked before.
            self._on_lease(body["key"], asked_us, body["lease_ttl"], told, None)
            self.world.count("cache: lease told again" if told["lease"] == answer.get("lease") else "cache: lease")

    def on_repeated(self, path: str, answer: dict[str, Any], again: dict[str, Any]) -> None:
        if {**answer, "replayed": True} != {**again, "replayed": True}:
            self.run.fail(f"one key was told two answers by {path}: {answer} and {again}")


def tags_of(key: str) -> list[str]:
    """One of its own, and one that all have in common that have gone through as many names."""
    if not key.startswith("tagged"):
        return []
    return [f"own-{key}", f"all-{key.rpartition('.')[2]}"]


def ttl_of(key: str) -> float | None:
    """Where nobody says otherwise."""
    return min(TTLS_S) if key.startswith("ttl") else None


class CacheProbe(CacheClient):
    """Asks one node after the other, once all is mended."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, "probe")
        self._left = list(self.world.nodes)

    async def is_clear(self) -> bool:
        """Whether every node answers for every key, what was to go has gone, and all watchers know of all."""
        try:
            while self._left:
                self._at = self._left[-1]
                await self._use_all()
                self._left.pop()
            self._at = ""
            return await self._all_know() and not await self._lines("ttl")
        except (NotDone, Unknown):
            return False

    async def _use_all(self) -> None:
        """Read everything, and write, remove and fill some of it."""
        keys = self.run.caches.keys("")
        asked_us = self.now_us
        for start in range(0, len(keys), KEYS_AT_ONCE):
            told = await self.ask("/cache/mget", {"keys": keys[start : start + KEYS_AT_ONCE]})
            for item in told["items"]:
                self._on_read(item["key"], asked_us, item)
        for key in (f"key0.{LAST}", f"tagged0.{LAST}"):
            await self.change("/cache/delete", {"key": key}, self._begin("remove", key))
            asked_us = self.now_us
            told = await self.ask("/cache/get", {"key": key, "lease_ttl": LEASE_S}, wait_s=PATIENCE_S)
            self._on_read(key, asked_us, told)
            if "lease" not in told:
                self.run.fail(f"{self._at}: nobody uses {key}, and its lease was not given: {told}")
                return
            await self._fill(self._on_lease(key, asked_us, LEASE_S, told, None), LEASE_S)

    async def _all_know(self) -> bool:
        """Whether all watchers are told of what there is."""
        for watch in self.run.caches.watches:
            lines = await self._lines(watch.prefix)
            if not watch.is_current or any(lines.get(key, 0) != version for key, version in watch.last.items()):
                return False
        return True

    async def _lines(self, prefix: str) -> dict[str, int]:
        """Versions by key."""
        told = await self.ask_get(f"/cache/lines?prefix={prefix}&limit=1000")
        assert told["next"] is None
        return {row["key"]: row["version"] for row in told["lines"]}
