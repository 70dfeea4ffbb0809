"""The commands about a cluster's settings: `config show`, `config set`.

Like `services.cli.main`, only what a command is called and takes stands here.
"""

import os

import click

from services.cluster.configuring import set_settings, show_settings
from services.cluster.home import Home
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo


def _surroundings() -> Surroundings:
    return Surroundings(Home.from_environ(os.environ), os.environ)


@click.group("config")
def config_group() -> None:
    """See and change the settings that all nodes of the cluster have in common."""


@config_group.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(as_json: bool) -> None:
    """Show each setting, its value and where that is from. Secrets are not shown."""
    echo(show_settings(_surroundings(), as_json=as_json))


@config_group.command("set")
@click.argument("assignment", nargs=-1, required=True, metavar="VARIABLE=VALUE...")
def set_command(assignment: tuple[str, ...]) -> None:
    """Change settings: VARIABLE=VALUE, or VARIABLE alone to take its value from the environment, which keeps secrets
    out of the process list. An empty value goes back to the default.

    A node has the new settings from its next start on.
    """
    set_settings(_surroundings(), assignment)


COMMANDS = (config_group,)
