"""Clusters of real node processes for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cluster.engine import NoEngine
from services.cluster.lifecycle import Request, Surroundings, up
from tests.cluster.tools import STUB, Cluster, cluster_in, free_port_offset


def _running(folder: Path, topology: str) -> Iterator[Cluster]:
    with cluster_in(folder) as surroundings:
        request = Request(topology, "local", free_port_offset(topology))
        yield Cluster(surroundings, up(surroundings, request), request.port_offset)


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Surroundings]:
    """A home whose nodes are stand-ins."""
    with cluster_in(tmp_path / "home", serve_command=STUB, detect=lambda: NoEngine("this is a test")) as made:
        yield made


@pytest.fixture
def request_combined() -> Request:
    """Three nodes, on ports that are free."""
    return Request("combined", "local", free_port_offset("combined"))


@pytest.fixture
def combined(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes with all three services each; a new cluster for every test, for these tests end nodes."""
    yield from _running(tmp_path / "home", "combined")


@pytest.fixture
def separated(tmp_path: Path) -> Iterator[Cluster]:
    """Nine nodes, three for each service."""
    yield from _running(tmp_path / "home", "separated")
