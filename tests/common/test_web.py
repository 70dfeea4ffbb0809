"""common/web.py and common/middleware.py: every generic row of the table of errors, through a real server."""

import asyncio
import json
import socket
from typing import Annotated, Literal

import msgspec
import pytest
from aiohttp import web
from prometheus_client import generate_latest
from structlog.testing import capture_logs
from yarl import URL

from common.api_error import ApiError, check_name
from common.metrics import Metrics
from common.middleware import request_middleware, shown_path
from common.unreadable import refusal_of
from common.web import has_hung_up, json_response, read_body, read_query
from tests.helpers import eventually, serving

BODY_BYTES_MAX = 1_310_720


class Part(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    mode: Literal["X", "S"] = "X"


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    ttl: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    mode: Literal["X", "S"] = "X"
    value: msgspec.Raw = msgspec.Raw(b"null")
    parts: Annotated[list[Part], msgspec.Meta(max_length=2)] = []


class Options(msgspec.Struct, forbid_unknown_fields=True):
    wait: float = 0.0


class Query(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    wait: float = 0.0


class LowerLayerError(Exception):
    pass


async def post_thing(request):
    thing = await read_body(request, Thing)
    check_name(thing.key, "key")
    return json_response({"ok": True, "key": thing.key, "value": thing.value})


async def post_options(request):
    options = await read_body(request, Options)
    return json_response({"ok": True, "wait": options.wait})


async def get_thing(request):
    query = read_query(request, Query)
    return json_response({"ok": True, "key": query.key, "limit": query.limit})


async def get_trouble(request):
    match request.match_info["kind"]:
        case "known":
            raise ApiError(429, "overloaded", "Later.", facts={"waiting": 3}, headers={"Retry-After": "1"})
        case "lower":
            raise LowerLayerError
        case "hung-up":
            request.transport.close()
            raise LowerLayerError
        case "unknown":
            raise ZeroDivisionError("a secret detail")
        case "redirect":
            raise web.HTTPFound("/thing")
        case "half":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"half")
            raise ZeroDivisionError
    return json_response({"ok": True})


def refuse_strangers(request):
    if "X-Stranger" in request.headers:
        raise ApiError(403, "forbidden", "No strangers.")


def translate(error):
    return ApiError(504, "outcome_unknown", "Who knows.") if isinstance(error, LowerLayerError) else None


def make_app(metrics: Metrics | None = None) -> web.Application:
    middleware = request_middleware(
        metrics or Metrics(),
        guard=refuse_strangers,
        translate=translate,
        unknown_path=lambda request: ApiError(404, "no_such_route", f"There is no route {shown_path(request)}."),
    )
    app = web.Application(middlewares=[middleware], client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/thing", post_thing)
    app.router.add_post("/options", post_options)
    app.router.add_get("/thing/read", get_thing)
    app.router.add_get("/trouble/{kind}", get_trouble)
    return app


@pytest.fixture
async def client():
    async with serving(make_app()) as client:
        yield client


JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"key=a", "it looks like a form"),
        (b'{"key": "a",}', "trailing comma in object at byte 12; leave out the comma behind the last item."),
        (b'{"key": "a", "value": [1, ]}', "trailing comma in array"),
        (b'{"key": "a", "value": NaN}', "`NaN` is not JSON, which has no such number"),
        (b'{"key": "a", "ttl": -Infinity}', "`Infinity` is not JSON, which has no such number"),
        (b'{"key": "a", "value": True}', "at byte 22; `True` is not JSON, `true` is."),
        (b'{"key": "a", "value": [False]}', "`False` is not JSON, `false` is."),
        (b'{"key": None}', "`None` is not JSON, `null` is."),
        (b'{"key": undefined}', "`undefined` is not JSON, `null` is."),
        (b"{'key': 'a'}", "at byte 1; names and texts stand in double quotes."),
        (b"{key: 1}", "names and texts stand in double quotes."),
        ('{“key”: 1}'.encode(), "names and texts stand in double quotes."),
        (b'{"key": "None\n"}', "line ends and tabs in a text are written as"),
        (b'{"key": "a\\d"}', "a backslash in a text is written as"),
        (b'{"key": 01}', "numbers are like 5"),
        (b'{"key": +1}', "numbers are like 5"),
        (b'// no\n{"key": "a"}', "JSON has no comments."),
        (b'{"key": "a"}{}', "send one value, and nothing behind it."),
        (b'{"key": }', "a name or a value is missing before it."),
        (b"\x1f\x8b\x08\x00", "it is compressed"),
        ('{"key": "a"}'.encode("utf-16-be"), "UTF-16"),
        ('{"key": "a"}'.encode("utf-16"), "UTF-16"),
        (b" \n", "it is blank"),
        (b'\xef\xbb\xbf{"key": "a",}', "trailing comma in object at byte 12"),
        (b"\xef\xbb\xbf", "The body is empty; send a JSON object."),
        (b"{'key': 'a'}", "double quotes"),
        (b'{"key": "a"', "ends too early"),
        (b'{"key": "a"} {}', "not valid JSON"),
        (b'{"key": "\\ud800"}', "surrogate"),
        (b'{"key": NaN}', "not valid JSON"),
        (b'{"key": "a", "value": ' + b"[" * 100_000, "nested too deeply"),
        (b"[]", "The body must be an object, not a list."),
        (b"null", "The body must be an object, not null."),
        (b'{"key": 5}', "The field `key` must be a text in quotes, not a whole number."),
        (b'{"key": "a", "ttl": "5"}', "The field `ttl` must be a number or null, not a text."),
        (b'{"key": "a", "ttl": true}', "The field `ttl` must be a number or null, not true or false."),
        (b'{"key": "a", "ttl": 0}', "The field `ttl` must be above 0."),
        (b'{"key": "a", "ttl": 3601}', "The field `ttl` must be at most 3600."),
        (b'{"key": "a", "ttl": 1e999}', "The field `ttl` is a number out of range"),
        (b'{"key": "a", "count": 0}', "The field `count` must be at least 1."),
        (b'{"key": "a", "count": 1.5}', "The field `count` must be a whole number, not a decimal number."),
        (b'{"key": "a", "count": 99999999999999999999999}', "The field `count`"),
        (b'{"key": "a", "mode": "Z"}', "The field `mode` cannot be 'Z'; use `S`, `X`."),
        (b'{"ttl": 5}', "The field `key` is missing; add it."),
        (b"{}", "The field `key` is missing; add it."),
        (b"", "The body is empty; send a JSON object. The field `key` is missing; add it."),
        (b'{"key": "a", "tll": 5}', "There is no field `tll`; did you mean `ttl`?"),
        (b'{"key": "a", "colour": 5}', "known here are `key`, `ttl`"),
        (b'{"key": "a", "parts": [{"key": "b"}, {"kye": "c"}]}', "no field `parts[1].kye`; did you mean `key`?"),
        (b'{"key": "a", "parts": [{}]}', "The field `parts[0].key` is missing"),
        (b'{"key": "a", "parts": [{"key": "b", "mode": 1}]}', "The field `parts[0].mode` must be a text"),
        (b'{"key": "a", "parts": [{"key": "b", "mode": "x"}]}', "cannot be 'x'; use `S`, `X`."),
        (b'{"key": "a", "parts": [{"key":"1"},{"key":"2"},{"key":"3"}]}', "`parts` must have at most 2 items."),
        (b'{"key": ""}', "The field `key` is empty"),
        (b'{"key": "' + b"a" * 10_240 + b'"}', "The field `key` has 10240 bytes"),
        (b'{"key": "' + "é".encode() * 129 + b'"}', "The field `key` has 258 bytes"),
        (b'{"key": "a\\u0000b"}', "The field `key` holds a control character"),
        (b'{"key": "a\\u0085b"}', "The field `key` holds a control character"),
        (b'{"key": "\\ufeffa"}', "The field `key` holds a byte order mark (U+FEFF)"),
        ('{"key": "a\ufeff"}'.encode(), "The field `key` holds a byte order mark (U+FEFF)"),
        (b'{"key": "a", "' + b"x" * 5000 + b'": 1}', "There is no field `xxx"),
    ],
)  # fmt: skip
async def test_a_bad_body_is_refused_by_a_sentence_that_names_the_field(client, body, named):
    """Goal: 400 `bad_request`, and whoever reads `detail` knows what to change; never a novel."""
    response = await client.post("/thing", data=body, headers=JSON)

    answer = await response.json()
    assert (response.status, answer["ok"], answer["reason"]) == (400, False, "bad_request")
    assert named in answer["detail"]
    assert len(answer["detail"]) < 400


@pytest.mark.parametrize(
    "body",
    [b'{"key": "\xff"}', b'{"key": "a", "value": "\xff"}', b'{"key": "a", "value": {"\xc3(": 1}}',
     b'{"key": "a", "value": "\xed\xa0\x80"}', '{"key": "a"}'.encode("utf-16")],
    ids=["text", "raw", "name in raw", "surrogate in raw", "UTF-16"],
)  # fmt: skip
async def test_bytes_that_are_not_utf_8_are_refused(client, body):
    """Goal: also in values that nobody decodes here: they are stored and handed out as JSON."""
    response = await client.post("/thing", data=body, headers=JSON)

    answer = await response.json()
    assert (response.status, answer["reason"]) == (400, "bad_request")
    assert "not valid UTF-8" in answer["detail"]


@pytest.mark.parametrize(
    "value",
    [b"nul", b"01", b"1.", b"+1", b".5", b"[1,]", b"{1:2}", b"'a'", b'"\\x"', b'"\\u12"', b'"\n"', b"/**/1",
     b"NaN", b"-Infinity", b'"\\ud800"', b"[1 2]", b'{"a"}', b"\xef\xbb\xbf1"],
)  # fmt: skip
async def test_a_value_kept_as_it_came_is_json_all_the_same(client, value):
    """Goal: `msgspec.Raw` fields are stored undecoded, so what is no JSON must be refused at the door."""
    response = await client.post("/thing", data=b'{"key": "a", "value": ' + value + b"}", headers=JSON)

    assert response.status == 400


@pytest.mark.parametrize(
    "value", [b'{"b": [1, 2.5e3, null, true], "\xc3\xa9": "\\ud83d\\ude00"}', b"-0.0", b"1e400", b"9" * 100, b'""']
)
async def test_a_value_kept_as_it_came_is_handed_out_as_it_came(client, value):
    """Goal: any JSON value, numbers that no machine type holds included, survives byte for byte."""
    response = await client.post("/thing", data=b'{"key": "a", "value": ' + value + b"}", headers=JSON)

    assert response.status == 200
    assert value in await response.read()


@pytest.mark.parametrize("headers", [JSON, FORM, {}, {"Content-Type": "text/plain"}], ids=str)
async def test_an_empty_body_is_fine_with_any_content_type(client, headers):
    """Goal: PowerShell sends a form's content type with a bare POST."""
    response = await client.post("/options", data=b"", headers=headers)

    assert (response.status, await response.json()) == (200, {"ok": True, "wait": 0.0})


async def test_a_missing_content_type_is_fine_without_a_body(client):
    """Goal: `curl -X POST` sends neither."""
    response = await client.post("/options", skip_auto_headers=["Content-Type"])

    assert response.status == 200


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON;charset=UTF-8", "application/json ;x"],
)
async def test_json_is_json_with_any_parameter(client, content_type):
    """Goal: clients spell the content type in many ways."""
    response = await client.post("/options", data=b'{"wait": 1}', headers={"Content-Type": content_type})

    assert (response.status, await response.json()) == (200, {"ok": True, "wait": 1.0})


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "application/jsonx", ""])
async def test_another_content_type_is_refused_with_the_right_header(client, content_type):
    """Goal: 415, and the hint can be copied."""
    response = await client.post("/options", data=b'{"wait": 1}', headers={"Content-Type": content_type})

    answer = await response.json()
    assert (response.status, answer["reason"]) == (415, "unsupported_media_type")
    assert "`Content-Type: application/json`" in answer["detail"]


async def test_a_body_without_content_type_is_refused(client):
    """Goal: a page of another site can send a body without a content type, without asking first."""
    response = await client.post("/options", data=b'{"wait": 1}', skip_auto_headers=["Content-Type"])

    assert response.status == 415


async def test_a_body_of_two_megabytes_is_too_large(client):
    """Goal: 413 with the limit, and the next request is served."""
    response = await client.post("/thing", data=b'{"key": "' + b"a" * (2 << 20) + b'"}', headers=JSON)

    answer = await response.json()
    assert (response.status, answer["reason"]) == (413, "too_large")
    assert str(BODY_BYTES_MAX) in answer["detail"]
    assert (await client.post("/options")).status == 200


@pytest.mark.parametrize(
    ("body", "answered"),
    [(b'{"key": "a", "value": 1}', {"ok": True, "key": "a", "value": 1}),
     ('{"key": "ä"}'.encode(), {"ok": True, "key": "ä", "value": None})],
)  # fmt: skip
async def test_a_byte_order_mark_before_the_json_is_skipped(client, body, answered):
    """Goal: Windows saves UTF-8 with one; RFC 8259 lets a reader ignore it."""
    response = await client.post("/thing", data=b"\xef\xbb\xbf" + body, headers=JSON)

    assert (response.status, await response.json()) == (200, answered)


async def test_a_refusal_that_repeats_bytes_that_are_no_text_is_a_refusal_still(client):
    """Goal: 415, not 500: what a header holds need not be UTF-8."""
    response = await client.post("/thing", data=b"{}", headers={"Content-Type": "text/\udcff"})

    assert (response.status, (await response.json())["reason"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/", "GET, HEAD, OPTIONS, POST"), ("/thing", "OPTIONS, POST"), ("/thing/read", "GET, HEAD, OPTIONS")],
)
async def test_options_name_the_methods(client, path, allowed):
    """Goal: a load balancer that asks `OPTIONS /` finds a server that works."""
    response = await client.options(path)

    assert (response.status, response.headers["Allow"], (await response.json())["ok"]) == (200, allowed, True)


async def test_options_of_no_route_are_404(client):
    assert (await client.options("/nowhere")).status == 404


async def test_a_body_may_be_announced_with_expect_100_continue(client):
    """Goal: PowerShell and curl wait for `100 Continue` before a body."""
    response = await client.post("/options", data=b'{"wait": 1}', headers=JSON, expect100=True)

    assert response.status == 200


async def test_another_method_names_the_right_one(client):
    """Goal: 405 with the `Allow` header and a sentence."""
    response = await client.get("/thing")

    answer = await response.json()
    assert (response.status, answer["reason"], response.headers["Allow"]) == (405, "method_not_allowed", "POST")
    assert "`POST /thing`" in answer["detail"]


async def test_answers_are_utf_8_json_by_name(client):
    """Goal: Windows PowerShell reads JSON without a charset as Latin-1."""
    response = await client.post("/options")

    assert response.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_known_trouble_carries_its_facts_and_headers(client):
    """Goal: the body holds the facts, the headers `Retry-After`."""
    response = await client.get("/trouble/known")

    answer = {"ok": False, "reason": "overloaded", "detail": "Later.", "waiting": 3}
    assert (response.status, await response.json()) == (429, answer)
    assert response.headers["Retry-After"] == "1"


async def test_trouble_of_a_lower_layer_is_translated(client):
    """Goal: what Raft raises reaches the client as its row of the table."""
    response = await client.get("/trouble/lower")

    assert (response.status, (await response.json())["reason"]) == (504, "outcome_unknown")


async def test_an_unknown_error_shows_no_trace(client, caplog):
    """Goal: 500 `internal`; the details are in the log, not in the answer."""
    response = await client.get("/trouble/unknown")

    text = await response.text()
    assert (response.status, json.loads(text)["reason"]) == (500, "internal")
    assert "secret" not in text
    assert "Zero" not in text


async def test_trouble_that_no_client_waits_for_any_more_is_no_fault_of_the_node(client):
    """Goal: a client that hung up just before its request was refused leaves no error in the log."""
    with capture_logs() as lines, pytest.raises(Exception, match=r"(?i)disconnect"):
        await client.get("/trouble/hung-up")

    assert [line for line in lines if line["log_level"] == "error"] == []


async def test_a_redirect_passes(client):
    """Goal: what aiohttp raises for other ends than errors is left alone."""
    response = await client.get("/trouble/redirect", allow_redirects=False)

    assert (response.status, response.headers["Location"]) == (302, "/thing")


async def test_half_an_answer_is_cut_and_not_completed_by_an_error(client):
    """Goal: a client never reads an error's JSON as the rest of its data."""
    response = await client.get("/trouble/half")

    with pytest.raises(Exception, match=r"(?i)payload|closed|disconnect"):
        assert b"internal" not in await response.read()


async def test_the_guard_comes_before_the_body(client):
    """Goal: who may not ask learns nothing about bodies."""
    response = await client.post("/thing", data=b"no json", headers={**JSON, "X-Stranger": "1"})

    assert (response.status, (await response.json())["reason"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "The parameter `key` is missing"),
        ("key=a&limt=5", "There is no parameter `limt`; did you mean `limit`?"),
        ("key=a&key=b", "`key` is given twice"),
        ("key=a&limit=x", "The parameter `limit` must be a whole number, not a text."),
        ("key=a&limit=101", "The parameter `limit` must be at most 100."),
        ("key=a&limit=" + "9" * 300, "The parameter `limit`"),
        ("key=a&wait=nan", "The parameter `wait` must be a finite number."),
        ("key=a&wait=inf", "The parameter `wait` must be a finite number."),
        ("key=%FF", "not valid UTF-8"),
        ("&".join(f"k{n}=1" for n in range(40)), "over 32 parameters"),
    ],
)
async def test_a_bad_query_is_refused_by_a_sentence_that_names_the_parameter(client, query, named):
    """Goal: the same care for queries as for bodies."""
    response = await client.get(f"/thing/read?{query}")

    answer = await response.json()
    assert (response.status, answer["reason"]) == (400, "bad_request")
    assert named in answer["detail"]


@pytest.mark.parametrize(
    ("query", "key"),
    [("key=a", "a"), ("key=a%20b+c", "a b c"), ("key=%C3%A9", "é"), ("key=", ""), ("key=null", "null"),
     ("key=5&", "5"), ("limit=5&key=a=b", "a=b"), ("key=a%26limit%3D5", "a&limit=5")],
)  # fmt: skip
async def test_a_query_is_decoded_once(client, query, key):
    """Goal: a key comes through as it was meant."""
    response = await client.get(URL(f"/thing/read?{query}", encoded=True))

    assert (response.status, (await response.json())["key"]) == (200, key)


async def raw_exchange(client, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_raw_bytes_in_a_query_are_refused(client):
    """Goal: bytes that are not UTF-8 do not become a key of replacement characters."""
    answer = await raw_exchange(client, b"GET /thing/read?key=\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    assert b" 400 " in answer.partition(b"\r\n")[0]


async def test_a_broken_request_leaves_the_server_up(client):
    """Goal: what is not even HTTP is answered 400 and forgotten."""
    answer = await raw_exchange(client, b"this is no HTTP\r\n\r\n")

    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert (await client.post("/options")).status == 200


@pytest.mark.parametrize("name", ["a", "x" * 256, "é" * 128, "a b", "user:42", "日本", "a\u200bb", "😀"])
def test_names_are_any_text_up_to_256_bytes(name):
    """Goal: names are the clients' own words."""
    assert check_name(name, "key") == name


def labels_counted(metrics: Metrics) -> set[tuple[str, str, str]]:
    return {
        (sample.labels["route"], sample.labels["method"], sample.labels["status"])
        for family in metrics.registry.collect()
        if family.name == "http_request_seconds"
        for sample in family.samples
        if sample.name == "http_request_seconds_count"
    }


async def test_requests_are_counted_by_template_never_by_path():
    """Goal: no client can choose the number of series."""
    metrics = Metrics()
    async with serving(make_app(metrics)) as client:
        for _ in range(3):
            await client.post("/options")
        await client.get("/trouble/unknown")
        await client.get("/trouble/known?key=secret")
        for n in range(5):
            await client.get(f"/nowhere/{n}")
        await client.get("/thing")
        await client.request("PROPFIND", "/thing")

    assert labels_counted(metrics) == {
        ("/options", "POST", "200"),
        ("/trouble/{kind}", "GET", "500"),
        ("/trouble/{kind}", "GET", "429"),
        ("unmatched", "unmatched", "404"),
        ("unmatched", "unmatched", "405"),
    }
    page = generate_latest(metrics.registry).decode()
    assert 'http_request_seconds_count{method="POST",route="/options",status="200"} 3.0\n' in page


async def test_a_client_that_goes_away_is_counted_as_such():
    """Goal: cancelled waits do not look like answers."""
    metrics = Metrics()
    started = asyncio.Event()
    app = make_app(metrics)

    async def wait_for_ever(request):
        started.set()
        await asyncio.Event().wait()

    app.router.add_get("/wait", wait_for_ever)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        _, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(started.wait(), 5)

        writer.close()

        await eventually(lambda: ("/wait", "GET", "499") in labels_counted(metrics))
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_a_closed_connection_is_known_before_the_event_loop_hears_of_it(hangs_up: bool) -> None:
    """Goal: what was decided for a client that is no more can be taken back."""
    seen: list[bool] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(has_hung_up(request))
        if hangs_up:
            raw.close()
        seen.append(has_hung_up(request))
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handle)
    async with serving(app) as client:
        with socket.create_connection((client.server.host, client.server.port)) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await eventually(lambda: len(seen) == 2)

    assert seen == [False, hangs_up]


class Described(msgspec.Struct, forbid_unknown_fields=True):
    """Fields that say what they are: a refusal must look through that."""

    items: Annotated[list[Part] | None, msgspec.Meta(description="some")] = None
    mode: Annotated[Literal["X", "S"], msgspec.Meta(description="of both")] = "X"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b'{"items": [{"kye": "a"}]}', "did you mean `key`?"),
        (b'{"mode": "Q"}', "use `S`, `X`."),
    ],
)
def test_a_field_that_is_described_is_refused_as_well_as_one_that_is_not(text, sentence):
    """Goal: a typo inside of a list, and a word that is none of those there are, are told what would be right."""
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(text, type=Described)

    assert sentence in refusal_of(refused.value, Described, text=text)
