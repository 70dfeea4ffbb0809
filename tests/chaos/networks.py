"""One network namespace for each node, joined by a bridge, so that the way between two nodes can really be cut.

Needs root and iproute2's `ip`. A cut is a route that loses what is sent to the peer, on both sides. Nothing is
refused or reset, as when a cable is pulled. Clients are outside of the namespaces and reach every node.
"""

import os
import shutil
import subprocess


class NoNamespaces(RuntimeError):
    """Network namespaces cannot be made here; the text says why."""


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNamespaces(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Networks:
    """`count` namespaces with an address each. Use as a context."""

    def __init__(self, count: int) -> None:
        tag = f"{os.getpid() % 10_000:04d}"
        self._subnet = f"10.{77 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self._bridge = f"mfk{tag}"
        self.names = tuple(f"mfk{tag}n{number}" for number in range(1, count + 1))
        self.hosts = tuple(f"{self._subnet}.{number}" for number in range(1, count + 1))
        self._cut: set[tuple[int, int]] = set()

    def __enter__(self) -> "Networks":
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise NoNamespaces("network namespaces need root and the command `ip` of iproute2")
        try:
            # The bridge has a namespace too: in that of the machine a firewall (Docker's) may judge what crosses it.
            _ip("netns", "add", self._bridge)
            _ip("-n", self._bridge, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._bridge, "link", "set", "bridge", "up")
            self._join("outside", f"{self._bridge}v", "1")
            _ip("addr", "add", f"{self._subnet}.254/24", "dev", f"{self._bridge}v")
            _ip("link", "set", f"{self._bridge}v", "up")
            for name, host in zip(self.names, self.hosts, strict=True):
                _ip("netns", "add", name)
                self._join(f"{name}v", "eth0", name)
                _ip("-n", name, "addr", "add", f"{host}/24", "dev", "eth0")
                _ip("-n", name, "link", "set", "eth0", "up")
                _ip("-n", name, "link", "set", "lo", "up")
        except NoNamespaces:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (*self.names, self._bridge):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def _join(self, port: str, end: str, namespace: str) -> None:
        """A cable from the bridge's `port` to the interface `end` in `namespace` (1 is the machine's own)."""
        _ip("-n", self._bridge, "link", "add", port, "type", "veth", "peer", "name", end, "netns", namespace)
        _ip("-n", self._bridge, "link", "set", port, "master", "bridge", "up")

    @property
    def prefixes(self) -> tuple[tuple[str, ...], ...]:
        """What a command begins with to run in each namespace."""
        return tuple(("ip", "netns", "exec", name) for name in self.names)

    def isolate(self, number: int) -> None:
        """Lose everything between this node and the others."""
        for other in range(len(self.names)):
            if other != number:
                self._block(number, other)
                self._block(other, number)

    def heal(self) -> None:
        for sender, to in sorted(self._cut):
            _ip("-n", self.names[sender], "route", "del", "blackhole", f"{self.hosts[to]}/32")
        self._cut.clear()

    def _block(self, sender: int, to: int) -> None:
        if (sender, to) not in self._cut:
            _ip("-n", self.names[sender], "route", "add", "blackhole", f"{self.hosts[to]}/32")
            self._cut.add((sender, to))
