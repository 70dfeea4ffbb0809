"""Settings belong to the cluster, not to the shell: what is kept, what is refused, what can be changed."""

import json
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.config import SETTINGS
from services.cli.main import main
from services.cluster.configuring import set_settings, show_settings
from services.cluster.engine import NoEngine
from services.cluster.errors import InTheWay, UsageError
from services.cluster.lifecycle import Request, Surroundings, down, up
from services.cluster.nodes import kill_nodes, start_nodes, stop_nodes
from services.cluster.settings import OWN_VARIABLES, SHARED
from tests.cluster.tools import STUB, cluster_in

TOKENS = "admin:an-admin-token"

pytestmark = pytest.mark.cluster

Shell = Callable[..., Surroundings]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """The same home from a shell with these variables."""
    with cluster_in(tmp_path / "home", serve_command=STUB, detect=lambda: NoEngine("this is a test")) as made:
        yield lambda **variables: replace(made, environ={**made.environ, **variables})


def environ_of(shell: Surroundings, node_id: str) -> dict[str, str]:
    """The environment that a node's process has now."""
    pid = shell.require_backend().processes()[node_id].pid
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_a_node_started_from_another_shell_has_the_settings_of_the_cluster(
    shell: Shell, request_combined: Request
) -> None:
    """Else it would run without authentication, and nothing would say so."""
    up(shell(MUFAKAT_AUTH_TOKENS=TOKENS, MUFAKAT_SNAPSHOT_ENTRIES="500"), request_combined)
    kill_nodes(shell(), ["node1"])

    start_nodes(shell(), ["node1"])

    environ = environ_of(shell(), "node1")
    assert (environ["MUFAKAT_AUTH_TOKENS"], environ["MUFAKAT_SNAPSHOT_ENTRIES"]) == (TOKENS, "500")


def test_a_later_up_has_them_too(shell: Shell, request_combined: Request) -> None:
    up(shell(MUFAKAT_ALLOWED_HOSTS="lock.example"), request_combined)
    down(shell(), wipe=False)

    up(shell(), request_combined)

    assert environ_of(shell(), "node2")["MUFAKAT_ALLOWED_HOSTS"] == "lock.example"


@pytest.mark.parametrize("command", ["up", "start", "up after down"])
def test_a_variable_that_says_something_else_is_refused_with_both_origins(
    shell: Shell, request_combined: Request, command: str
) -> None:
    up(shell(MUFAKAT_SNAPSHOT_ENTRIES="500"), request_combined)
    other = shell(MUFAKAT_SNAPSHOT_ENTRIES="600", MUFAKAT_CACHE_LEASE_MS="700")
    if command == "up after down":
        down(shell(), wipe=False)
    else:
        stop_nodes(shell(), ["node1"])

    with pytest.raises(InTheWay) as raised:
        start_nodes(other, ["node1"]) if command == "start" else up(other, request_combined)

    here, path = "in this shell's environment", shell().home.cluster_path
    text = str(raised.value)
    assert f"MUFAKAT_SNAPSHOT_ENTRIES is 600 {here}, but 500 for this cluster, by {path}." in text
    assert f"MUFAKAT_CACHE_LEASE_MS is 700 {here}, but 600 (the default) for this cluster, by {path}." in text
    assert "`mufakat config set MUFAKAT_CACHE_LEASE_MS`" in text


def test_the_same_said_in_another_way_is_no_difference(shell: Shell, request_combined: Request) -> None:
    up(shell(MUFAKAT_SNAPSHOT_ENTRIES="5000"), request_combined)
    stop_nodes(shell(), ["node1"])

    start_nodes(shell(MUFAKAT_SNAPSHOT_ENTRIES="5_000", MUFAKAT_LOG_LEVEL="INFO"), ["node1"])

    assert environ_of(shell(), "node1")["MUFAKAT_SNAPSHOT_ENTRIES"] == "5000"


def test_secrets_are_not_shown_by_a_refusal_nor_by_the_list(shell: Shell, request_combined: Request) -> None:
    up(shell(MUFAKAT_AUTH_TOKENS=TOKENS), request_combined)

    with pytest.raises(InTheWay) as raised:
        up(shell(MUFAKAT_AUTH_TOKENS="admin:another-token"), request_combined)

    shown = show_settings(shell(), as_json=False) + show_settings(shell(), as_json=True)
    for text in (str(raised.value), shown):
        assert "an-admin-token" not in text
        assert "another-token" not in text
        assert shell().home.kept_secret() not in text
    assert "MUFAKAT_AUTH_TOKENS is (set; not shown) in this shell's environment" in str(raised.value)


def test_a_stray_cluster_secret_is_refused_and_the_kept_one_stays(shell: Shell, request_combined: Request) -> None:
    """It used to replace the kept one and lock every later start out."""
    up(shell(), request_combined)
    kept = shell().home.kept_secret()
    stop_nodes(shell(), ["node1"])

    with pytest.raises(InTheWay, match=r"MUFAKAT_CLUSTER_SECRET in this shell's environment is not the secret"):
        start_nodes(shell(MUFAKAT_CLUSTER_SECRET="another secret of the cluster"), ["node1"])

    start_nodes(shell(), ["node1"])
    assert shell().home.kept_secret() == kept == environ_of(shell(), "node1")["MUFAKAT_CLUSTER_SECRET"]


def test_the_first_up_takes_a_secret_that_is_given(shell: Shell, request_combined: Request) -> None:
    up(shell(MUFAKAT_CLUSTER_SECRET="the secret of the cluster"), request_combined)

    assert environ_of(shell(), "node3")["MUFAKAT_CLUSTER_SECRET"] == "the secret of the cluster"


def test_join_in_the_environment_of_up_reaches_no_node(shell: Shell, request_combined: Request) -> None:
    """Every node would wait for a cluster that there is not."""
    up(shell(MUFAKAT_JOIN="true", MUFAKAT_NODE_ID="node7"), request_combined)

    environ = environ_of(shell(), "node1")
    assert "MUFAKAT_JOIN" not in environ
    assert environ["MUFAKAT_NODE_ID"] == "node1"


def test_what_is_kept_is_for_its_owner_alone(shell: Shell, request_combined: Request) -> None:
    up(shell(MUFAKAT_AUTH_TOKENS=TOKENS), request_combined)

    assert stat.S_IMODE(shell().home.cluster_path.stat().st_mode) == 0o600


def test_config_set_changes_what_a_node_has_from_its_next_start_on(
    shell: Shell, request_combined: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    up(shell(MUFAKAT_SNAPSHOT_ENTRIES="500"), request_combined)

    set_settings(shell(MUFAKAT_AUTH_TOKENS=TOKENS), ["snapshot-entries=700", "MUFAKAT_AUTH_TOKENS"])

    assert "from its next start on" in capsys.readouterr().out
    assert environ_of(shell(), "node1")["MUFAKAT_SNAPSHOT_ENTRIES"] == "500"
    stop_nodes(shell(), ["node1"])
    start_nodes(shell(), ["node1"])
    environ = environ_of(shell(), "node1")
    assert (environ["MUFAKAT_SNAPSHOT_ENTRIES"], environ["MUFAKAT_AUTH_TOKENS"]) == ("700", TOKENS)


def test_an_empty_value_goes_back_to_the_default(shell: Shell) -> None:
    set_settings(shell(), ["SNAPSHOT_ENTRIES=700"])
    set_settings(shell(), ["SNAPSHOT_ENTRIES="])

    shown = {row["setting"]: row for row in json.loads(show_settings(shell(), as_json=True))}
    assert (shown["MUFAKAT_SNAPSHOT_ENTRIES"]["value"], shown["MUFAKAT_SNAPSHOT_ENTRIES"]["from"]) == (
        "100000",
        "default",
    )


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("SNAPSHOT_ENTRISE=5", "There is no setting MUFAKAT_SNAPSHOT_ENTRISE"),
        ("SNAPSHOT_ENTRIES=many", "MUFAKAT_SNAPSHOT_ENTRIES: 'many' is not a whole number"),
        ("SNAPSHOT_ENTRIES=1", "below the least allowed"),
        ("NODE_ID=node9", "MUFAKAT_NODE_ID cannot be set for a cluster"),
        ("CLUSTER_ID=not an id", "MUFAKAT_CLUSTER_ID: "),
        ("HEARTBEAT_MS=300", "MUFAKAT_ELECTION_TIMEOUT_MIN_MS"),
        ("LOG_LEVEL", "MUFAKAT_LOG_LEVEL is not in the environment"),
    ],
)
def test_what_cannot_be_right_is_not_kept(shell: Shell, assignment: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        set_settings(shell(), [assignment])

    assert shell().home.cluster() is None


def test_the_secret_is_changed_while_the_cluster_is_down_only(shell: Shell, request_combined: Request) -> None:
    up(shell(), request_combined)
    with pytest.raises(InTheWay, match="mufakat down"):
        set_settings(shell(), ["CLUSTER_SECRET=another secret of the cluster"])
    down(shell(), wipe=False)

    set_settings(shell(MUFAKAT_CLUSTER_SECRET="another secret of the cluster"), ["CLUSTER_SECRET"])

    assert shell().home.kept_secret() == "another secret of the cluster"


def test_the_id_can_be_set_right_while_the_cluster_is_down(shell: Shell, request_combined: Request) -> None:
    """A home was lost, and the data lies in containers: its nodes refuse to start as another cluster."""
    up(shell(), request_combined)
    with pytest.raises(InTheWay, match="mufakat down"):
        set_settings(shell(), ["CLUSTER_ID=the-one-of-before"])
    down(shell(), wipe=False)

    set_settings(shell(), ["CLUSTER_ID=the-one-of-before"])

    up(shell(), request_combined)
    assert environ_of(shell(), "node1")["MUFAKAT_CLUSTER_ID"] == "the-one-of-before"


def test_a_wipe_ends_the_cluster_with_its_settings_and_its_id(shell: Shell, request_combined: Request) -> None:
    """The next one begins with what its own `up` is given."""
    before = up(shell(MUFAKAT_SNAPSHOT_ENTRIES="500"), request_combined).cluster.id
    down(shell(), wipe=True)

    after = up(shell(MUFAKAT_SNAPSHOT_ENTRIES="600"), request_combined).cluster.id

    assert after != before
    assert environ_of(shell(), "node1")["MUFAKAT_SNAPSHOT_ENTRIES"] == "600"


def test_every_setting_is_either_each_nodes_own_or_the_clusters() -> None:
    """A name that is listed and is no setting any more is found here."""
    settings = {setting.variable for setting in SETTINGS}

    assert settings >= OWN_VARIABLES
    assert settings - OWN_VARIABLES - set(SHARED) == {"MUFAKAT_CLUSTER_ID", "MUFAKAT_CLUSTER_SECRET"}


def test_advice_can_be_copied_from_a_folder_whose_name_has_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "my programs" / "mufakat"
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(main, ["status"], env={"MUFAKAT_HOME": str(tmp_path / "home")})

    assert "`'my programs/mufakat' up`" in result.output
    assert result.exit_code == 4


def test_a_home_that_cannot_be_one_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for path, exit_code in ((tmp_path / "file", 2), (tmp_path / "file" / "home", 1)):
        result = CliRunner().invoke(main, ["up", "--mode", "local"], env={"MUFAKAT_HOME": str(path)})

        assert str(path) in result.output
        assert "MUFAKAT_HOME" in result.output
        assert result.exit_code == exit_code
