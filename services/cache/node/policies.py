"""Which lines go first where a node holds as many as it may.

    lru         the line that was served or granted longest ago goes first
    w-tinylfu   a line stays by how often it was asked for lately (Einziger, Friedman and Manes, "TinyLFU"): what is
                read once does not drive out what is read all the time
"""

from common.config import Settings, SettingsError
from services.cache.node.held import HeldLines


def make_held_lines(settings: Settings) -> HeldLines:
    """The table that the settings of a node ask for.

    Raises:
        SettingsError: the package that the policy needs is not there.
    """
    bounds = {"lines_max": settings.cache_lines_max, "bytes_max": settings.cache_lines_bytes_max}
    if settings.cache_policy == "lru":
        return HeldLines(**bounds)
    assert settings.cache_policy == "w-tinylfu", settings.cache_policy
    try:
        from services.cache.node.tinylfu import TinyLfuLines
    except ImportError as error:
        problem = f"w-tinylfu needs the package theine-core, and it cannot be used here ({error}); lru needs nothing"
        raise SettingsError("MUFAKAT_CACHE_POLICY", problem) from error
    return TinyLfuLines(**bounds)
