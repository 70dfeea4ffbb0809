"""services/failures.py: what the last line of a node's log advises."""

import errno
import os

import pytest

from services.failures import advice_for


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_want_of_descriptors_is_not_the_disks_fault(number: int) -> None:
    """Goal: whoever looks why the node is gone must not look at the disk."""
    advice = advice_for(OSError(number, os.strerror(number)))

    assert "ulimit -n" in advice
    assert "dmesg" not in advice


def test_any_other_error_of_the_system_is() -> None:
    assert "dmesg" in advice_for(OSError(errno.EIO, os.strerror(errno.EIO)))
