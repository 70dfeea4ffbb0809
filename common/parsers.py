"""How the text of each kind of setting becomes its value.

The rule of the file: a parser takes text and returns the value, or raises ValueError with a message that says what
would be right; it never repeats a secret. The name of the variable is put before the message by `common.config`.
"""

import ipaddress
import re
from collections.abc import Callable

GROUPS = ("lock", "queue", "cache")
ROLES = ("reader", "client", "admin")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "json", "text")
#: Which of a node's held lines goes first (`services.cache.node.held`).
CACHE_POLICIES = ("lru", "w-tinylfu")

#: Shortest token of a client, in characters.
TOKEN_LENGTH_MIN = 8
#: Longest id of a cluster, in characters.
CLUSTER_ID_LENGTH_MAX = 60

_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_CLUSTER_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{CLUSTER_ID_LENGTH_MAX}}}", re.ASCII)
#: RFC 1123, and underscores, which the names of containers have.
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?", re.ASCII)
_TOKEN = re.compile(r"[!-+\--~]+", re.ASCII)

#: Host and client port of a node.
Address = tuple[str, int]


def parse_text(text: str) -> str:
    return text


def parse_int(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text.replace("_", ""), re.ASCII):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text.replace("_", ""))


def parse_flag(text: str) -> bool:
    flags = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return flags[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither true nor false") from None


def parse_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_node_id(text: str) -> str:
    if not _NODE_ID.fullmatch(text):
        raise ValueError(f"{text!r} is no node id: use 1-64 letters, digits, '-', '_' and '.', such as node1")
    return text


def parse_cluster_id(text: str) -> str:
    if not _CLUSTER_ID.fullmatch(text):
        raise ValueError(
            f"{text[:100]!r} is no id of a cluster: use 1-{CLUSTER_ID_LENGTH_MAX} letters, digits, '-', '_' and '.'"
        )
    return text


def parse_host(text: str) -> str:
    if _HOST.fullmatch(text):
        return text.lower()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is neither a host name nor an IP address") from None


def parse_groups(text: str) -> tuple[str, ...]:
    groups = parse_list(text)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or not groups or len(set(groups)) != len(groups):
        raise ValueError(f"{text!r} must list each at most once, and at least one, of {', '.join(GROUPS)}")
    return groups


def parse_address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} must look like 127.0.0.1:8000")
    return parse_host(host.removeprefix("[").removesuffix("]")), parse_int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_cluster(text: str) -> dict[str, Address]:
    cluster: dict[str, Address] = {}
    for part in parse_list(text):
        name, equals, address = part.partition("=")
        if not equals or ":" not in address:
            raise ValueError(f"{part!r} must look like node1=127.0.0.1:8000")
        node_id = parse_node_id(name.strip())
        if node_id in cluster:
            raise ValueError(f"{node_id} is named twice")
        cluster[node_id] = parse_address(address)
    return cluster


def parse_site(text: str) -> dict[str, tuple[str, ...]]:
    site: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        group, equals, addresses = part.partition("=")
        group = group.strip()
        if not equals or group not in GROUPS:
            raise ValueError(f"{part!r} must look like queue=127.0.0.1:8100,... for one of {', '.join(GROUPS)}")
        if group in site:
            raise ValueError(f"{group} is named twice")
        site[group] = tuple(join_address(*parse_address(address)) for address in parse_list(addresses))
    return site


def parse_tokens(text: str) -> tuple[tuple[str, str], ...]:
    # The text is secret, so no message repeats any of it but the role.
    tokens = []
    for number, part in enumerate(parse_list(text), 1):
        role, colon, token = part.partition(":")
        if not colon or role not in ROLES:
            raise ValueError(f"entry {number} must look like role:token, with a role of {', '.join(ROLES)}")
        if len(token) < TOKEN_LENGTH_MIN or not _TOKEN.fullmatch(token):
            raise ValueError(
                f"the token of entry {number} must have at least {TOKEN_LENGTH_MIN} printable ASCII characters, "
                "without spaces and commas"
            )
        tokens.append((role, token))
    if len({token for _, token in tokens}) != len(tokens):
        raise ValueError("the same token is given twice")
    return tuple(tokens)


def parse_choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"{text!r} must be one of {', '.join(choices)}")
        return text.lower()

    return parse
