"""The `mufakat` command: `serve` runs one node, the others run and manage a cluster on this machine.

This file only has the names and the arguments of the commands; what they do is in `services.cluster`. Exit codes: 0
done, 1 tried and failed, 2 wrong arguments, 3 something is in the way, 4 no cluster is up
(`services/cluster/errors.py`).
"""

import os
import shlex
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from common.config import SETTINGS, Setting, SettingsError, load_settings
from raft.storage.errors import StorageError
from services.cli import config as cli_config
from services.cli import members as cli_members
from services.cli import storage as cli_storage
from services.cluster.errors import ClusterError, UsageError, in_words
from services.cluster.home import DOWN, Home
from services.cluster.lifecycle import Request, Surroundings, down, summary, up
from services.cluster.log_view import LogView, wants_colours
from services.cluster.nodes import kill_leader, kill_nodes, start_nodes, stop_nodes
from services.cluster.printing import echo
from services.cluster.status import cluster_status, status_json, status_text
from services.cluster.topology import TOPOLOGIES
from services.node.process_file import INHERITED_VARIABLE

#: How often `status --watch` looks.
WATCH_SECONDS = 2.0

#: How many lines of each node `logs` shows by default.
LOG_LINES_DEFAULT = 20


class Commands(click.Group):
    """Turns what the commands raise into one sentence on stderr and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except ClusterError as error:
            # Advice names the program as it was called, so that it can be copied.
            click.echo(str(error).replace("`mufakat ", f"`{_program()} "), err=True)
            context.exit(error.exit_code)
        except BrokenPipeError:
            # The reader of our output has gone; we have nothing more to say, and the interpreter must not try to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(1)
        except StorageError as error:
            click.echo(f"{error}.", err=True)
            context.exit(ClusterError.exit_code)
        except OSError as error:
            click.echo(in_words(error), err=True)
            context.exit(ClusterError.exit_code)
        except KeyboardInterrupt:
            context.exit(130)


def _program() -> str:
    """How to call this program again from here, quoted for a shell."""
    called = sys.argv[0]
    if os.path.basename(called) != "mufakat":
        return "mufakat"
    return shlex.quote(min(called, os.path.relpath(called), key=len))


def _surroundings() -> Surroundings:
    return Surroundings(Home.from_environ(os.environ), os.environ, program=_program())


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mufakat-server")
def main() -> None:
    """Locks, queues and a coherent cache over HTTP, replicated by Raft."""


def _flags_of_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for each setting; settings without a flag come from the environment."""
    for setting in reversed(SETTINGS):
        flag = f"--{setting.field.replace('_', '-')}"
        command = click.option(flag, setting.field, metavar="VALUE", help=_help_of(setting))(command)
    return command


def _help_of(setting: Setting) -> str:
    default = setting.default
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{setting.doc} [{setting.variable}{f'; default: {shown}' if shown or shown == 0 else ''}]"


@main.command("serve")
@_flags_of_settings
def serve_command(**flags: str | None) -> None:
    """Run one node until SIGTERM or SIGINT.

    Each flag can be given as an environment variable instead, which keeps secrets out of the process list.
    """
    try:
        settings = load_settings(os.environ, flags)
    except SettingsError as error:
        raise UsageError(str(error)) from error
    # Imported here: the other commands start fast because they do not import what only a node needs.
    from common.runtime import run
    from services.app import run_node

    sys.exit(run(run_node(settings, process_lock=os.environ.pop(INHERITED_VARIABLE, ""))))


@main.command("up")
@click.option(
    "--topology",
    type=click.Choice(list(TOPOLOGIES)),
    default=None,
    envvar="MUFAKAT_TOPOLOGY",
    help=f"Which nodes there are; else as before, at first {next(iter(TOPOLOGIES))}.",
)
@click.option(
    "--mode",
    type=click.Choice(["docker", "local"]),
    default=None,
    envvar="MUFAKAT_MODE",
    help="Containers or plain processes; else as before, at first docker where an engine answers.",
)
@click.option("--port-offset", type=int, default=None, help="Added to every port; else as before, at first 0.")
def up_command(topology: str | None, mode: str | None, port_offset: int | None) -> None:
    """Start a cluster and wait until it is ready."""
    surroundings = _surroundings()
    echo(summary(surroundings, up(surroundings, Request(topology, mode, port_offset))))


@main.command("down")
@click.option("--wipe", is_flag=True, help="Delete what the nodes stored, too.")
def down_command(wipe: bool) -> None:
    """Stop the whole cluster. It keeps what it stored for the next `up`."""
    down(_surroundings(), wipe=wipe)


@main.command("start")
@click.argument("node", nargs=-1, required=True)
def start_command(node: tuple[str, ...]) -> None:
    """Start nodes that were stopped or killed."""
    start_nodes(_surroundings(), node)


@main.command("stop")
@click.argument("node", nargs=-1, required=True)
def stop_command(node: tuple[str, ...]) -> None:
    """Stop nodes in good order (SIGTERM)."""
    stop_nodes(_surroundings(), node)


@main.command("kill")
@click.argument("node", nargs=-1, required=True)
def kill_command(node: tuple[str, ...]) -> None:
    """Kill nodes at once, as a power cut would (SIGKILL)."""
    kill_nodes(_surroundings(), node)


@main.command("kill-leader")
@click.option("--group", default="lock", show_default=True, help="lock, queue or cache.")
def kill_leader_command(group: str) -> None:
    """Kill the leader of a group and show who leads next."""
    kill_leader(_surroundings(), group)


@main.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--watch", is_flag=True, help=f"Show it anew every {WATCH_SECONDS:.0f} s until interrupted.")
def status_command(as_json: bool, watch: bool) -> None:
    """Show every node: where it listens, whether it runs, who leads, and why one is not ready."""
    surroundings = _surroundings()
    while True:
        cluster = surroundings.home.cluster()
        if as_json and (cluster is None or cluster.state == DOWN):
            echo(status_json(None, None))
        backend = surroundings.require_backend()
        found = cluster_status(backend)
        shown = status_json(backend, found) if as_json else status_text(backend, found)
        # On a terminal the screen is cleared first (ECMA-48), so that it stands still.
        echo(f"\033[H\033[2J{shown}" if watch and sys.stdout.isatty() else shown)
        if not watch:
            return
        time.sleep(WATCH_SECONDS)


@main.command("logs")
@click.argument("node", nargs=-1)
@click.option("--follow", "-f", is_flag=True, help="Go on until interrupted.")
@click.option(
    "--lines",
    type=click.IntRange(min=0),
    default=LOG_LINES_DEFAULT,
    show_default=True,
    help="How many lines of each node to begin with.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, with the node in each.")
def logs_command(node: tuple[str, ...], follow: bool, lines: int, as_json: bool) -> None:
    """Show what the named nodes, or all nodes, wrote, as one log in the order of time."""
    backend = _surroundings().require_backend()
    nodes = [backend.topology.node(node_id) for node_id in dict.fromkeys(node)] or list(backend.topology.nodes)
    colours = wants_colours(sys.stdout, os.environ)
    view = LogView([each.id for each in nodes], as_json=as_json, colours=colours)
    try:
        backend.show_logs(nodes, follow=follow, lines=lines, view=view)
    except BrokenPipeError:
        # The reader has seen enough. What is left in the buffer must not fail at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


for _command in (*cli_config.COMMANDS, *cli_members.COMMANDS, *cli_storage.COMMANDS):
    main.add_command(_command)


if __name__ == "__main__":
    main()
