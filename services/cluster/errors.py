"""What a cluster command may answer when it cannot do what was asked, and the exit code that goes with it.

    ClusterError            exit 1: it was tried and failed
        UsageError          exit 2: asked in a way that cannot mean anything (an unknown node, say)
        InTheWay            exit 3: something is in the way (a taken port, another cluster, half of one)
        NoCluster           exit 4: there is no cluster to speak of

Every message is one or two sentences that say what is wrong and what to do.
"""


class ClusterError(Exception):
    """The command was tried and failed."""

    exit_code = 1


class UsageError(ClusterError):
    """The command names something that does not exist."""

    exit_code = 2


class InTheWay(ClusterError):
    """Something that is already there has to be dealt with first."""

    exit_code = 3


class NoCluster(ClusterError):
    """No cluster was started from here, or it was taken down."""

    exit_code = 4
