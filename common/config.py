"""The settings of a node: one frozen object, read once at start-up from `MUFAKAT_*` variables and flags.

The rule of the file: each setting is one field of `Settings`, which carries its default, its parser, its bounds and
its line of documentation; `SETTINGS` lists them for the docs and the tests. A wrong value stops the node with a
`SettingsError` that names the variable and says what would be right.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from common.parsers import (
    CACHE_POLICIES,
    GROUPS,
    LOG_FORMATS,
    LOG_LEVELS,
    Address,
    join_address,
    parse_choice,
    parse_cluster,
    parse_cluster_id,
    parse_flag,
    parse_groups,
    parse_host,
    parse_int,
    parse_list,
    parse_node_id,
    parse_site,
    parse_text,
    parse_tokens,
)

VARIABLE_PREFIX = "MUFAKAT_"

#: Variables with the prefix that the command line reads and a node does not.
COMMAND_VARIABLES = frozenset(
    {
        "MUFAKAT_HOME",
        "MUFAKAT_TOPOLOGY",
        "MUFAKAT_MODE",
        "MUFAKAT_PUBLISH",
        "MUFAKAT_BASE_IMAGE",
        "MUFAKAT_PROCESS_LOCK",
    }
)

#: The variables for the published port of a node begin with this; the commands read them, too.
PORT_VARIABLE_PREFIX = "MUFAKAT_PORT_"

#: A node's peer port is its client port plus this, for this node and for all others.
PEER_PORT_OFFSET = 10_000

#: Shortest secret that the nodes of a cluster may share, in characters.
CLUSTER_SECRET_LENGTH_MIN = 16


def is_for_commands(variable: str) -> bool:
    """Whether only the commands that manage a cluster and the compose files read it, and nodes ignore it."""
    return variable in COMMAND_VARIABLES or variable.startswith(PORT_VARIABLE_PREFIX)


class SettingsError(ValueError):
    """A setting is missing or wrong; `variable` is its `MUFAKAT_*` name, which the text names too."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable}: {problem}")
        self.variable = variable


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table of settings."""

    field: str
    variable: str
    default: Any
    parse: Callable[[str], Any]
    #: Bounds of a number, both included; None if there is none.
    minimum: int | None
    maximum: int | None
    doc: str
    #: Nothing may show its value.
    secret: bool = False


def _setting(
    default: Any,
    parse: Callable[[str], Any],
    doc: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    secret: bool = False,
) -> Any:
    metadata = {"parse": parse, "doc": doc, "minimum": minimum, "maximum": maximum, "secret": secret}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a node learns once, at its start. Durations are milliseconds of its own clock, sizes are bytes."""

    node_id: str = _setting("node1", parse_node_id, "Who this node is; a name in the cluster.")
    groups: tuple[str, ...] = _setting(GROUPS, parse_groups, "The groups that this node hosts, by comma.")
    cluster: Mapping[str, Address] = _setting(
        {},
        parse_cluster,
        "All nodes of these groups, this one included: node1=host:port,node2=... with their client ports. "
        "Empty: this node alone, on port 8000.",
    )
    join: bool = _setting(
        False,
        parse_flag,
        "true: this node is added to a cluster that there is, and never begins a new one (`mufakat member add`).",
    )
    listen_host: str = _setting("127.0.0.1", parse_host, "Address on which clients are served.")
    client_port: int = _setting(
        0, parse_int, "Port for clients; 0: this node's in the cluster.", minimum=0, maximum=65_535
    )
    peer_listen_host: str = _setting(
        "", parse_host, "Address on which the other nodes are served; empty: listen_host."
    )
    peer_port: int = _setting(
        0,
        parse_int,
        f"Port on which this node listens to the others; 0: its client port in the cluster + {PEER_PORT_OFFSET}, "
        "where they look for it.",
        minimum=0,
        maximum=65_535,
    )
    site: Mapping[str, tuple[str, ...]] = _setting(
        {},
        parse_site,
        "Where clients reach the other groups of the installation, to be told to whoever asks the wrong node: "
        "lock=host:port,host:port;queue=... Empty: nobody told this node.",
    )
    cluster_secret: str = _setting(
        "",
        parse_text,
        f"What the nodes prove to each other, at least {CLUSTER_SECRET_LENGTH_MIN} characters; "
        "needed with more than one node.",
        secret=True,
    )
    cluster_id: str = _setting(
        "",
        parse_cluster_id,
        "Which cluster this node is of; nodes of another one are not heard. Empty: what the data directory says, or "
        "the leader that takes this node in.",
    )
    data_dir: str = _setting("", parse_text, "Where logs and snapshots lie; empty: .mufakat/<node_id>.")
    heartbeat_ms: int = _setting(
        50, parse_int, "A leader speaks to each follower this often.", minimum=5, maximum=10_000
    )
    election_timeout_min_ms: int = _setting(
        400, parse_int, "Shortest silence after which a follower campaigns.", minimum=20, maximum=60_000
    )
    election_timeout_max_ms: int = _setting(
        800, parse_int, "Longest silence after which a follower campaigns.", minimum=21, maximum=120_000
    )
    request_timeout_ms: int = _setting(
        1_800, parse_int, "A request is answered within this time.", minimum=50, maximum=600_000
    )
    leader_wait_ms: int = _setting(
        1_500, parse_int, "So long a request waits for a leader to be elected.", minimum=0, maximum=600_000
    )
    body_bytes_max: int = _setting(
        1_310_720, parse_int, "Largest request body.", minimum=1_024, maximum=4 << 20
    )
    value_bytes_max: int = _setting(
        1_048_576, parse_int, "Largest value or payload, as JSON.", minimum=1, maximum=4 << 20
    )
    connections_max: int = _setting(
        10_000,
        parse_int,
        "Connections of clients at one time; fewer where the limit of open files is lower. More are turned away; "
        "health checks and scrapes are still answered.",
        minimum=1,
        maximum=1_000_000,
    )
    connections_per_address_max: int = _setting(
        8_000,
        parse_int,
        "Of these, from one address (IPv6: one /64 network). Behind a proxy all clients share its address.",
        minimum=1,
        maximum=1_000_000,
    )
    header_timeout_ms: int = _setting(
        10_000,
        parse_int,
        "So long after connecting, the headers of the first request must be complete.",
        minimum=100,
        maximum=600_000,
    )
    idle_timeout_ms: int = _setting(
        75_000,
        parse_int,
        "A connection is closed so long after its last answer, unless the next request is complete by then. "
        "Longer than what proxies keep theirs.",
        minimum=100,
        maximum=86_400_000,
    )
    body_timeout_ms: int = _setting(
        20_000,
        parse_int,
        "A body must go on arriving, and an answer must go on being taken: in each such time as many bytes as "
        "body_bytes_per_second_min asks for.",
        minimum=100,
        maximum=600_000,
    )
    body_bytes_per_second_min: int = _setting(
        4_096,
        parse_int,
        "Slowest client that is served, on average over body_timeout_ms.",
        minimum=1,
        maximum=1 << 30,
    )
    name_bytes_max: int = _setting(256, parse_int, "Longest name, as UTF-8.", minimum=16, maximum=4_096)
    proposals_max: int = _setting(
        10_000, parse_int, "Commands of one group that may wait in this node.", minimum=1, maximum=1_000_000
    )
    proposals_bytes_max: int = _setting(
        64 << 20,
        parse_int,
        "What these commands may take in memory, bytes.",
        minimum=1 << 20,
        maximum=1 << 40,
    )
    waiter_gone_ms: int = _setting(
        2_000,
        parse_int,
        "After so long without a sign of a node, the leader ends the waits of its clients.",
        minimum=100,
        maximum=600_000,
    )
    log_level: str = _setting(
        "info", parse_choice(*LOG_LEVELS), f"Least serious line that is logged: {', '.join(LOG_LEVELS)}."
    )
    log_format: str = _setting(
        "auto", parse_choice(*LOG_FORMATS), "json, text, or auto: text on a terminal, else JSON lines."
    )
    log_file: str = _setting("", parse_text, "File to log to, instead of stderr; its folder must be there.")
    log_file_bytes_max: int = _setting(
        16 << 20,
        parse_int,
        "Size of the log file at which it becomes FILE.1, in the place of an older one, and a new one is begun.",
        minimum=4_096,
        maximum=1 << 40,
    )
    auth_tokens: tuple[tuple[str, str], ...] = _setting(
        (),
        parse_tokens,
        "role:token,... with the roles reader, client and admin; empty: authentication is off.",
        secret=True,
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        lambda text: tuple(map(parse_host, parse_list(text))),
        "Further names by which browsers and clients may address this node, by comma.",
    )
    cache_lease_ms: int = _setting(
        600,
        parse_int,
        "Length of the read leases that this node gives as the cache's leader; nodes may differ.",
        minimum=100,
        maximum=60_000,
    )
    cache_lease_drift_percent: int = _setting(
        5, parse_int, "How much faster one node's clock may run than another's.", minimum=0, maximum=50
    )
    cache_policy: str = _setting(
        "lru",
        parse_choice(*CACHE_POLICIES),
        "Which of the lines that this node holds goes first: lru, the one used longest ago, or w-tinylfu, the one "
        "asked for least.",
    )
    cache_lines_max: int = _setting(
        100_000, parse_int, "Lines of the cache that this node answers from memory.", minimum=1, maximum=100_000_000
    )
    cache_lines_bytes_max: int = _setting(
        128 << 20,
        parse_int,
        "Bytes of these lines: keys, values and kept answers; a larger one is not held.",
        minimum=1_024,
        maximum=1 << 40,
    )
    snapshot_entries: int = _setting(
        100_000, parse_int, "A snapshot is taken after this many entries.", minimum=10, maximum=100_000_000
    )
    snapshot_bytes: int = _setting(
        64 << 20, parse_int, "A snapshot is taken after this many bytes of log.", minimum=4_096, maximum=1 << 40
    )
    log_retained_bytes_max: int = _setting(
        32 << 20,
        parse_int,
        "So many bytes of the log stay behind a snapshot at most, for followers that lag a little.",
        minimum=0,
        maximum=1 << 40,
    )
    catch_up_bytes_max: int = _setting(
        128 << 20,
        parse_int,
        "So many bytes of the log a leader keeps for a follower that is catching up, at least twice "
        "MUFAKAT_SNAPSHOT_BYTES; it slows writers before that is not enough.",
        minimum=16 << 20,
        maximum=1 << 40,
    )
    wal_segment_bytes: int = _setting(
        64 << 20, parse_int, "Size of one file of the log.", minimum=4_096, maximum=1 << 32
    )

    def peer_port_of(self, node_id: str) -> int:
        """The port at which the others reach `node_id`, a node of the cluster."""
        return self.cluster[node_id][1] + PEER_PORT_OFFSET

    def address_of(self, node_id: str) -> str:
        """`host:port` at which clients reach `node_id`, a node of the cluster."""
        return join_address(*self.cluster[node_id])

    @property
    def peers(self) -> tuple[str, ...]:
        """The ids of the other nodes, sorted."""
        return tuple(sorted(node_id for node_id in self.cluster if node_id != self.node_id))


#: Every setting, in the order of the fields.
SETTINGS: tuple[Setting, ...] = tuple(
    Setting(
        field=each.name,
        variable=VARIABLE_PREFIX + each.name.upper(),
        default=getattr(Settings(), each.name),
        parse=each.metadata["parse"],
        minimum=each.metadata["minimum"],
        maximum=each.metadata["maximum"],
        doc=each.metadata["doc"],
        secret=each.metadata["secret"],
    )
    for each in fields(Settings)
)

_BY_FIELD = {setting.field: setting for setting in SETTINGS}


def load_settings(environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings that `environ` and then `overrides` (field to value, from flags) ask for, checked and complete.

    An override may be text as in the variable, or the value itself; None means that it was not given. A variable with
    an empty value counts as not set.

    Raises:
        SettingsError: a variable is unknown, cannot be read, is out of bounds or does not fit the others.
    """
    known = {setting.variable for setting in SETTINGS}
    for variable in sorted(environ):
        if variable.startswith(VARIABLE_PREFIX) and variable not in known and not is_for_commands(variable):
            raise SettingsError(variable, "there is no such setting; check the spelling")
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        text = environ.get(setting.variable, "").strip()
        if text:
            values[setting.field] = _read(setting, text)
    for name, value in (overrides or {}).items():
        assert name in _BY_FIELD, f"no setting has the field {name}"
        if value is not None:
            values[name] = _read(_BY_FIELD[name], value)
    settings = _complete(Settings(**values))
    _check(settings)
    return settings


def _read(setting: Setting, value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = setting.parse(value)
        except ValueError as error:
            raise SettingsError(setting.variable, str(error)) from error
    if setting.minimum is not None and value < setting.minimum:
        raise SettingsError(setting.variable, f"{value} is below the least allowed, {setting.minimum}")
    if setting.maximum is not None and value > setting.maximum:
        raise SettingsError(setting.variable, f"{value} is above the most allowed, {setting.maximum}")
    return value


def _complete(settings: Settings) -> Settings:
    """Fill in values that follow from other settings."""
    cluster = settings.cluster or {settings.node_id: ("127.0.0.1", settings.client_port or 8_000)}
    if settings.node_id not in cluster:
        raise SettingsError(
            "MUFAKAT_CLUSTER",
            f"names {', '.join(sorted(cluster))} but not this node, {settings.node_id} (MUFAKAT_NODE_ID)",
        )
    port = cluster[settings.node_id][1]
    return replace(
        settings,
        cluster=cluster,
        client_port=settings.client_port or port,
        peer_port=settings.peer_port or port + PEER_PORT_OFFSET,
        peer_listen_host=settings.peer_listen_host or settings.listen_host,
        data_dir=settings.data_dir or f".mufakat/{settings.node_id}",
    )


def _check(settings: Settings) -> None:
    """Refuse settings that are possible alone but not together."""
    port_max = 65_535 - PEER_PORT_OFFSET
    for node_id, (_, port) in settings.cluster.items():
        if not 1 <= port <= port_max:
            raise SettingsError(
                "MUFAKAT_CLUSTER",
                f"the client port of {node_id} must be from 1 to {port_max}: "
                f"its peer port is {PEER_PORT_OFFSET} higher",
            )
    if len(set(settings.cluster.values())) != len(settings.cluster):
        raise SettingsError("MUFAKAT_CLUSTER", "two nodes have the same address")
    if settings.peer_port == settings.client_port:
        raise SettingsError("MUFAKAT_PEER_PORT", f"{settings.peer_port} is the client port already")
    if len(settings.cluster) > 1 and not settings.cluster_secret:
        raise SettingsError("MUFAKAT_CLUSTER_SECRET", "must be set, to the same text on every node of the cluster")
    if settings.cluster_secret and len(settings.cluster_secret) < CLUSTER_SECRET_LENGTH_MIN:
        raise SettingsError(
            "MUFAKAT_CLUSTER_SECRET", f"must have at least {CLUSTER_SECRET_LENGTH_MIN} characters"
        )
    if settings.election_timeout_min_ms < 2 * settings.heartbeat_ms:
        raise SettingsError(
            "MUFAKAT_ELECTION_TIMEOUT_MIN_MS",
            "must be at least twice MUFAKAT_HEARTBEAT_MS, or one late heartbeat starts an election",
        )
    if settings.election_timeout_max_ms <= settings.election_timeout_min_ms:
        raise SettingsError(
            "MUFAKAT_ELECTION_TIMEOUT_MAX_MS", "must be above MUFAKAT_ELECTION_TIMEOUT_MIN_MS, or votes split"
        )
    if settings.leader_wait_ms > settings.request_timeout_ms:
        raise SettingsError("MUFAKAT_LEADER_WAIT_MS", "must not be above MUFAKAT_REQUEST_TIMEOUT_MS")
    if settings.value_bytes_max >= settings.body_bytes_max:
        raise SettingsError(
            "MUFAKAT_VALUE_BYTES_MAX", "must be below MUFAKAT_BODY_BYTES_MAX: a body holds more than the value"
        )
