"""What the host of a virtual machine did to a measurement."""

from pathlib import Path

_STAT = Path("/proc/stat")
_STEAL_FIELD = 7


class StolenTime:
    """The share of processor time that the host gave to others since this was made ("steal" in proc(5))."""

    def __init__(self) -> None:
        self._began = _ticks()

    def sentence(self) -> str:
        """For the end of a report; empty where the system does not tell."""
        if not self._began:
            return ""
        spent = [now - before for now, before in zip(_ticks(), self._began, strict=True)]
        share = spent[_STEAL_FIELD] / max(1, sum(spent))
        return f"the host gave {share:.0%} of the processors' time to others; where that is much, measure again"


def _ticks() -> list[int]:
    """Of all processors: user, nice, system, idle, iowait, irq, softirq, steal. Empty where it is not Linux."""
    if not _STAT.exists():
        return []
    return [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1 : _STEAL_FIELD + 2]]
