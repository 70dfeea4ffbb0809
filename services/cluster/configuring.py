"""Showing and changing the settings of the cluster in a home, whether it is up or down."""

import json
from collections.abc import Sequence
from dataclasses import replace

from services.cluster.errors import InTheWay, UsageError
from services.cluster.home import new_cluster
from services.cluster.lifecycle import Surroundings
from services.cluster.printing import echo, table
from services.cluster.settings import (
    HIDDEN,
    ID_VARIABLE,
    SECRET_VARIABLE,
    changed,
    cluster_id,
    full_name,
    rows,
)

HEADINGS = ("SETTING", "VALUE", "FROM")


def show_settings(surroundings: Surroundings, *, as_json: bool) -> str:
    """Every setting, its value and where the value comes from.

    Raises:
        ClusterError: the kept settings cannot be read.
    """
    home = surroundings.home
    cluster = home.cluster()
    secret = HIDDEN if home.kept_secret() else "-"
    ours = [
        (ID_VARIABLE, cluster.id if cluster else "-", "made once"),
        (SECRET_VARIABLE, secret, "made once, or given"),
        *rows(cluster or new_cluster()),
    ]
    if as_json:
        return json.dumps([dict(zip(("setting", "value", "from"), row, strict=True)) for row in ours], indent=2)
    return table(HEADINGS, ours)


def set_settings(surroundings: Surroundings, assignments: Sequence[str]) -> None:
    """Change settings for all nodes; each node takes them at its next start.

    Raises:
        UsageError: a variable is unknown, not one of the cluster, or its value is wrong.
        InTheWay: it is the secret or the id, and nodes run.
    """
    home = surroundings.home
    with home.exclusive():
        cluster = home.cluster() or home.begin()
        backend = surroundings.backend(cluster) if cluster.record else None
        runs = backend is not None and backend.is_running()
        alone = [each for each in assignments if _variable(each) in (ID_VARIABLE, SECRET_VARIABLE)]
        if alone and runs:
            raise InTheWay("Nodes with two ids or secrets do not talk to each other: `mufakat down` first.")
        after = changed(cluster, [each for each in assignments if each not in alone], surroundings.environ)
        given = {_variable(assignment): _text(surroundings, assignment) for assignment in alone}
        # Check everything before writing anything.
        if ID_VARIABLE in given:
            after = replace(after, id=cluster_id(given[ID_VARIABLE]))
        if SECRET_VARIABLE in given:
            home.keep_secret(given[SECRET_VARIABLE])
        home.keep(after)
    names = ", ".join(each.partition("=")[0] for each in assignments)
    if not runs:
        echo(f"{names}: kept for the next `mufakat up`.")
    elif after.record and after.record.mode == "docker":
        echo(f"{names}: kept. Containers have it after `mufakat down` and `mufakat up`.")
    else:
        echo(
            f"{names}: kept. A node has it from its next start on: `mufakat stop NODE`, `mufakat start NODE`, one "
            "after another, each once the one before is ready (`mufakat status`)."
        )


def _variable(assignment: str) -> str:
    return full_name(assignment.partition("=")[0])


def _text(surroundings: Surroundings, assignment: str) -> str:
    """The given value, or the one in the environment."""
    variable, equals, text = _variable(assignment), *assignment.partition("=")[1:]
    value = (text if equals else surroundings.environ.get(variable, "")).strip()
    if not value:
        raise UsageError(f"{variable} is not in the environment; set it there.")
    return value
