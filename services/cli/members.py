"""The commands about a cluster's members: `member list`, `member add`, `member remove`.

As in `services.cli.main`, this file only has the names and the arguments of the commands.
"""

import os
from collections.abc import Callable

import click

from services.cluster.home import Home
from services.cluster.lifecycle import Surroundings
from services.cluster.members import Whom, add_member, list_members, remove_member
from services.cluster.printing import echo


def _surroundings() -> Surroundings:
    return Surroundings(Home.from_environ(os.environ), os.environ)


def _whom(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which nodes are asked."""
    command = click.option("--group", default=None, help="lock, queue or cache; else all there.")(command)
    return click.option(
        "--node", "address", default="", metavar="HOST:PORT", help="Whom to ask; else the cluster that is up here."
    )(command)


@click.group("member")
def member_group() -> None:
    """See and change which servers the cluster has.

    If tokens are in use, the command sends the cluster's admin token; with --node, the one in MUFAKAT_AUTH_TOKENS.
    """


@member_group.command("list")
@_whom
def list_command(address: str, group: str | None) -> None:
    """Show the members of each group, their addresses and whether they vote."""
    echo(list_members(_surroundings(), Whom(address, group)))


@member_group.command("add")
@click.argument("member", metavar="ID")
@click.argument("where", metavar="[HOST:PORT]", default="")
@_whom
def add_command(member: str, where: str, address: str, group: str | None) -> None:
    """Add the server ID, whose clients reach it at HOST:PORT. Without HOST:PORT, start it here first (local mode).

    In other modes, start it with `mufakat serve`, MUFAKAT_JOIN=true and a MUFAKAT_CLUSTER that names everybody,
    before or after this.
    """
    add_member(_surroundings(), Whom(address, group), member, where)


@member_group.command("remove")
@click.argument("member", metavar="ID")
@_whom
def remove_command(member: str, address: str, group: str | None) -> None:
    """Remove the server ID. A leader hands over leadership first."""
    remove_member(_surroundings(), Whom(address, group), member)


COMMANDS = (member_group,)
