"""What an operator asks of one node: a backup of a group, the hash of its state, to put damaged data aside.

The rule of the file: whatever goes through a whole state does so in slices, from a copy, so that heartbeats and
clients never wait for it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from hashlib import blake2b
from pathlib import Path

from common.api_error import bad_request
from common.logs import get_logger
from raft.core.types import SnapshotMeta
from raft.node import RaftNode
from raft.slices import in_slices
from raft.storage.backup import BackupEncoder, BackupHead
from raft.storage.beside import DAMAGED_SUFFIX, put_aside
from services.node.ended import describe
from services.node.groups import GroupQuery, OneGroup, the_group
from services.node.host import Host
from services.node.outside import Outside
from services.operations.answers import Answer
from services.operations.call import Call
from services.operations.operation import File, Operations, get, post
from services.operations.refusals import READ, refused
from services.version import VERSION

#: Copies of states that may be read at one time at this node, by backups and hashes together.
COPIES_MAX = 4
BACKUP_CONTENT_TYPE = "application/vnd.mufakat.backup"
#: Bytes of the hash of a state.
HASH_BYTES = 16

logger = get_logger("services.node.maintenance")
operations = Operations()


class Copies:
    """The copies of states that are being read at one node."""

    def __init__(self) -> None:
        self.semaphore = asyncio.Semaphore(COPIES_MAX)


class StateHash(Answer, kw_only=True):
    """Equal on all nodes of the group at the same index."""

    node: str
    group: str
    applied_index: int
    hash: str


class PutAside(Answer, kw_only=True):
    """`put_aside` says, by group, where it is now."""

    node: str
    put_aside: dict[str, str]


@operations.file(
    "admin.backup", get("/admin/backup"), refuses=(*READ, "not_ready"), right="admin", example={"group": "lock"}
)
async def backup(call: Call, body: OneGroup) -> AsyncIterator[File | bytes]:
    """Take a backup of a group's state as of now: everything acknowledged before is in it."""
    call.check_own_hand()
    group = the_group(call, body.group)
    copies = _copies(call.host)
    if copies.locked():
        raise refused("overloaded", "Other backups are being taken at this node; wait for them to end.")
    async with copies:
        node = call.node(group)
        await node.read_index()
        meta, chunks = _copy(node)
        encoder = BackupEncoder(_head(call.host, group), meta)
        yield File(f"{group}-{meta.index}.backup", BACKUP_CONTENT_TYPE)
        yield encoder.begin()
        async for chunk in in_slices(chunks):
            yield encoder.chunk(chunk)
        yield encoder.end()
    logger.info("backup taken", group=group, index=meta.index)


@operations.answers(
    "admin.hash",
    get("/admin/hash"),
    refuses=("not_ready", "storage_failed"),
    right="admin",
    # No HEAD: it would copy a whole state, to say nothing of it.
    has_head=False,
    example={"group": "lock"},
)
async def state_hash(call: Call, body: OneGroup) -> StateHash:
    """Hash this node's state of a group, to compare nodes by."""
    call.check_own_hand()
    group = the_group(call, body.group)
    copies = _copies(call.host)
    if copies.locked():
        raise refused("overloaded", "Other states are being read at this node; wait for them to end.")
    async with copies:
        meta, chunks = _copy(call.node(group))
        digest = await hash_of(chunks)
    return StateHash(node=call.host.node_id, group=group, applied_index=meta.index, hash=digest)


@operations.answers(
    "admin.repair", post("/admin/repair"), refuses=("storage_failed",), right="admin", example={"group": "lock"}
)
async def repair(call: Call, body: GroupQuery) -> PutAside:
    """Put aside the data that this node refuses to use.

    Started again, it holds nothing of the group. `mufakat repair` does the rest.
    """
    here, group = call.host, body.group
    damaged = [name for name in here.damaged if group in (None, name)]
    if not damaged:
        raise bad_request("Nothing is damaged here" + (f" in the group `{group}`." if group else "."))
    moved = {}
    for name in damaged:
        directory = here.damaged[name].directory
        try:
            moved[name] = str(await asyncio.to_thread(_aside, here.outside, directory))
        except OSError as error:
            raise refused("storage_failed", f"The damaged data cannot be put aside: {describe(error)}.") from error
        here.metrics.mufakat_data_put_aside_total.labels(name).add()
        logger.warning("damaged data was put aside", group=name, directory=str(directory), now=moved[name])
    return PutAside(node=here.node_id, put_aside=moved)


async def hash_of(chunks: Iterator[bytes]) -> str:
    """A hash of the bytes of a snapshot, in hexadecimal. Drains `chunks` in slices."""
    digest = blake2b(digest_size=HASH_BYTES)
    async for chunk in in_slices(chunks):
        digest.update(chunk)
    return digest.hexdigest()


def _aside(outside: Outside, directory: Path) -> Path:
    """Put a group's directory aside, or say where it is: whoever heard no answer asks again."""
    names = outside.files.names(directory.parent)
    if directory.name not in names:
        asides = [name for name in names if name.startswith(directory.name + DAMAGED_SUFFIX)]
        return directory.with_name(max(asides, default=directory.name))
    return put_aside(directory, DAMAGED_SUFFIX, files=outside.files, wall_us=outside.wall_us)


def _copies(here: Host) -> asyncio.Semaphore:
    copies: Copies = here.parts.setdefault(Copies, Copies())
    return copies.semaphore


def _copy(node: RaftNode) -> tuple[SnapshotMeta, Iterator[bytes]]:
    copied = node.snapshotter.copy()
    if copied is None:
        raise refused("not_ready", "This node is being brought up to date; ask again shortly or ask another one.")
    return copied


def _head(here: Host, group: str) -> BackupHead:
    return BackupHead(here.outside.wall_us() // 1_000, group, here.node_id, VERSION, here.cluster.id)
