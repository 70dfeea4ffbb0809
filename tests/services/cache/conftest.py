"""Three nodes for whoever asks for them."""

from collections.abc import AsyncIterator

import pytest

from tests.services.cache.cluster import Cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    await cluster.start()
    yield cluster
    for client in cluster.clients.values():
        await client.close()
