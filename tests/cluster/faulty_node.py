"""A real node whose disk breaks when told: every sync fails with EIO once a file `broken` lies beside its data.

For tests only; started in the place of `mufakat serve`.
"""

import errno
import os
import sys
from pathlib import Path

from raft.storage.files import RealFile
from services.cli.main import main

BROKEN = Path(os.environ["MUFAKAT_DATA_DIR"]).parent / "broken"

_sync = RealFile.sync


def sync(self: RealFile) -> None:
    if BROKEN.exists():
        raise OSError(errno.EIO, "Input/output error")
    _sync(self)


if __name__ == "__main__":
    RealFile.sync = sync  # type: ignore[method-assign]
    sys.exit(main(["serve"]))
