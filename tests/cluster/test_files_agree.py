"""The compose files, the docs and the code say the same about nodes, ports and settings."""

import re
from pathlib import Path

import pytest

from common.config import SETTINGS
from services.cli.main import main
from services.cluster.settings import SHARED
from services.cluster.topology import TOPOLOGIES, Topology

ROOT = Path(__file__).resolve().parents[2]

COMPOSE_FILES = {"separated": "docker-compose.yml", "combined": "docker-compose.combined.yml"}


def compose_services(text: str) -> dict[str, str]:
    """The text of each service of a compose file, by name."""
    body = text.partition("\nservices:\n")[2].partition("\nvolumes:\n")[0]
    parts = re.split(r"^  (\w+):\n", body, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=lambda topology: topology.name)
def test_a_compose_file_has_the_nodes_of_its_topology(topology: Topology) -> None:
    """The table in `topology.py` is written out once more in YAML, for those who have compose alone."""
    text = (ROOT / "docker" / COMPOSE_FILES[topology.name]).read_text()

    services = compose_services(text)

    assert list(services) == [node.id for node in topology.nodes]
    for node in topology.nodes:
        port, service = node.client_port, services[node.id]
        assert f"MUFAKAT_NODE_ID: {node.id}\n" in service
        assert f"MUFAKAT_CLIENT_PORT: {port}\n" in service
        published = f'"${{MUFAKAT_PUBLISH:-127.0.0.1}}:${{MUFAKAT_PORT_{node.id.upper()}:-{port}}}:{port}"'
        assert published in service
        cluster = ",".join(
            f"{other.id}={other.id}:{other.client_port}" for other in topology.companions(node)
        )
        assert f"MUFAKAT_GROUPS: {','.join(node.groups)}\n  MUFAKAT_CLUSTER: {cluster}\n" in text


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=lambda topology: topology.name)
def test_one_service_builds_the_image_for_all(topology: Topology) -> None:
    """Several builds of one image name at the same time get in each other's way."""
    services = compose_services((ROOT / "docker" / COMPOSE_FILES[topology.name]).read_text())

    assert [name for name, text in services.items() if "build:" in text] == [topology.nodes[0].id]


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=lambda topology: topology.name)
def test_what_the_engine_keeps_of_the_logs_is_bounded(topology: Topology) -> None:
    """By itself an engine keeps all of them, until its disk is full."""
    text = (ROOT / "docker" / COMPOSE_FILES[topology.name]).read_text()
    shared, services = text.partition("x-environment:")[0], compose_services(text)

    assert "max-size: 16m" in shared and 'max-file: "2"' in shared
    assert all("<<: *node\n" in service for service in services.values())


@pytest.mark.parametrize("name", COMPOSE_FILES.values())
def test_a_compose_file_hands_on_every_setting_of_a_cluster(name: str) -> None:
    """A setting that `mufakat up` was given must not be lost on the way into the container."""
    environment = (ROOT / "docker" / name).read_text().partition("x-environment:")[2].partition("\n\n")[0]

    handed_on = set(re.findall(r"^  (MUFAKAT_\w+):", environment, flags=re.MULTILINE))

    assert handed_on - {"MUFAKAT_SITE"} == {*SHARED, "MUFAKAT_CLUSTER_ID", "MUFAKAT_CLUSTER_SECRET"}


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=lambda topology: topology.name)
def test_the_nodes_of_a_compose_file_know_where_each_group_is(topology: Topology) -> None:
    """Whoever asks a node for another group's operation is told the published ports."""
    text = (ROOT / "docker" / COMPOSE_FILES[topology.name]).read_text()
    told = re.search(r'MUFAKAT_SITE: "(.*?)"', text, flags=re.DOTALL)

    site = topology.site(lambda node: f"127.0.0.1:${{MUFAKAT_PORT_{node.id.upper()}:-{node.client_port}}}")

    assert re.sub(r"\\\n\s*", "", told[1] if told else "") == site


def test_the_docs_tell_every_setting_with_its_default() -> None:
    """A setting that nobody can find is not there."""
    text = (ROOT / "docs" / "operations.md").read_text()

    rows = dict(re.findall(r"^\| `(MUFAKAT_\w+)` \| (.*) \|$", text, flags=re.MULTILINE))
    for setting in SETTINGS:
        default = setting.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        expected = f"`{shown}` | {setting.doc}" if default or default == 0 else f" | {setting.doc}"
        assert rows[setting.variable] == expected


def test_the_docs_tell_every_command() -> None:
    """And nothing is told that is not there."""
    text = (ROOT / "docs" / "operations.md").read_text()

    told = set(re.findall(r"^\| `mufakat ([a-z-]+)", text, flags=re.MULTILINE))

    assert told == set(main.commands)


def test_the_readme_names_ports_that_exist() -> None:
    """Every address in the README belongs to a node of a topology."""
    ports = {node.client_port for topology in TOPOLOGIES.values() for node in topology.nodes}

    named = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", (ROOT / "README.md").read_text())}

    assert named
    assert named <= ports
