"""Wires a node: the only place that knows every concrete class.

    create_app(settings)       the client application; its start-up brings up the groups and the peer listener
    serve(settings, outside)   that, served until it is told to stop or meets a fatal error
    run_node(settings)         that in a process of its own, until SIGTERM or SIGINT; what `mufakat serve` runs

What a node takes from outside (clocks, chance, files, threads) comes to all parts from one `Outside`; a simulation
calls `serve` with its own, on a loop of its own. A stopping node first hands leadership over and answers whoever
waits, then closes its listeners.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiohttp import web

from common.config import Settings, load_settings
from common.descriptors import Shares
from common.listener import ListenerRunner
from common.logs import configure_logs, get_logger
from common.metrics import RPC_OPERATIONS, Metrics
from common.runtime import Tasks, freeze_garbage, garbage_at_rest, measure_loop_lag, on_stop_signals
from raft.admission import Admission, is_empty
from raft.cluster_id import ClusterId
from raft.core.config import CoreConfig
from raft.disk import DiskQueue
from raft.node import RaftNode
from raft.status import NodeConfig
from raft.storage import DataDirectoryGone, StorageError, UnknownFormat, open_storage
from raft.storage.cluster import check_cluster, keep_cluster
from raft.storage.incarnation import keep_life, kept_life, take_incarnation
from raft.transport.admission_client import AdmissionClient
from raft.transport.http import HttpTransport
from raft.transport.identity import Identity
from raft.transport.peers import Peers
from raft.transport.routes import PeerListener
from raft.transport.silence import SILENCE_MS
from services.catalogue import OPERATIONS, SERVICES
from services.http.application import application
from services.http.guard import Guard
from services.http.listeners import client_runner, listen, peer_runner, share_descriptors
from services.http.routes import HOST
from services.node import about
from services.node.damaged import DAMAGE_ERRORS, DamagedGroup, GroupNodes
from services.node.data_watch import tell_recovered, watch_data
from services.node.ended import advice_for, describe
from services.node.host import Host
from services.node.limits import watch_limits
from services.node.outside import SYSTEM, Outside
from services.node.process_file import ProcessFile, take_process
from services.node.versions import attach_versions, keep_raised, watch_versions
from services.replicated.machine import ReplicatedMachine
from services.replicated.versions import KNOWN, UnknownCommand, check_entries

#: How long requests under way may take to end once the node stops.
SHUTDOWN_TIMEOUT_S = 3.0
#: What may be asked on a connection beyond those that there may be: an operator must see why a node is full.
SPARE_PATHS = OPERATIONS.paths("public") | {"/metrics"}
#: How often the node sees that its data directory is still there.
DIRECTORY_LOOK_SECONDS = 0.5
#: The node's background tasks; their `failed` is done with the error once the node must not go on.
TASKS: web.AppKey[Tasks] = web.AppKey("tasks", Tasks)
#: Who gets how many of the descriptors that the node may have.
SHARES: web.AppKey[Shares] = web.AppKey("shares", Shares)

OnFatal = Callable[[BaseException], None]
#: Tasks that run beside a node as long as it does, by name: each is made with what it tells of an error that the node
#: must not survive.
Beside = Mapping[str, Callable[[OnFatal], Coroutine[Any, Any, None]]]

logger = get_logger("services.app")


def create_app(settings: Settings | None = None, outside: Outside = SYSTEM) -> web.Application:
    """The application of one node for its clients. `adev runserver` calls it without settings: they then come
    from the environment.

    Raises:
        SettingsError: a variable is wrong.
    """
    settings = settings or load_settings(os.environ)
    boot = outside.random.randbytes(8).hex()
    here = Host(settings=settings, metrics=Metrics(), boot=boot, nodes={}, outside=outside)
    app = application(here, OPERATIONS)
    app[SHARES] = share_descriptors(settings, outside.open_files_max())
    app.cleanup_ctx.append(_groups)
    app.on_shutdown.append(_stop_nodes)
    return app


async def run_node(settings: Settings, *, process_lock: str = "") -> int:
    """Serve until told to stop; returns the exit code: 0 after SIGTERM or SIGINT, 1 after a fatal error.

    Args:
        process_lock: the lock on the data directory that the starter took for this process
        (`services.node.process_file`).
    """
    try:
        _configure_logs(settings, file=settings.log_file)
    except OSError as error:
        _configure_logs(settings, file="")
        logger.critical(
            "ended: the log file cannot be written",
            error=describe(error),
            advice="name a file in a folder that is there and that this node may write (MUFAKAT_LOG_FILE), or none",
        )
        return 1
    stop = asyncio.Event()
    on_stop_signals(stop.set)
    failure: BaseException | None
    try:
        process = take_process(settings.data_dir, process_lock)
        process.note(settings.node_id)
        failure = await _run(settings, process, stop)
        if failure is None:
            process.leave()
    except (StorageError, OSError) as error:
        failure = error
    if failure is None:
        return 0
    # The last line of the log: whoever looks why the node is gone looks there first.
    logger.critical("ended, because going on was not safe", error=describe(failure), advice=advice_for(failure))
    return 1


async def _run(settings: Settings, process: ProcessFile, stop: asyncio.Event) -> BaseException | None:
    """Serve in this process; returns and raises as `serve`."""
    with contextlib.ExitStack() as start:
        start.enter_context(garbage_at_rest())

        def on_serving() -> None:
            start.close()
            freeze_garbage()

        beside: Beside = {"watch the data directory": partial(_watch_directory, process)}
        return await serve(settings, SYSTEM, stop, beside=beside, on_serving=on_serving)


async def _watch_directory(process: ProcessFile, on_fatal: OnFatal) -> None:
    """Let the node end once its data directory is another one than this process holds: what it would write goes
    nowhere, and a second process could run on the new one under the same id."""
    while await asyncio.to_thread(process.is_in_place):  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(DIRECTORY_LOOK_SECONDS)
    on_fatal(DataDirectoryGone(f"data directory {process.path.parent} was deleted or replaced while the node ran"))


def _configure_logs(settings: Settings, *, file: str) -> None:
    configure_logs(
        level=settings.log_level,
        format=settings.log_format,
        file=file,
        file_bytes_max=settings.log_file_bytes_max,
        node=settings.node_id,
    )


async def serve(
    settings: Settings,
    outside: Outside,
    stop: asyncio.Event,
    *,
    beside: Beside = MappingProxyType({}),
    on_made: Callable[[Host], None] = lambda here: None,
    on_serving: Callable[[], None] = lambda: None,
) -> BaseException | None:
    """All that a node does, from its start until everything of it is closed: serve until `stop`. Returns the error
    that the node must not survive, also one that it met while it stopped, or None. What belongs to the process is the
    caller's: its lock, its signals, its logs, its garbage.

    Args:
        beside: what runs from the moment that the groups are up.
        on_made: told of the node as its operations see it, before anything of it runs.
        on_serving: called once clients are let in.

    Raises:
        StorageError, OSError: it cannot be started.
    """
    app = create_app(settings, outside)
    on_made(app[HOST])
    runner = client_runner(app, app[SHARES], spare_paths=SPARE_PATHS, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    try:
        await runner.setup()
        _put_in_front(app, runner)
        tasks = app[TASKS]
        for name, work in beside.items():
            tasks.start(name, work(tasks.fail))
        await listen(runner, settings.listen_host, settings.client_port, backlog=app[SHARES].backlog)
        on_serving()
        logger.info("serving", address=f"{settings.listen_host}:{settings.client_port}", groups=settings.groups)
        failure = await _until(stop, tasks.failed)
    finally:
        await runner.cleanup()
    return tasks.failed.result() if failure is None and tasks.failed.done() else failure


async def _until(stop: asyncio.Event, failed: asyncio.Future[BaseException]) -> BaseException | None:
    """Wait for one of the two; returns the error that the node must not survive, or None."""
    stopping = asyncio.create_task(stop.wait(), name="wait for a signal")
    either: set[asyncio.Future[Any]] = {stopping, failed}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if failed.done():
        logger.error("stopping after a fatal error", error=describe(failed.result()))
        return failed.result()
    logger.info("stopping")
    return None


def _put_in_front(app: web.Application, runner: web.AppRunner) -> None:
    """Let the services on this node that have a shorter way than routing and middleware answer first. With tokens in
    use every request goes the ordinary way: whose it is depends on its route."""
    here = app[HOST]
    if here.settings.auth_tokens:
        return
    server, guard = runner.server, Guard(here.settings, OPERATIONS)
    assert server is not None, "it is set up"
    for group in here.nodes:
        in_front = SERVICES[group].in_front
        if group in here.settings.groups and in_front is not None:
            server.request_handler = in_front(here, guard, server.request_handler)


async def _groups(app: web.Application) -> AsyncIterator[None]:
    """Bring up this node's groups and its peer listener; take them down in the order that loses nothing."""
    here = app[HOST]
    settings = here.settings
    tasks = app[TASKS] = Tasks()
    nodes = GroupNodes(here.damaged)
    incarnations: dict[str, str] = {}
    here.cluster = await _cluster(here)
    peers = _peers(here, nodes, incarnations, tasks.fail)
    for group in settings.groups:
        try:
            nodes[group], incarnations[group] = await _open_node(here, group, peers, tasks.fail)
        except DAMAGE_ERRORS as error:
            directory = Path(settings.data_dir) / group
            damage = here.damaged[group] = DamagedGroup.of(group, here.node_id, directory, error)
            logger.critical(
                "data is damaged: this node takes no part in the group",
                group=group,
                problem=damage.problem,
                advice=damage.advice,
            )
    # After the groups' directories are locked: a second process on them must not write here.
    await here.cluster.maybe_keep()
    here.nodes = nodes
    about.watch_host(here)
    about.watch_nodes(here.metrics, nodes)
    about.watch_idempotency(here.metrics, nodes)
    watch_limits(here.metrics, nodes)
    watch_versions(here.metrics, nodes)
    listener = await _listen_to_peers(app, nodes, peers)
    for group, node in nodes.items():
        attach_versions(node, partial(peers.known_by, group))
        SERVICES[group].attach(here, node)
    peers.start()
    admission_client = AdmissionClient(peers.identity)
    for group, node in nodes.items():
        node.start()
        admission = _admission(here, node, incarnations[group], admission_client, peers)
        tasks.start(f"admission to {group}", admission.run())
        tasks.start(f"version of {group}", keep_raised(node))
    for group, node in nodes.items():
        chore = SERVICES[group].chore
        if chore is not None:
            tasks.start(f"chore of {group}", chore(here, node))
    tasks.start("keep the cluster's id", here.cluster.keep_learned())
    tasks.start("measure loop lag", measure_loop_lag(here.metrics.event_loop_lag_seconds.observe))
    tasks.start("watch the disk", watch_data(here))
    yield
    await tasks.stop()
    await here.background.stop()
    await _stop_nodes(app)
    await peers.close()
    await admission_client.close()
    await listener.cleanup()


async def _stop_nodes(app: web.Application) -> None:
    await asyncio.gather(*(node.stop() for node in app[HOST].nodes.values()))


async def _cluster(here: Host) -> ClusterId:
    """Which cluster the settings or the data directory say that this node is of.

    Raises:
        WrongCluster: they differ.
        OSError: the disk does not do as asked.
    """
    directory, files = Path(here.settings.data_dir), here.outside.files
    id, kept = await asyncio.to_thread(check_cluster, directory, here.settings.cluster_id, files=files)
    return ClusterId(id, is_kept=bool(kept), keep=partial(keep_cluster, directory, files=files))


def _peers(
    here: Host, nodes: Mapping[str, RaftNode], incarnations: Mapping[str, str], on_fatal: OnFatal
) -> Peers:
    settings = here.settings
    observers = {op: here.metrics.rpc_latency_seconds.labels(op).observe for op in RPC_OPERATIONS}
    return Peers(
        Identity(
            settings.node_id,
            settings.address_of(settings.node_id),
            settings.cluster_secret,
            incarnations,
            lives=lambda: {group: node.life for group, node in nodes.items()},
            cluster=here.cluster,
            known=KNOWN,
        ),
        nodes,
        {node_id: settings.address_of(node_id) for node_id in settings.cluster},
        observe_rpc=lambda op, seconds: observers[op](seconds),
        on_failure=on_fatal,
        silence_ms=max(SILENCE_MS, settings.election_timeout_max_ms),
    )


def _admission(
    here: Host, node: RaftNode, incarnation: str, client: AdmissionClient, peers: Peers
) -> Admission:
    settings, outside = here.settings, here.outside
    return Admission(
        node,
        incarnation=incarnation,
        address=settings.address_of(settings.node_id),
        founders={node_id: settings.address_of(node_id) for node_id in settings.cluster},
        joins=settings.join,
        ask=partial(client.ask, node.group),
        knows_lives=peers.knows_lives,
        keep_life=partial(keep_life, Path(settings.data_dir) / node.group, files=outside.files),
        wall_us=outside.wall_us,
        random=outside.random,
    )


async def _open_node(here: Host, group: str, peers: Peers, on_fatal: OnFatal) -> tuple[RaftNode, str]:
    """Recover one group's data and make its node; with it, the incarnation of its data directory.

    Raises:
        CorruptStorage: it is damaged.
        UnknownFormat: a newer release wrote it.
    """
    loop = asyncio.get_running_loop()
    settings, metrics, outside = here.settings, here.metrics, here.outside
    files, random = outside.files, outside.random
    directory = Path(settings.data_dir) / group
    storage, recovered = await loop.run_in_executor(
        None,
        lambda: open_storage(directory, segment_bytes=settings.wal_segment_bytes, files=files, random=random),
    )
    machine = ReplicatedMachine(SERVICES[group].machine, KNOWN)
    loaded = storage.load_snapshot()
    try:
        incarnation = take_incarnation(directory, fresh=recovered.fresh, files=files, random=random)
        life = kept_life(directory, fresh=recovered.fresh, files=files)
        if loaded is not None:
            await loop.run_in_executor(None, machine.restore, loaded[1])
        check_entries(recovered.entries, KNOWN)
    except UnknownCommand as error:
        storage.close(seal=False)
        raise UnknownFormat(f"{directory}: {error}") from error
    except BaseException:
        storage.close(seal=False)
        raise
    tell_recovered(group, directory, recovered, metrics, files=files)
    disk = DiskQueue(
        storage,
        on_fatal=lambda error: node.fail(error),
        on_full=lambda full: node.disk_full(full),
        on_batch=metrics.raft_fsync_seconds.labels(group).observe,
        threads=outside.threads,
    )
    node = RaftNode(
        _node_config(settings, group),
        machine=machine,
        storage=storage,
        disk=disk,
        recovered=recovered,
        transport=HttpTransport(group, peers.links),
        clock_ms=outside.clock_ms,
        on_fatal=on_fatal,
        observe_propose_seconds=metrics.raft_propose_seconds.labels(group).observe,
        admitted=not is_empty(recovered),
        incarnation=incarnation,
        life=life,
        random=random,
    )
    return node, incarnation


def _node_config(settings: Settings, group: str) -> NodeConfig:
    return NodeConfig(
        group=group,
        core=CoreConfig(
            id=settings.node_id,
            heartbeat_ms=settings.heartbeat_ms,
            election_timeout_min_ms=settings.election_timeout_min_ms,
            election_timeout_max_ms=settings.election_timeout_max_ms,
            lease_ms=settings.cache_lease_ms if SERVICES[group].has_leases else 0,
            lease_drift_percent=settings.cache_lease_drift_percent,
            # What is behind a snapshot when it begins to be sent may be as much as leads to the next one.
            catch_up_bytes_max=max(settings.catch_up_bytes_max, 2 * settings.snapshot_bytes),
        ),
        voters=() if settings.join else tuple(sorted(settings.cluster)),
        addresses={node_id: settings.address_of(node_id) for node_id in settings.cluster},
        leader_wait_ms=settings.leader_wait_ms,
        request_timeout_ms=settings.request_timeout_ms,
        proposals_max=settings.proposals_max,
        proposals_bytes_max=settings.proposals_bytes_max,
        snapshot_entries=settings.snapshot_entries,
        snapshot_bytes=settings.snapshot_bytes,
        snapshot_retain_bytes_max=settings.log_retained_bytes_max,
    )


async def _listen_to_peers(
    app: web.Application, nodes: Mapping[str, RaftNode], peers: Peers
) -> ListenerRunner:
    """Serve the other nodes; without a secret there can be none."""
    settings = app[HOST].settings
    shares = app[SHARES]
    listener = PeerListener(nodes, peers, settings.cluster_secret)
    runner = peer_runner(app, listener.application(), shares, shutdown_timeout=0.1)
    await runner.setup()
    if settings.cluster_secret:
        await listen(runner, settings.peer_listen_host, settings.peer_port, backlog=shares.backlog)
    return runner
