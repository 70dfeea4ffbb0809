"""The commands that inspect and move stored data: `backup`, `restore`, `repair`, `recover`, `wal dump`, `wal verify`.

As in `services.cli.main`, this file only has the names and the arguments of the commands.
"""

import os
import sys
from pathlib import Path

import click

from raft.storage.dump import Found, dump, verify
from services.cluster.backup_files import describe_backup
from services.cluster.backups import abandon_restore, restore_cluster, restore_node, take_backup
from services.cluster.data_folders import found_in, quoted, reading_under
from services.cluster.disk_backup import CAVEAT, back_up_disk
from services.cluster.errors import UsageError
from services.cluster.home import Home
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo
from services.cluster.recovering import recover
from services.cluster.repair import repair_node
from services.cluster.topology import TOPOLOGIES


def _surroundings() -> Surroundings:
    return Surroundings(Home.from_environ(os.environ), os.environ)


@click.command("backup")
@click.option("--group", default="", help="lock, queue or cache; with --data-dir only where it holds several.")
@click.option(
    "--node", "address", default="", metavar="HOST:PORT", help="Whom to ask; else a node of the cluster up here."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Ask nobody: read this data directory, or this folder of a group, whose node does not run.",
)
@click.option("--id", "node", default="", help="With --data-dir: whose it is, where it does not say so itself.")
@click.argument("file", type=click.Path(path_type=Path))
def backup_command(group: str, address: str, data_dir: Path | None, node: str, file: Path) -> None:
    """Write a group's present state to FILE.

    The command replaces FILE only once it has the whole backup and has checked it, and only if FILE is a regular
    file. If tokens are in use, it takes the admin token from MUFAKAT_AUTH_TOKENS.

    With --data-dir it writes the state of one disk, which is not that of the group. It does not change the directory.
    """
    if data_dir is not None:
        if address:
            raise UsageError("--node asks a node that runs, --data-dir reads a disk whose node does not: give one.")
        echo(describe_backup(back_up_disk(data_dir, group, file, node=node)))
        echo(CAVEAT)
        return
    if not group or node:
        raise UsageError("Say which group with `--group`." if not group else "--id goes with --data-dir.")
    echo(describe_backup(take_backup(_surroundings(), group, file, address=address)))


@click.command("restore")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--topology",
    type=click.Choice(list(TOPOLOGIES)),
    default=None,
    envvar="MUFAKAT_TOPOLOGY",
    help="Of the local cluster to restore into; else the one in which it ran last.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Restore into this node's data directory instead; needs --cluster.",
)
@click.option("--cluster", default="", help="The nodes of the group: node1=host:port,...")
@click.option("--life", default="", help="With --data-dir, on all nodes but the first: what that restore named.")
@click.option("--abandon", is_flag=True, help="Give up a restore that was interrupted, and remove what it wrote.")
def restore_command(
    file: Path | None, topology: str | None, data_dir: Path | None, cluster: str, life: str, *, abandon: bool
) -> None:
    """Begin a group again from the backup FILE.

    The cluster must be down and hold nothing of that group. Other groups are left alone. If a restore was
    interrupted, the same command finishes it.
    """
    if abandon:
        if file or data_dir or cluster or life:
            raise UsageError("--abandon stands alone: it gives up the restore that was interrupted.")
        abandon_restore(_surroundings())
        return
    if file is None:
        raise UsageError("Name the FILE to restore from.")
    if bool(data_dir) != bool(cluster) or (life and data_dir is None):
        raise UsageError("--data-dir and --cluster go together, and --life with both.")
    if data_dir is None:
        restore_cluster(_surroundings(), file, topology or "")
    else:
        restore_node(file, data_dir, cluster, life=life)


@click.command("repair")
@click.argument("node")
def repair_command(node: str) -> None:
    """Heal NODE, whose data is damaged; the other nodes send it theirs.

    The data that it refuses to use is put aside, not deleted, and the node joins those groups again. A majority of
    each must be sound without it.
    """
    repair_node(_surroundings(), node)


@click.command("recover")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--group", default="", help="lock, queue or cache; else all that DIR holds.")
@click.option("--id", "node", default="", help="Whose disk it is, where that cannot be told from DIR.")
@click.option("--yes", is_flag=True, help="Go on without being asked.")
def recover_command(directory: Path, group: str, node: str, *, yes: bool) -> None:
    """Make a group of one node from DIR, when a majority of the group's disks is lost for ever.

    DIR is a node's data directory or a group's folder, and its node does not run. What only the other disks hold is
    lost. The old folder is kept beside the new one.
    """
    recover(directory, group, node=node, agree=lambda: yes or _agrees())


def _agrees() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("Nothing was changed, because nobody can be asked here. `--yes` goes on without asking.")
    return click.confirm("Go on?", default=False)


@click.group("wal")
def wal_group() -> None:
    """Look into data directories; this changes nothing."""


_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


def _note_beside(found: Found) -> None:
    if found.beside:
        echo(f"note: not looked at, because no node opens it: {quoted(found.beside)}")


@wal_group.command("dump")
@click.argument("directory", type=_DIRECTORY)
def dump_command(directory: Path) -> None:
    """Print every record in DIRECTORY: a group's data, or a node's with one folder for each group."""
    with reading_under(directory):
        found = found_in(directory)
        for each in found.groups:
            echo(f"{each}:")
            for line in dump(each):
                echo(line)
    _note_beside(found)


@wal_group.command("verify")
@click.argument("directory", type=_DIRECTORY)
def verify_command(directory: Path) -> None:
    """Check everything in DIRECTORY as a node does on its start; the exit code is 1 if the node would refuse.

    To check a folder that a repair or a recovery has put aside, name that folder itself.
    """
    with reading_under(directory):
        found = found_in(directory)
        verifications = [verify(each) for each in found.groups]
    for verification in verifications:
        echo(str(verification))
    _note_beside(found)
    sys.exit(0 if all(verification.ok for verification in verifications) else 1)


COMMANDS = (backup_command, restore_command, repair_command, recover_command, wal_group)
