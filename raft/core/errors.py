"""Why a core refuses what its own node asks.

    CoreError
    └── ProposalRefused        certainly not appended
        ├── NotLeading
        ├── TransferInProgress
        ├── TooMuchUncommitted
        ├── FollowerBehind
        └── ConfigurationRefused
            ├── ConfigurationBusy
            └── VotersSilent

Trouble with a *peer's* message never raises: it is rejected and counted in `CoreStatus.rejected_messages`.
"""


class CoreError(Exception):
    """Base of everything that a core raises."""


class ProposalRefused(CoreError):
    """The proposal was not appended to the log; offering it again is safe."""


class NotLeading(ProposalRefused):
    """This node does not lead its group."""


class TransferInProgress(ProposalRefused):
    """Leadership is being handed over (thesis 3.10); nothing is accepted until that has ended."""


class TooMuchUncommitted(ProposalRefused):
    """The uncommitted tail of the log is at its bound."""


class FollowerBehind(ProposalRefused):
    """A follower that is catching up would lose entries that it still needs; slower proposals are possible."""


class ConfigurationRefused(ProposalRefused):
    """The membership change is not allowed now, or not at all; the text says which."""


class ConfigurationBusy(ConfigurationRefused):
    """The membership change is possible but not at this moment; ask again shortly."""


class VotersSilent(ConfigurationRefused):
    """After the membership change, the voters that answer would be no majority."""
