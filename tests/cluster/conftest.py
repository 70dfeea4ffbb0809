"""Clusters of real node processes for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cluster.lifecycle import Request, up
from tests.cluster.tools import Cluster, cluster_in, free_port_offset


def _running(folder: Path, topology: str) -> Iterator[Cluster]:
    with cluster_in(folder) as surroundings:
        request = Request(topology, "local", free_port_offset(topology))
        yield Cluster(surroundings, up(surroundings, request), request.port_offset)


@pytest.fixture
def combined(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes with all three services each; a new cluster for every test, for these tests end nodes."""
    yield from _running(tmp_path / "home", "combined")


@pytest.fixture
def separated(tmp_path: Path) -> Iterator[Cluster]:
    """Nine nodes, three for each service."""
    yield from _running(tmp_path / "home", "separated")
