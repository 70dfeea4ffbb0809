"""A real node of the next release, where a file `next` lies beside its data; else of today's.

The next release knows one more version of the log, and an operation whose command came with it. For tests only;
started in the place of `mufakat serve`.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

from msgspec import Struct

from services.lock.operations import lock
from services.operations.answers import Answer
from services.operations.call import Call
from services.operations.operation import post
from services.operations.refusals import LATER, WRITE
from tests.services.releases import NEXT, NextLockMachine, Take


class TakeBody(Struct, forbid_unknown_fields=True):
    key: str


class Taken(Answer):
    """Nobody had it."""

    token: int


async def take(call: Call, body: TakeBody) -> Taken:
    """Take a lock for good."""
    return Taken(token=(await call.replicate(Take(body.key)))["token"])


def upgrade() -> None:
    """Make this process one of the next release, before the table of operations is made."""
    lock.answers("lock.take", post("/lock/take"), refuses=(*WRITE, *LATER), example={"key": "A"})(take)
    from services import app, catalogue

    app.KNOWN = NEXT
    catalogue.SERVICES["lock"] = replace(catalogue.SERVICES["lock"], machine=NextLockMachine)


if __name__ == "__main__":
    if (Path(os.environ["MUFAKAT_DATA_DIR"]).parent / "next").exists():
        upgrade()
    from services.cli.main import main

    sys.exit(main(["serve"]))
