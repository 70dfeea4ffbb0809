"""services/http/guard.py: who may ask what, and which pages and names are foreign; through a real server."""

import pytest
from aiohttp import web

from common.config import load_settings
from common.metrics import Metrics
from common.middleware import request_middleware
from common.web import json_response
from services.catalogue import OPERATIONS
from services.http.guard import Guard
from services.operations.refusals import from_raft, refused
from tests.helpers import serving

TOKENS = "reader:token-of-reader,client:token-of-client,admin:token-of-admin"
CLUSTER = "node1=10.0.0.1:8000,node2=db.internal:8001"


async def ok(request):
    return json_response({"ok": True})


def make_app(**overrides) -> web.Application:
    settings = load_settings({}, {"cluster": CLUSTER, "cluster_secret": "sixteen letters!", **overrides})
    middleware = request_middleware(
        Metrics(),
        guard=Guard(settings, OPERATIONS),
        translate=from_raft,
        unknown_path=lambda _: refused("no_such_route"),
    )
    app = web.Application(middlewares=[middleware])
    app.router.add_get("/health", ok)
    app.router.add_get("/status", ok)
    app.router.add_get("/cache/read", ok)
    for path in ("/cache/get", "/lock/acquire", "/lock/force_release", "/admin/members"):
        app.router.add_post(path, ok)
    return app


@pytest.fixture
async def open_client():
    async with serving(make_app()) as client:
        yield client


@pytest.fixture
async def closed_client():
    async with serving(make_app(auth_tokens=TOKENS)) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", "/health", None),
        ("GET", "/status", "reader"),
        ("HEAD", "/status", "reader"),
        ("GET", "/cache/read", "reader"),
        ("POST", "/cache/get", "reader"),
        ("POST", "/lock/acquire", "client"),
        ("POST", "/lock/force_release", "admin"),
        ("POST", "/admin/members", "admin"),
    ],
)
async def test_each_route_needs_its_least_role(closed_client, method, path, least):
    """Goal: 401 without a token, 403 with too small a role, 200 from the least role upward."""
    roles = [None, "reader", "client", "admin"]

    statuses = []
    for role in roles:
        headers = {"Authorization": f"Bearer token-of-{role}"} if role else {}
        statuses.append((await closed_client.request(method, path, headers=headers)).status)

    enough = roles.index(least)
    assert statuses == [200 if at >= enough else 401 if at == 0 else 403 for at in range(len(roles))]


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer token-of-nobody", "Basic token-of-admin", "token-of-admin", "Bearer tokén"],
)
async def test_no_or_a_wrong_token_is_401(closed_client, authorization):
    """Goal: the answer says which header to send, and never which part was wrong."""
    response = await closed_client.get("/status", headers={"Authorization": authorization})

    answer = await response.json()
    assert (response.status, answer["reason"]) == (401, "unauthenticated")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert "Authorization: Bearer" in answer["detail"]


async def test_too_small_a_role_is_403_with_the_role_that_is_needed(closed_client):
    """Goal: an operator sees at once which token to use."""
    response = await closed_client.post("/lock/force_release", headers={"Authorization": "bearer token-of-client"})

    answer = await response.json()
    assert (response.status, answer["reason"]) == (403, "forbidden")
    assert "`admin`" in answer["detail"]


async def test_unknown_routes_need_a_token_as_well(closed_client):
    """Goal: a stranger cannot list the routes through the hints."""
    assert (await closed_client.get("/nowhere")).status == 401
    assert (await closed_client.get("/lock/acquire")).status == 401


async def test_authentication_is_off_by_default(open_client):
    """Goal: the first curl works."""
    assert (await open_client.post("/lock/force_release")).status == 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "app.localhost:1", "127.0.0.1:8000", "[::1]:8000", "192.168.7.9:8000",
     "host.docker.internal:8001", "host.containers.internal",
     "node2:8001", "10.0.0.1", "db.internal", "db.internal.:8001", "lb.example.com:443"],
)  # fmt: skip
async def test_our_own_names_and_addresses_are_served(host):
    """Goal: loopback names, IP literals, the cluster's ids and hosts, and what the operator allows."""
    async with serving(make_app(allowed_hosts="LB.example.com")) as client:
        response = await client.get("/status", headers={"Host": host})

    assert response.status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "node3:8000", "xlocalhost", "[bad", "127.1.x"],
)
async def test_a_foreign_host_is_refused(open_client, host):
    """Goal: DNS rebinding: a page whose name was turned to point here is told so, with authentication off."""
    response = await open_client.get("/health", headers={"Host": host})

    answer = await response.json()
    assert (response.status, answer["reason"]) == (403, "forbidden")
    assert "MUFAKAT_ALLOWED_HOSTS" in answer["detail"]


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost:8000"),
        ("http://127.0.0.1:8001", "127.0.0.1:8002"),
        ("http://[::1]:8001", "localhost:8002"),
        ("https://node2", "node1:8000"),
        ("http://10.0.0.1:8000", "db.internal:8001"),
        ("http://host.docker.internal:8001", "host.docker.internal:8001"),
        ("http://192.168.7.9:8000", "192.168.7.9:8001"),
    ],
)
async def test_our_own_pages_may_ask(open_client, origin, host):
    """Goal: the dashboard of one node may ask another, and a page of this machine any."""
    response = await open_client.post("/lock/acquire", headers={"Origin": origin, "Host": host})

    assert response.status == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://localhost.evil.example", "null", "http://203.0.113.9", "http://[bad", "", "file://"],
)
async def test_a_foreign_page_is_refused(open_client, origin):
    """Goal: another site's page cannot take locks through its visitor's browser; an address proves nothing."""
    response = await open_client.post("/lock/acquire", headers={"Origin": origin, "Host": "localhost"})

    assert (response.status, (await response.json())["reason"]) == (403, "forbidden")


@pytest.mark.parametrize("path", ["/cache/read", "/status", "/health", "/nowhere"])
async def test_what_a_page_of_another_site_asks_is_refused(open_client, path):
    """Goal: `<img src="http://localhost:8001/cache/read?...">` has no Origin, but the browser says whose it is."""
    response = await open_client.get(path, headers={"Sec-Fetch-Site": "cross-site"})

    answer = await response.json()
    assert (response.status, answer["reason"]) == (403, "forbidden")
    assert "Sec-Fetch-Site" in answer["detail"]


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
async def test_what_our_own_page_or_a_hand_asks_is_served(open_client, site):
    """Goal: the dashboard of one node may ask another on this machine, and people may type addresses."""
    response = await open_client.get("/cache/read", headers={"Sec-Fetch-Site": site})

    assert response.status == 200


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/health", 401), ("/lock/acquire", 401)])
async def test_a_load_balancer_needs_no_token_to_ask_the_whole_server(closed_client, path, status):
    assert (await closed_client.options(path)).status == status


def test_what_is_open_to_everybody_is_health_alone():
    """Goal: a new operation is never open by accident."""
    assert OPERATIONS.paths("public") == {"/health", "/livez", "/readyz"}


def test_what_only_an_admin_may_do():
    """Goal: whoever changes a right sees it here."""
    forced = {"/lock/force_release", "/queue/redrive", "/queue/purge", "/queue/delete"}

    assert {path for path in OPERATIONS.paths("admin") if not path.startswith("/admin/")} == forced
    assert {each.right for each in OPERATIONS if each.at.path.startswith("/admin/")} == {"admin"}


def test_a_right_that_is_less_than_its_method_asks_is_named():
    """Goal: a POST that changes nothing is the exception, and stands here."""
    reading = {each.name for each in OPERATIONS if each.at.method == "POST" and each.right == "reader"}

    assert reading == {"lock.validate", "cache.get", "cache.mget"}
