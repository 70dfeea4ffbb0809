"""Who may ask this node for what: tokens with roles, and the defence against foreign web pages.

The rule of the file: who may ask for an operation stands in its row of the table. A path of no operation needs a
token, too, so that nothing is open by accident. A page from elsewhere must not reach a node through its visitor's
browser, whether it calls it by name (its `Origin` is foreign) or makes its own name resolve to this machine (the
`Host` is foreign); that holds with authentication off as well. An image's GET has no `Origin`: a browser that says
itself that a page of another site asks (`Sec-Fetch-Site`) is believed. Tokens are compared by digest, in constant
time for all that a client can measure.
"""

import ipaddress
from hashlib import sha256
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from multidict import istr

from common.api_error import ApiError
from common.config import Settings
from common.middleware import WHOLE_SERVER_PATHS
from services.operations.operation import GET, Right, usual_right
from services.operations.refusals import refused
from services.operations.table import Table

_RANKS = {"reader": 1, "client": 2, "admin": 3}

#: Spellings of good `Host` headers kept, so that the check is one look-up.
_HOSTS_KEPT_MAX = 256

#: What containers call the machine that they run on; no page can own a name under .internal.
_LOOPBACK_NAMES = frozenset({"localhost", "host.docker.internal", "host.containers.internal"})

#: `Sec-Fetch-Site` of what this node's own page or the visitor's own hand asks.
_OWN_SITES = frozenset({None, "same-origin", "none"})

_SEC_FETCH_SITE = istr("Sec-Fetch-Site")
_HOST = istr(hdrs.HOST)
_ORIGIN = istr(hdrs.ORIGIN)
_AUTHORIZATION = istr(hdrs.AUTHORIZATION)


class Guard:
    """Refuses what may not be served; called with each request before its handler.

    Hosts that are allowed: this machine's loopback names, those that containers have for it, IP literals (no page can
    own one's name), the ids and hosts of the cluster's nodes, and the setting `allowed_hosts`. Origins that are
    allowed: the same names and loopback addresses, and the host that the request itself was sent to.
    """

    def __init__(self, settings: Settings, table: Table) -> None:
        self._table = table
        self._role_by_digest = {_digest(token): role for role, token in settings.auth_tokens}
        self._names = frozenset(
            name.lower()
            for name in (
                *settings.cluster,
                *(host for host, _ in settings.cluster.values()),
                settings.listen_host,
                *settings.allowed_hosts,
            )
        )
        self._good_hosts: set[str] = set()

    def __call__(self, request: web.Request) -> None:
        """Return for a request that may be served.

        Raises:
            ApiError: 401, 403.
        """
        headers = request.headers
        host = headers.get(_HOST)
        if host is not None and host not in self._good_hosts:
            self._check_host(host)
        origin = headers.get(_ORIGIN)
        if origin is not None:
            self._check_origin(origin, host)
        if _SEC_FETCH_SITE in headers and headers[_SEC_FETCH_SITE] == "cross-site":
            raise _foreign_page()
        if self._role_by_digest:
            self._check_role(request, headers.get(_AUTHORIZATION))

    def _check_host(self, host: str) -> None:
        name = _host_name(host)
        if not self._is_ours(name) and _ip_address(name) is None:
            raise _foreign("Host", host)
        if len(self._good_hosts) < _HOSTS_KEPT_MAX:
            self._good_hosts.add(host)

    def _check_origin(self, origin: str, host: str | None) -> None:
        try:
            name = urlsplit(origin).hostname
        except ValueError:
            name = None
        # Unlike in a Host, an IP literal proves nothing here: anybody may serve pages from an address.
        if name is None or not (self._is_ours(name) or (host is not None and name == _host_name(host))):
            raise _foreign("Origin", origin)

    def _is_ours(self, name: str) -> bool:
        if name in self._names or name in _LOOPBACK_NAMES or name.endswith(".localhost"):
            return True
        address = _ip_address(name)
        return address is not None and address.is_loopback

    def _check_role(self, request: web.Request, authorization: str | None) -> None:
        needed = self._right_needed(request)
        if needed == "public":
            return
        scheme, _, token = (authorization or "").partition(" ")
        role = self._role_by_digest.get(_digest(token.strip())) if scheme.lower() == "bearer" else None
        if role is None:
            error = refused("unauthenticated")
            error.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="mufakat"'
            raise error
        if _RANKS[role] < _RANKS[needed]:
            raise refused("forbidden", f"This needs a token of the role `{needed}`; yours has the role `{role}`.")


    def _right_needed(self, request: web.Request) -> Right:
        """The least right that may ask this."""
        if request.method == hdrs.METH_OPTIONS and request.path in WHOLE_SERVER_PATHS:
            return "public"
        resource, method = request.match_info.route.resource, request.method
        if resource is None:
            return "reader"
        operation = self._table.by_path.get((GET if method == hdrs.METH_HEAD else method, resource.canonical))
        if operation is None:
            return usual_right(method)
        return operation.right


def check_own_page(request: web.Request) -> None:
    """Refuse a GET that has an effect, where a browser says that another page made it: any page can do so by an
    image. Who is no browser says nothing.

    Raises:
        ApiError: 403.
    """
    if request.headers.get(_SEC_FETCH_SITE) not in _OWN_SITES:
        raise _foreign_page()


def role_of(request: web.Request, settings: Settings) -> str | None:
    """The role of the token that came with a request; None where it has none or tokens are off. For handlers to which
    the route alone does not tell what is asked."""
    role_by_digest = {_digest(token): role for role, token in settings.auth_tokens}
    _, _, token = request.headers.get(_AUTHORIZATION, "").partition(" ")
    return role_by_digest.get(_digest(token.strip()))


def _host_name(authority: str) -> str:
    """The name in `name:port`, `1.2.3.4:port` or `[::1]:port`."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower().removesuffix(".")


def _ip_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _foreign(header: str, value: str) -> ApiError:
    return refused(
        "forbidden",
        f"The {header} `{value[:100]}` is foreign to this cluster; if it is yours, name it in MUFAKAT_ALLOWED_HOSTS.",
    )


def _foreign_page() -> ApiError:
    detail = "A page of another site asks this (Sec-Fetch-Site); only this node's own pages may."
    return refused("forbidden", detail)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
