"""The floor of a cache hit: bare aiohttp handlers that answer fixed bytes and do nothing else.

    python -m bench.cache_floor PORT

GET /read answers as `GET /cache/read` does, POST /get, which reads its body, as `POST /cache/get`. `READ` and `GET`
are the very bytes.
"""

import asyncio
import sys

from aiohttp import web

from common.runtime import run

READ = b'{"ok":true,"value":{"state":"S","value":{"name":"Arya","score":99},"version":1000}}'
GET = b'{"ok":true,"hit":true,"val":{"name":"Arya","score":99},"state":"S","version":1000,"source":"local"}'
HEADERS = {"Content-Type": "application/json; charset=utf-8"}


async def read(request: web.Request) -> web.Response:
    return web.Response(body=READ, headers=HEADERS)


async def get(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=GET, headers=HEADERS)


async def serve(port: int) -> int:
    app = web.Application()
    app.router.add_get("/read", read)
    app.router.add_post("/get", get)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("serving", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(run(serve(int(sys.argv[1]))))
