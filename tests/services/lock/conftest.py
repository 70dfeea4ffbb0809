"""Two nodes for whoever asks for them."""

from collections.abc import AsyncIterator

import pytest

from tests.services.lock.serving import LockCluster, lock_cluster


@pytest.fixture
async def cluster() -> AsyncIterator[LockCluster]:
    async with lock_cluster() as cluster:
        yield cluster
