"""The table of operations: all else follows from it, and nothing stands outside it."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from msgspec import Struct

from common import unreadable
from common.config import load_settings
from common.metrics import Metrics
from services.app import create_app
from services.catalogue import OPERATIONS
from services.http import document
from services.http.application import application
from services.node.host import Host
from services.operations.answers import Answer
from services.operations.call import Call
from services.operations.operation import GET, Kind, Operation, Operations, Text, post
from services.operations.refusals import REFUSALS
from services.operations.table import Table
from tests.helpers import serving

TOKENS = "reader:token-of-reader,client:token-of-client,admin:token-of-admin"


def named(operation: Operation) -> str:
    return operation.name


def structs() -> Iterator[type]:
    """Everything that goes over the wire."""
    for each in OPERATIONS:
        yield each.body
        yield from (kind for kind in each.answers if kind is not Text)
        yield from each.events.values()
    yield from (refusal.facts for refusal in REFUSALS.values() if refusal.facts is not None)


def test_no_route_stands_outside_the_table():
    """Goal: what is not in the table has no role, no docs and no place in what follows."""
    app = create_app(load_settings({}, {}))

    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.method != "HEAD"}

    assert served == set(OPERATIONS.by_path)


def test_all_that_goes_over_the_wire_can_be_described():
    """Goal: OpenAPI is made of it."""
    _, components = msgspec.json.schema_components(set(structs()))

    assert len(components) >= len(set(structs()))


@pytest.mark.parametrize("operation", [*OPERATIONS], ids=named)
def test_every_answer_says_whether_it_is_ok(operation):
    for kind in operation.answers:
        assert kind is Text or "ok" in kind.__struct_fields__, kind


@pytest.mark.parametrize("operation", [*OPERATIONS], ids=named)
def test_every_operation_says_what_it_does_and_shows_how(operation):
    """Goal: one sentence, and an example that is in order."""
    assert operation.sentence.endswith(".") and operation.sentence[0].isupper(), operation.sentence
    msgspec.json.decode(msgspec.json.encode(operation.example), type=operation.body)


@pytest.mark.parametrize("operation", [*OPERATIONS], ids=named)
def test_a_name_is_its_group_and_what_is_done(operation):
    family, _, verb = operation.name.partition(".")

    assert family == (operation.group or family)
    assert verb.replace("_", "").isalpha()


def test_what_goes_on_can_be_resumed():
    assert all("since" in each.body.__struct_fields__ for each in OPERATIONS if each.kind is Kind.EVENTS)


# Another group's operation


async def refusal_of(path: str, method: str = "POST", **settings: Any) -> dict[str, Any]:
    """What a node that carries locks alone answers."""
    known = load_settings({}, {"groups": "lock", **settings})
    here = Host(settings=known, metrics=Metrics(), boot="b", nodes={})
    async with serving(application(here, OPERATIONS)) as client, client.request(method, path) as response:
        assert response.status == 404
        return await response.json()


async def test_a_call_for_another_group_is_told_what_is_here_and_where_the_other_is():
    """Goal: who asks the wrong node knows which one to ask, not that the nearest is `GET /admin/hash`."""
    told = await refusal_of("/queue/enq", site="queue=127.0.0.1:8100,127.0.0.1:8101;cache=[::1]:8200")

    assert (told["reason"], told["operation"], told["group"]) == ("no_such_route", "queue.enq", "queue")
    assert (told["groups"], told["addresses"]) == (["lock"], ["127.0.0.1:8100", "127.0.0.1:8101"])
    assert "this node carries `lock`; ask 127.0.0.1:8100, 127.0.0.1:8101." in told["detail"]


async def test_a_node_that_was_told_nothing_of_the_others_names_their_group():
    told = await refusal_of("/cache/read?key=a", "GET")

    assert "addresses" not in told
    assert told["detail"].endswith("ask a node of `cache`.")


@pytest.mark.parametrize(
    ("path", "nearest"),
    [("/lock/aquire?x=1", "`POST /lock/acquire`"), ("/lock%2Fstatus2", "`GET /lock/status`"), ("/", "the nearest is"),
     ("/" + "x" * 5000, "the nearest is"), ("/queue/enqq", "`POST /queue/enq`, an operation of the group `queue`")],
)  # fmt: skip
async def test_an_unknown_route_names_the_nearest(path, nearest):
    """Goal: 404 with a hint that helps, however odd the path."""
    told = await refusal_of(path)

    assert told["reason"] == "no_such_route"
    assert nearest in told["detail"]
    assert len(told["detail"]) < 300


# Adding an operation: one struct, one function, one row


class EchoBody(Struct, forbid_unknown_fields=True):
    text: str


class Echoed(Answer, kw_only=True):
    """What was said."""

    text: str


toys = Operations("lock")


@toys.answers("lock.echo", post("/lock/echo", "/lock/parrot"), right="admin", example={"text": "hello"})
async def echo(call: Call, body: EchoBody) -> Echoed:
    """Say it again."""
    return Echoed(text=body.text)


@pytest.fixture
def toy_table() -> Table:
    return Table([*OPERATIONS, *toys])


def toy_app(table: Table, metrics: Metrics) -> web.Application:
    settings = load_settings({}, {"groups": "lock", "auth_tokens": TOKENS})
    return application(Host(settings=settings, metrics=metrics, boot="b", nodes={}), table)


async def test_a_new_operation_is_in_http_roles_metrics_and_docs(toy_table, monkeypatch):
    """Goal: a row is all that it takes."""
    metrics = Metrics()
    async with serving(toy_app(toy_table, metrics)) as client:
        asked = [
            await client.post(path, json={"text": "a"}, headers={"Authorization": f"Bearer token-of-{role}"})
            for path, role in [("/lock/echo", "admin"), ("/lock/parrot", "admin"), ("/lock/echo", "client")]
        ]
        mistyped = await client.post("/lock/ecko", headers={"Authorization": "Bearer token-of-admin"})
        hint = (await mistyped.json())["detail"]
        answers = [await response.json() for response in asked[:2]]

    assert [response.status for response in asked] == [200, 200, 403]
    assert answers == [{"ok": True, "text": "a"}] * 2
    assert "`POST /lock/echo`" in hint
    counted = {"route": "/lock/echo", "method": "POST", "status": "200"}
    assert metrics.registry.get_sample_value("http_request_seconds_count", counted) == 1

    monkeypatch.setattr(document, "OPERATIONS", toy_table)
    row = next(line for line in document.operations("lock") if "lock.echo" in line)
    assert row == (
        "| `POST /lock/echo`, `POST /lock/parrot` (`lock.echo`) | Say it again. Role `admin`. | `text` | "
        "`text`. What was said. |"
    )


def test_two_operations_of_one_name_or_path_are_a_mistake():
    again = Operations("lock")
    again.answers("lock.acquire2", post("/lock/acquire"))(echo)

    with pytest.raises(AssertionError, match="one path"):
        Table([*OPERATIONS, *again])


def test_a_get_takes_a_query_and_a_post_a_body():
    """Goal: nothing has both."""
    assert {each.at.method for each in OPERATIONS} == {GET, "POST"}


# What goes wrong behind the decision


class Counted(Answer, kw_only=True):
    count: int


async def test_an_answer_that_cannot_be_worded_is_taken_back():
    """Goal: a lock that was granted to a client which then hears of an error is nobody's."""
    taken_back = []
    failing = Operations("lock")

    @failing.answers("lock.fail", post("/lock/fail"))
    async def fail(call: Call, body: EchoBody) -> Counted:
        """Decide, and fail to say so."""
        call.take_back = lambda: taken_back.append(body.text)
        return msgspec.convert({"ok": True}, Counted)

    settings = load_settings({}, {"groups": "lock"})
    app = application(Host(settings=settings, metrics=Metrics(), boot="b", nodes={}), Table([*OPERATIONS, *failing]))
    async with serving(app) as client:
        response = await client.post("/lock/fail", json={"text": "a"})

    assert (response.status, taken_back) == (500, ["a"])


@pytest.mark.parametrize("operation", [*OPERATIONS], ids=named)
def test_what_is_misspelled_in_a_body_is_named(operation):
    """Goal: a typo is told what would be right, also inside of lists."""
    for field in operation.example:
        wrong = {name if name != field else f"{name}x": value for name, value in operation.example.items()}
        with pytest.raises(msgspec.ValidationError) as refused:
            msgspec.json.decode(msgspec.json.encode(wrong), type=operation.body)

        sentence = unreadable.refusal_of(refused.value, operation.body, text=msgspec.json.encode(wrong))
        assert "no field is taken here" not in sentence
