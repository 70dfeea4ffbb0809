"""What an operator asks of one node: a backup of a group, the hash of its state, to put damaged data aside.

    GET  /admin/backup?group=lock   the group's state as a backup file (raft/storage/backup.py)
    GET  /admin/hash?group=lock     applied index and a hash of the state, to compare nodes by
    POST /admin/repair              {"group"}: move aside what this node refuses to use

All need the role `admin`. The rule of the file: whatever goes through a whole state does so in slices, from a copy,
so that heartbeats and clients never wait for it.
"""

import asyncio
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import hdrs, web

from common.logs import get_logger
from common.web import bad_request, json_response, read_body, read_query
from raft.core.types import SnapshotMeta
from raft.node import RaftNode
from raft.slices import in_slices
from raft.storage.backup import BackupEncoder, BackupHead
from raft.storage.beside import DAMAGED_SUFFIX, put_aside
from services.http.guard import check_own_page
from services.node.failures import describe
from services.node.host import Host, host
from services.operations.call import group_node
from services.operations.refusals import api_error
from services.version import VERSION

#: A client that takes no bytes of its backup for so long is given up: the copy costs memory.
BACKUP_STALL_SECONDS_MAX = 30.0
#: Copies of states that may be read at one time at this node, by backups and hashes together.
COPIES_MAX = 4
BACKUP_CONTENT_TYPE = "application/vnd.mufakat.backup"
#: Bytes of the hash of a state.
HASH_BYTES = 16

logger = get_logger("services.node.maintenance")


class GroupQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which group; may be left out where the node hosts one only."""

    group: str | None = None


def routes() -> list[web.RouteDef]:
    """The routes of every node, whatever groups it hosts."""
    copies = asyncio.Semaphore(COPIES_MAX)

    async def backup(request: web.Request) -> web.StreamResponse:
        """The group's state as of now, linearizable: everything acknowledged before this request is in it."""
        check_own_page(request)
        group, node = _asked(request, read_query(request, GroupQuery).group)
        if copies.locked():
            raise api_error("overloaded", "Other backups are being taken at this node; wait for them to end.")
        async with copies:
            return await _stream_backup(request, group, node)

    async def state_hash(request: web.Request) -> web.Response:
        """Nodes of one group that have applied the same entries answer with the same hash."""
        check_own_page(request)
        group, node = _asked(request, read_query(request, GroupQuery).group)
        if copies.locked():
            raise api_error("overloaded", "Other states are being read at this node; wait for them to end.")
        async with copies:
            meta, chunks = _copy(node)
            digest = await hash_of(chunks)
        return json_response(
            {"ok": True, "node": host(request).node_id, "group": group, "applied_index": meta.index, "hash": digest}
        )

    return [
        # No HEAD: it would copy a whole state, to say nothing of it.
        web.get("/admin/backup", backup, allow_head=False),
        web.get("/admin/hash", state_hash, allow_head=False),
        web.post("/admin/repair", repair),
    ]


async def hash_of(chunks: Iterator[bytes]) -> str:
    """A hash of the bytes of a snapshot, in hexadecimal. Drains `chunks` in slices."""
    digest = blake2b(digest_size=HASH_BYTES)
    async for chunk in in_slices(chunks):
        digest.update(chunk)
    return digest.hexdigest()


async def repair(request: web.Request) -> web.Response:
    """Put aside the data that this node refuses to use; started again, it holds nothing of the group."""
    here = host(request)
    group = (await read_body(request, GroupQuery)).group
    refused = [name for name in here.refused if group in (None, name)]
    if not refused:
        raise bad_request("Nothing is damaged here" + (f" in the group `{group}`." if group else "."))
    moved = {}
    for name in refused:
        directory = here.refused[name].directory
        try:
            moved[name] = str(await asyncio.to_thread(_aside, directory))
        except OSError as error:
            raise api_error("storage_failed", f"The damaged data cannot be put aside: {describe(error)}.") from error
        here.metrics.mufakat_data_put_aside_total.labels(name).add()
        logger.warning("damaged data was put aside", group=name, directory=str(directory), now=moved[name])
    return json_response({"ok": True, "node": here.node_id, "put_aside": moved})


def _aside(directory: Path) -> Path:
    """Put a group's directory aside, or say where it is: whoever heard no answer asks again."""
    if not directory.exists():
        return max(directory.parent.glob(f"{directory.name}{DAMAGED_SUFFIX}*"), default=directory)
    return put_aside(directory, DAMAGED_SUFFIX)


def _asked(request: web.Request, group: str | None) -> tuple[str, RaftNode]:
    """The group that a request is about, and its replica here."""
    here = host(request)
    hosted = here.settings.groups
    if group is None and len(hosted) == 1:
        group = hosted[0]
    if group not in hosted:
        raise bad_request(f"`group` must be one of {', '.join(hosted)}.")
    return group, group_node(request, group)


def _copy(node: RaftNode) -> tuple[SnapshotMeta, Iterator[bytes]]:
    copied = node.snapshotter.copy()
    if copied is None:
        raise api_error("not_ready", "This node is being brought up to date; ask again shortly or ask another one.")
    return copied


async def _stream_backup(request: web.Request, group: str, node: RaftNode) -> web.StreamResponse:
    await node.read_index()
    meta, chunks = _copy(node)
    encoder = BackupEncoder(_head(host(request), group), meta)
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: BACKUP_CONTENT_TYPE,
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{group}-{meta.index}.backup"',
        }
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    await _send(response, encoder.begin())
    async for chunk in in_slices(chunks):
        await _send(response, encoder.chunk(chunk))
    await _send(response, encoder.end())
    await response.write_eof()
    logger.info("backup taken", group=group, index=meta.index)
    return response


async def _send(response: web.StreamResponse, data: bytes) -> Any:
    return await asyncio.wait_for(response.write(data), BACKUP_STALL_SECONDS_MAX)


def _head(here: Host, group: str) -> BackupHead:
    return BackupHead(time.time_ns() // 1_000_000, group, here.node_id, VERSION, here.cluster.id)
