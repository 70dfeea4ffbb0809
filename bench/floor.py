"""The floor: a bare aiohttp POST handler that reads a JSON body and answers a JSON object, and nothing else.

    python -m bench.floor PORT
"""

import asyncio
import json
import sys

from aiohttp import web

from common.runtime import run


async def answer(request: web.Request) -> web.Response:
    body = json.loads(await request.read())
    return web.json_response({"ok": True, "key": body["key"]})


async def serve(port: int) -> int:
    app = web.Application()
    app.router.add_post("/answer", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("serving", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(run(serve(int(sys.argv[1]))))
