"""Which life of its group data is of: a name that is made when a group begins, and anew at each restore of a backup.

    r0006449c1d2e3f-9c0d1e77a1b2       kind, microseconds since 1970 when it was made, chance; both hexadecimal. Of
                                       a restored one the last eight digits are a checksum of the backup

A backup can be restored twice, and a disk of one life can find itself beside disks of another: their logs have the
same beginning, and equal terms and indexes with other entries in them. So who is of another life is not heard and
does not count (`raft.transport.identity`). A group gets its name from its first leader and it is part of the
configuration; a restored group has it from the first moment. Until it is committed here nothing is compared, with
one exception, which is the rule of this file: all data of a *restored* life says so, hence data that says nothing is
of another one. What holds no log yet is of any.
"""

import re
import time
from collections.abc import Callable
from random import Random

from common.chance import SYSTEM_RANDOM
from common.clock import wall_us

#: First letter of a life: given to a group by its leader, or made by a restore.
_GIVEN, _RESTORED = "g", "r"
#: Of a node whose log is empty: it can become part of any life.
ANY_LIFE = "*"
#: Of data that does not say, or whose group has not agreed on a life yet.
UNKNOWN_LIFE = ""

_FORM = re.compile(r"[gr][0-9a-f]{14}-[0-9a-f]{12}", re.ASCII)
_TIME = slice(1, 15)


def given_life(*, wall_us: Callable[[], int] = wall_us, random: Random = SYSTEM_RANDOM) -> str:
    """A life for a group that has none, which no other group has or had."""
    return f"{_GIVEN}{wall_us():014x}-{random.randbytes(6).hex()}"


def restored_life(
    checksum: int, *, wall_us: Callable[[], int] = wall_us, random: Random = SYSTEM_RANDOM
) -> str:
    """A life for the group that begins from a backup with this checksum, which no other restore has or had."""
    return f"{_RESTORED}{wall_us():014x}-{random.randbytes(2).hex()}{checksum:08x}"


def is_restored_from(life: str, checksum: int) -> bool:
    """Whether `restored_life` made it of this checksum."""
    return is_life(life) and is_restored(life) and life.endswith(f"{checksum:08x}")


def is_life(text: str) -> bool:
    return bool(_FORM.fullmatch(text))


def is_restored(life: str) -> bool:
    """Whether it was made by a restore, so that all data of it says so."""
    return life.startswith(_RESTORED)


def made_us(life: str) -> int:
    """Wall clock when it was made, microseconds since 1970."""
    return int(life[_TIME], 16)


def may_be_the_same(one: str, other: str) -> bool:
    """Whether data of these two can be of one group."""
    if one == other or ANY_LIFE in (one, other):
        return True
    return UNKNOWN_LIFE in (one, other) and not is_restored(one) and not is_restored(other)


def described_life(life: str) -> str:
    """For an operator."""
    if not is_life(life):
        return "it does not say which"
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(made_us(life) / 1_000_000))
    return f"{life}, {'restored' if is_restored(life) else 'begun'} {when}"
