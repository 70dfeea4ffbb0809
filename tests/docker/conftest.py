"""Clusters of containers; everything here is skipped, with the reason, where that is not possible."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cluster.engine import NoEngine, detect_engine
from services.cluster.home import Home
from services.cluster.lifecycle import Request, Surroundings, down, up
from services.cluster.nodes import start_nodes
from services.cluster.waiting import wait_ready
from tests.cluster.tools import Cluster, free_port_offset

#: Keeps the containers and volumes of tests apart from those of a cluster that somebody uses.
PROJECT = "mufakat-test"

BASE_IMAGE_DEFAULT = "python:3.11-slim"


def _has_image(*command: str) -> bool:
    try:
        done = subprocess.run(("docker", *command), capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@pytest.fixture(scope="session")
def base_image() -> str:
    """The name of a base image from which ours can be built here; skips where there is none."""
    engine = detect_engine()
    if isinstance(engine, NoEngine):
        pytest.skip(f"containers cannot be used: {engine.reason}")
    name = os.environ.get("MUFAKAT_BASE_IMAGE") or BASE_IMAGE_DEFAULT
    if not (_has_image("image", "inspect", name) or _has_image("pull", "--quiet", name)):
        pytest.skip(f"the base image {name} cannot be fetched; MUFAKAT_BASE_IMAGE may name one that is here")
    return name


def _running(folder: Path, base_image: str, topology: str) -> Iterator[Cluster]:
    environ = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "MUFAKAT_BASE_IMAGE": base_image}
    surroundings = Surroundings(Home(folder), environ)
    request = Request(topology, "docker", free_port_offset(topology))
    try:
        yield Cluster(surroundings, up(surroundings, request), request.port_offset)
    finally:
        if surroundings.home.record() is not None:
            down(surroundings, wipe=True)


@pytest.fixture(scope="module")
def shared_combined(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[Cluster]:
    """Three containers with all three services each, started once: that takes a while."""
    yield from _running(tmp_path_factory.mktemp("combined"), base_image, "combined")


@pytest.fixture
def combined(shared_combined: Cluster) -> Cluster:
    """The shared cluster with all of its nodes running, whatever the test before did to them."""
    nodes = shared_combined.backend.topology.nodes
    start_nodes(shared_combined.surroundings, [node.id for node in nodes])
    wait_ready(shared_combined.backend, nodes)
    return shared_combined


@pytest.fixture
def separated(tmp_path: Path, base_image: str) -> Iterator[Cluster]:
    """Nine containers, three for each service."""
    yield from _running(tmp_path / "home", base_image, "separated")
