"""The settings that all nodes of a cluster share, where they come from, and what changes them.

    first `up`              keeps what the environment says in cluster.json
    every later command     uses what is kept, and refuses a variable that says something else
    `mufakat config set`    changes what is kept

So it does not matter from which shell a node is started. Values of secrets are never shown.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.config import SETTINGS, VARIABLE_PREFIX, Setting, SettingsError, is_for_commands, load_settings
from common.parsers import parse_cluster_id
from services.cluster.errors import InTheWay, UsageError
from services.cluster.home import Cluster

#: Variables that differ for every node of a cluster, so that no value from outside can be right for all nodes.
OWN_VARIABLES = frozenset(
    {
        "MUFAKAT_NODE_ID",
        "MUFAKAT_GROUPS",
        "MUFAKAT_CLUSTER",
        "MUFAKAT_SITE",
        "MUFAKAT_CLIENT_PORT",
        "MUFAKAT_PEER_PORT",
        "MUFAKAT_DATA_DIR",
        "MUFAKAT_LISTEN_HOST",
        "MUFAKAT_PEER_LISTEN_HOST",
        "MUFAKAT_JOIN",
        "MUFAKAT_LOG_FILE",
    }
)
#: Variables that are the same for all, but kept elsewhere: the id beside the settings, the secret in its own file.
ID_VARIABLE = "MUFAKAT_CLUSTER_ID"
SECRET_VARIABLE = "MUFAKAT_CLUSTER_SECRET"

#: The settings that can be kept, by variable, in the order of the docs.
SHARED: dict[str, Setting] = {
    setting.variable: setting
    for setting in SETTINGS
    if setting.variable not in OWN_VARIABLES | {ID_VARIABLE, SECRET_VARIABLE}
}

#: Shown instead of the value of a secret.
HIDDEN = "(set; not shown)"


def settle(cluster: Cluster, environ: Mapping[str, str], path: Path) -> Cluster:
    """The cluster with its settings: the kept ones, or for a cluster that never ran those of `environ`.

    Args:
        path: where they are kept, for the error.

    Raises:
        UsageError: a variable is wrong.
        InTheWay: `environ` differs from what is kept.
    """
    given = _given(environ)
    never_ran = cluster.record is None
    differing = [
        variable
        for variable, text in given.items()
        if (variable in cluster.settings or not never_ran)
        and not _same(variable, text, cluster.settings.get(variable))
    ]
    told = environ.get(ID_VARIABLE, "").strip()
    if differing or (told and told != cluster.id and not never_ran):
        raise InTheWay(_refusal(cluster, given, differing, told, path))
    kept = {variable: text for variable in SHARED if (text := {**given, **cluster.settings}.get(variable))}
    settled = replace(cluster, settings=kept, id=cluster_id(told) if told else cluster.id)
    _check(settled.settings)
    return settled


def changed(cluster: Cluster, assignments: Sequence[str], environ: Mapping[str, str]) -> Cluster:
    """The cluster after `config set` of each `VARIABLE=VALUE`; `VARIABLE` alone takes the value from `environ`, and
    an empty value restores the default. The prefix MUFAKAT_ may be left out.

    Raises:
        UsageError: a variable is unknown, not one of the cluster, or its value is wrong.
    """
    settings = dict(cluster.settings)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        variable = shared_variable(name)
        if not equals:
            text = environ.get(variable, "")
            if not text.strip():
                raise UsageError(f"{variable} is not in the environment. Write `{variable}=VALUE`, or set it there.")
        settings.pop(variable, None)
        if text.strip():
            settings[variable] = text.strip()
    _check(settings)
    return replace(cluster, settings={variable: settings[variable] for variable in SHARED if variable in settings})


def shared_variable(name: str) -> str:
    """The variable of a setting of the cluster, from what somebody typed.

    Raises:
        UsageError: no setting has that name, or each node has its own value.
    """
    variable = full_name(name)
    if variable in SHARED:
        return variable
    if variable in OWN_VARIABLES:
        raise UsageError(f"{variable} cannot be set for a cluster: each of its nodes has its own.")
    raise UsageError(f"There is no setting {variable}. `mufakat config show` lists them.")


def full_name(name: str) -> str:
    """The full name of a variable: `snapshot-entries` is MUFAKAT_SNAPSHOT_ENTRIES."""
    variable = name.strip().upper().replace("-", "_")
    return variable if variable.startswith(VARIABLE_PREFIX) else VARIABLE_PREFIX + variable


def cluster_id(text: str) -> str:
    """An id for a cluster, from what somebody typed. Raises UsageError."""
    try:
        return parse_cluster_id(text)
    except ValueError as error:
        raise UsageError(f"{ID_VARIABLE}: {error}.") from error


def rows(cluster: Cluster) -> list[tuple[str, str, str]]:
    """Variable, value and where the value comes from, for every setting."""
    found = []
    for variable, setting in SHARED.items():
        kept = cluster.settings.get(variable)
        origin = "default" if kept is None else "cluster"
        found.append((variable, _shown(setting, kept) or "-", origin))
    return found


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    """What the environment says about the settings of a cluster."""
    for variable in sorted(environ):
        is_known = variable in SHARED or variable in OWN_VARIABLES or variable in (ID_VARIABLE, SECRET_VARIABLE)
        if variable.startswith(VARIABLE_PREFIX) and not is_known and not is_for_commands(variable):
            raise UsageError(f"{variable}: there is no such setting; check the spelling.")
    given = {variable: text for variable in SHARED if (text := environ.get(variable, "").strip())}
    _check(given)
    return given


def _check(settings: Mapping[str, str]) -> None:
    try:
        tokens = load_settings(settings).auth_tokens
    except SettingsError as error:
        raise UsageError(f"{error}.") from error
    if tokens and not any(role == "admin" for role, _ in tokens):
        raise UsageError(
            "MUFAKAT_AUTH_TOKENS: one must be admin:token, or these commands could not ask the nodes anything."
        )


def _same(variable: str, text: str, kept: str | None) -> bool:
    setting = SHARED[variable]
    return bool(setting.parse(text) == (setting.default if kept is None else setting.parse(kept)))


def _shown(setting: Setting, text: str | None) -> str:
    if setting.secret:
        return HIDDEN if text else ""
    if text is not None:
        return text
    return ",".join(map(str, setting.default)) if isinstance(setting.default, tuple) else str(setting.default)


def _refusal(
    cluster: Cluster, given: Mapping[str, str], differing: Sequence[str], told: str, path: Path
) -> str:
    lines = []
    for variable in differing:
        setting, kept = SHARED[variable], cluster.settings.get(variable)
        here, there = _shown(setting, given[variable]), _shown(setting, kept) or "not set"
        lines.append(
            f"{variable} is {here} in this shell's environment, but {there}"
            f"{' (the default)' if kept is None else ''} for this cluster, by {path}."
        )
    if told and told != cluster.id:
        lines.append(f"{ID_VARIABLE} is {told} in this shell's environment, but {cluster.id} by {path}.")
    advice = "Unset it to use the cluster's"
    if differing:
        one = shlex.quote(differing[0])
        advice += f", or change the cluster's on purpose: `mufakat config set {one}` takes it from the environment"
    return "\n".join([*lines, f"{advice}."])
