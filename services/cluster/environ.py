"""Which `MUFAKAT_*` variables are for whom: a node refuses those that it does not know."""

from collections.abc import Mapping

#: Read by the commands that look after a cluster and by the compose files, not by a node.
COMMAND_VARIABLES = frozenset(
    {"MUFAKAT_HOME", "MUFAKAT_TOPOLOGY", "MUFAKAT_MODE", "MUFAKAT_PUBLISH", "MUFAKAT_BASE_IMAGE"}
)

#: Names of the variables that give the published port of a node begin so.
PORT_VARIABLE_PREFIX = "MUFAKAT_PORT_"

#: Different for every node of a cluster, so that no value from outside can be right for all of them.
OWN_VARIABLES = frozenset(
    {
        "MUFAKAT_NODE_ID",
        "MUFAKAT_GROUPS",
        "MUFAKAT_CLUSTER",
        "MUFAKAT_CLIENT_PORT",
        "MUFAKAT_PEER_PORT",
        "MUFAKAT_DATA_DIR",
        "MUFAKAT_LISTEN_HOST",
        "MUFAKAT_PEER_LISTEN_HOST",
    }
)


def node_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What is left for a node once the variables for the commands are taken out."""
    return {
        name: value
        for name, value in environ.items()
        if name not in COMMAND_VARIABLES and not name.startswith(PORT_VARIABLE_PREFIX)
    }


def shared_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What every node of a cluster may be given alike."""
    return {name: value for name, value in node_variables(environ).items() if name not in OWN_VARIABLES}
