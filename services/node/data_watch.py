"""What a node says of its data directory: what a start found out of order, how much room is left, that it is gone."""

from pathlib import Path

from common.disk_space import DiskSpace, watch_disk
from common.logs import get_logger
from common.metrics import Metrics
from raft.storage import Recovered
from raft.storage.files import Files
from raft.storage.snapshots import DAMAGED_SUFFIX
from services.node.host import Host

logger = get_logger("services.node.data_watch")


def tell_recovered(
    group: str, directory: Path, recovered: Recovered, metrics: Metrics, *, files: Files
) -> None:
    """Log what a start found out of order and could do without."""
    if recovered.damaged_snapshot:
        aside = directory / (recovered.damaged_snapshot + DAMAGED_SUFFIX)
        is_there = aside.name in files.names(directory)
        metrics.mufakat_data_put_aside_total.labels(group).add(int(is_there))
        logger.warning(
            "the newest snapshot is damaged or gone; an older one and the log stand in for it",
            group=group,
            snapshot=str(directory / recovered.damaged_snapshot),
            put_aside=str(aside) if is_there else None,
        )
    if recovered.cut_bytes:
        logger.warning("cut a torn last write", group=group, bytes=recovered.cut_bytes)


async def watch_data(here: Host) -> None:
    """For ever: know the room on the disk, and let no group go on once a directory was deleted. What is acknowledged
    from then on would be gone at the next start."""

    def tell(space: DiskSpace | None) -> None:
        here.disk_space = space

    def on_missing(error: OSError) -> None:
        for node in here.nodes.values():
            node.fail(error)

    data_dir = Path(here.settings.data_dir)
    directories = [data_dir, *(data_dir / group for group in here.nodes)]
    outside = here.outside
    await watch_disk(
        directories, tell=tell, on_missing=on_missing, look=outside.look_at_disk, threads=outside.threads
    )
