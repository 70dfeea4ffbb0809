"""The commands about a cluster's settings: `config show`, `config set`.

As in `services.cli.main`, this file only has the names and the arguments of the commands.
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
    """See and change the settings that all nodes of the cluster share."""


@config_group.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(as_json: bool) -> None:
    """Show each setting, its value and where the value comes from. Secrets are not shown."""
    echo(show_settings(_surroundings(), as_json=as_json))


@config_group.command("set")
@click.argument("assignment", nargs=-1, required=True, metavar="VARIABLE=VALUE...")
def set_command(assignment: tuple[str, ...]) -> None:
    """Change settings: VARIABLE=VALUE, or VARIABLE alone to take its value from the environment, which keeps secrets
    out of the process list. An empty value restores the default.

    A node takes the new settings at its next start.
    """
    set_settings(_surroundings(), assignment)


COMMANDS = (config_group,)
