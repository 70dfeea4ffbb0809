"""Which variables a node is given by whoever starts it."""

from collections.abc import Mapping

from common.config import is_for_commands

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


def shared_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What every node of a cluster may be given alike."""
    return {
        name: value
        for name, value in environ.items()
        if name not in OWN_VARIABLES and not is_for_commands(name)
    }
