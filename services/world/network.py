"""The network of the world: hosts, and the links between them.

    Host      a computer: its address, its listeners, how many descriptors a process on it may have
    Link      one direction between two hosts: how long it takes, how often it loses, whether it carries anything

The ends of a connection are `services.world.sockets`. The rules of a stream hold whatever a link does. What a link
loses is sent again later, and what follows waits behind it. A link that is cut is silence, not an error: a connection
over it ends when somebody gives up (TCP_USER_TIMEOUT, keepalive probes, the application), and goes on when the link
does. A process that dies ends its connections; a computer without power says nothing, and refuses what comes for its
earlier life.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial
from random import Random

from services.world.loop import Process, WorldLoop
from services.world.sockets import RESEND_US_MAX, RESEND_US_MIN, Socket, os_error

#: Open sockets that a process may have where nobody took some away.
DESCRIPTORS_MAX = 1 << 20
#: A connection that nobody answers is asked for again after these pauses.
CONNECT_RESEND_US = (1_000_000, 2_000_000, 4_000_000, 8_000_000)


class Link:
    """One direction between two hosts."""

    __slots__ = ("delay_us", "is_cut", "loss_permille", "split_permille")

    def __init__(self) -> None:
        #: Least and most.
        self.delay_us = (100, 500)
        self.loss_permille = 0
        #: How often what was written in one piece arrives in two.
        self.split_permille = 0
        self.is_cut = False


class Listening:
    """One port of a host that a process listens on. What asyncio calls a server is `services.world.transports`'."""

    def __init__(self, process: Process, on_connection: Callable[[Socket], None]) -> None:
        self.process = process
        self.on_connection = on_connection


class Host:
    """One computer on the network."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.network = network
        self.name = name
        self.address = address
        #: It has power.
        self.is_up = True
        self.listening: dict[int, Listening] = {}
        self.sockets: dict[Socket, None] = {}
        #: Open sockets that one of its processes may have.
        self.descriptors_max = DESCRIPTORS_MAX
        self._next_port = 30_000

    def new_port(self) -> int:
        self._next_port += 1
        return self._next_port

    def has_descriptor(self, process: Process) -> bool:
        return sum([each.process is process for each in self.sockets]) < self.descriptors_max

    def process_died(self, process: Process) -> None:
        """Its kernel ends what it had open."""
        for port, listening in tuple(self.listening.items()):
            if listening.process is process:
                del self.listening[port]
        for each in tuple(self.sockets):
            if each.process is process:
                each.owner = None
                each.close(reset=bool(each.unread_bytes) or self.network.random.random() < 0.3)

    def power_off(self) -> None:
        """Everything that its kernel knew is gone, and nobody is told."""
        self.is_up = False
        self.listening.clear()
        for each in tuple(self.sockets):
            each.owner = None
            each.forget()

    def power_on(self) -> None:
        self.is_up = True
        self.network.carries_again(self)


class Network:
    """All hosts and links, and what is on its way."""

    def __init__(self, loop: WorldLoop, random: Random) -> None:
        self.loop = loop
        self.random = random
        self.hosts: dict[str, Host] = {}
        self._by_name: dict[str, Host] = {}
        self._host_of: dict[Process, Host] = {}
        self._links: dict[tuple[str, str], Link] = {}
        #: Told of what happens that a story would tell.
        self.count: Callable[[str], None] = lambda name: None

    def new_host(self, name: str, address: str) -> Host:
        host = self.hosts[address] = self._by_name[name] = Host(self, name, address)
        return host

    def place(self, process: Process, host: Host) -> None:
        """This process runs on that host."""
        self._host_of[process] = host
        process.on_death.append(lambda: host.process_died(process))

    def host_of(self, process: Process) -> Host:
        return self._host_of[process]

    def host(self, name_or_address: str) -> Host:
        """Raises: socket.gaierror, nobody has that name."""
        host = self.hosts.get(name_or_address) or self._by_name.get(name_or_address)
        if host is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return host

    def link(self, sender: Host, to: Host) -> Link:
        key = sender.address, to.address
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = Link()
        return link

    def links(self) -> list[Link]:
        """Between all hosts that there are."""
        hosts = tuple(self.hosts.values())
        return [self.link(one, other) for one in hosts for other in hosts]

    def cut(self, sender: Host, to: Host) -> None:
        """From now on nothing of `sender` reaches `to`."""
        self.link(sender, to).is_cut = True
        for each in (*sender.sockets, *to.sockets):
            if each.peer_host in (sender, to):
                each.on_link_cut()

    def mend(self, sender: Host, to: Host) -> None:
        """`sender` reaches `to` again; what waits on the way goes on when it is sent again."""
        self.link(sender, to).is_cut = False
        self.carries_again(sender)
        self.carries_again(to)

    def carries_again(self, host: Host) -> None:
        """The ways to and from this host may carry what they did not."""
        for other in self.hosts.values():
            for each in other.sockets:
                if each.peer_host is host or other is host:
                    each.link_is_mended()

    def mend_all(self) -> None:
        hosts = tuple(self.hosts.values())
        for one in hosts:
            for other in hosts:
                if self.link(one, other).is_cut:
                    self.mend(one, other)

    def carries(self, sender: Host, to: Host) -> bool:
        return sender.is_up and to.is_up and not self.link(sender, to).is_cut

    def delay_us(self, sender: Host, to: Host) -> int:
        """How long the next piece takes, with what is lost on the way and sent again."""
        link, random = self.link(sender, to), self.random
        if sender is to:
            return random.randint(10, 60)
        delay_us = random.randint(*link.delay_us)
        resend_us = RESEND_US_MIN
        while link.loss_permille and random.random() * 1000 < link.loss_permille:
            self.count("fault: bytes lost and sent again")
            delay_us += resend_us
            resend_us = min(2 * resend_us, RESEND_US_MAX)
        return delay_us

    def splits(self, sender: Host, to: Host) -> bool:
        """Whether the next piece arrives in two."""
        permille = self.link(sender, to).split_permille
        if not permille or self.random.random() * 1000 >= permille:
            return False
        self.count("fault: a piece arrived in two")
        return True

    # Connections

    def connect(
        self, process: Process, to: Host, port: int, on_done: Callable[[Socket | OSError], None]
    ) -> Callable[[], None]:
        """Ask for a connection; returns the way to give it up. `on_done` is called in the world's time."""
        host = self._host_of[process]
        if not host.has_descriptor(process):
            on_done(os_error(errno.EMFILE))
            return lambda: None
        ours = Socket(host, process, port=host.new_port())
        given_up = False

        def ask(tries: int) -> None:
            if given_up or not ours.is_open:
                return
            if not self.carries(host, to) or not self.carries(to, host):
                if tries >= len(CONNECT_RESEND_US):
                    ours.forget()
                    on_done(os_error(errno.ETIMEDOUT))
                else:
                    self.loop.after(CONNECT_RESEND_US[tries], ask, tries + 1)
                return
            self.loop.after(self.delay_us(host, to), arrive)

        def arrive() -> None:
            if given_up or not ours.is_open or not to.is_up:
                return
            listening = to.listening.get(port)
            back_us = self.delay_us(to, host)
            if listening is None:
                self.loop.after(back_us, refuse)
                return
            theirs = Socket(to, listening.process, port=port)
            ours.join(theirs)
            # The server's side is first to be told, as far as it runs.
            listening.process.when_running(partial(listening.process.call_soon, listening.on_connection, theirs))
            self.loop.after(back_us, done)

        def refuse() -> None:
            if ours.is_open:
                ours.forget()
                on_done(os_error(errno.ECONNREFUSED))

        def done() -> None:
            if not given_up and ours.is_open:
                on_done(ours)

        def give_up() -> None:
            nonlocal given_up
            given_up = True
            ours.close(reset=True)

        ask(0)
        return give_up
