"""common/config.py: defaults, reading, and a refusal that names the variable."""

import pytest

from common.config import COMMAND_VARIABLES, SETTINGS, Settings, SettingsError, load_settings

SECRET = "a secret of many letters"
THREE = "node1=127.0.0.1:8000,node2=Host2:8001,node3=[::1]:8002"


def test_a_node_starts_without_any_setting():
    """Goal: `adev runserver` needs nothing: one node that is its own cluster."""
    settings = load_settings({})

    assert (settings.node_id, settings.client_port, settings.peer_port) == ("node1", 8000, 18000)
    assert settings.cluster == {"node1": ("127.0.0.1", 8000)}
    assert settings.groups == ("lock", "queue", "cache")
    assert settings.data_dir == ".mufakat/node1"
    assert settings.peers == ()


def test_a_cluster_tells_every_node_its_ports_and_peers():
    """Goal: one MUFAKAT_CLUSTER for all nodes; who I am decides the rest."""
    settings = load_settings(
        {"MUFAKAT_CLUSTER": THREE, "MUFAKAT_NODE_ID": "node2", "MUFAKAT_CLUSTER_SECRET": SECRET}
    )

    assert settings.cluster == {"node1": ("127.0.0.1", 8000), "node2": ("host2", 8001), "node3": ("::1", 8002)}
    assert (settings.client_port, settings.peer_port) == (8001, 18001)
    assert settings.peers == ("node1", "node3")
    assert settings.peer_port_of("node3") == 18002


def test_overrides_win_over_variables():
    """Goal: a flag beats the environment, as text or as a value; a flag that was not given does not count."""
    environ = {"MUFAKAT_HEARTBEAT_MS": "60", "MUFAKAT_LOG_LEVEL": "error", "MUFAKAT_GROUPS": "lock"}

    settings = load_settings(environ, {"heartbeat_ms": 70, "log_level": "debug", "groups": None})

    assert (settings.heartbeat_ms, settings.log_level, settings.groups) == (70, "debug", ("lock",))


def test_a_variable_set_to_nothing_counts_as_not_set():
    """Goal: compose files pass variables on that are empty where nobody set them."""
    assert load_settings({"MUFAKAT_HEARTBEAT_MS": ""}).heartbeat_ms == 50


def test_secrets_are_not_in_the_text_of_the_settings():
    """Goal: a log line or a trace may show settings, never secrets."""
    settings = load_settings({}, {"cluster_secret": SECRET, "auth_tokens": "admin:token-of-admin"})

    assert SECRET not in repr(settings)
    assert "token-of-admin" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MUFAKAT_NODE_ID", "node 1"),
        ("MUFAKAT_NODE_ID", "ñode"),
        ("MUFAKAT_GROUPS", "lock,locks"),
        ("MUFAKAT_GROUPS", "lock,lock"),
        ("MUFAKAT_GROUPS", ","),
        ("MUFAKAT_CLUSTER", "node1"),
        ("MUFAKAT_CLUSTER", "node1=127.0.0.1"),
        ("MUFAKAT_CLUSTER", "node1=127.0.0.1:http"),
        ("MUFAKAT_CLUSTER", "node1=http://a:80"),
        ("MUFAKAT_CLUSTER", "node1=a:80,node1=b:80"),
        ("MUFAKAT_CLUSTER", "node1=a:80,node2=a:80"),
        ("MUFAKAT_CLUSTER", "node2=127.0.0.1:8000"),
        ("MUFAKAT_CLUSTER", "node1=127.0.0.1:60000"),
        ("MUFAKAT_CLIENT_PORT", "70000"),
        ("MUFAKAT_HEARTBEAT_MS", "fifty"),
        ("MUFAKAT_HEARTBEAT_MS", "0"),
        ("MUFAKAT_HEARTBEAT_MS", "1.5"),
        ("MUFAKAT_LOG_LEVEL", "loud"),
        ("MUFAKAT_LOG_FORMAT", "xml"),
        ("MUFAKAT_AUTH_TOKENS", "token-without-role"),
        ("MUFAKAT_AUTH_TOKENS", "root:long-enough-token"),
        ("MUFAKAT_AUTH_TOKENS", "admin:short"),
        ("MUFAKAT_AUTH_TOKENS", "admin:the-same-token,reader:the-same-token"),
        ("MUFAKAT_ALLOWED_HOSTS", "https://example.com"),
        ("MUFAKAT_CLUSTER_SECRET", "short"),
        ("MUFAKAT_CLUSTER_ID", "a b"),
        ("MUFAKAT_CLUSTER_ID", "é"),
        ("MUFAKAT_CLUSTER_ID", "x" * 61),
        ("MUFAKAT_ELECTION_TIMEOUT_MAX_MS", "400"),
        ("MUFAKAT_LEADER_WAIT_MS", "9000"),
        ("MUFAKAT_VALUE_BYTES_MAX", "2000000"),
        ("MUFAKAT_HERTBEAT_MS", "50"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_the_name_of_its_variable(variable, text):
    """Goal: a wrong set-up stops at once, and the message says where to look."""
    with pytest.raises(SettingsError, match=variable) as caught:
        load_settings({variable: text})

    assert variable == caught.value.variable


def test_several_nodes_need_a_secret():
    """Goal: no cluster listens to strangers because a variable was forgotten."""
    with pytest.raises(SettingsError, match="MUFAKAT_CLUSTER_SECRET"):
        load_settings({"MUFAKAT_CLUSTER": THREE})


def test_an_election_timeout_leaves_room_for_a_late_heartbeat():
    """Goal: times that would make a healthy cluster vote are refused."""
    with pytest.raises(SettingsError, match="MUFAKAT_ELECTION_TIMEOUT_MIN_MS"):
        load_settings({"MUFAKAT_HEARTBEAT_MS": "300"})


def test_messages_about_tokens_do_not_repeat_them():
    """Goal: start-up errors end up in logs."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"MUFAKAT_AUTH_TOKENS": "admin:hush"})

    assert "hush" not in str(caught.value)


def test_variables_of_the_command_line_are_left_alone():
    """Goal: a node started by `mufakat up` inherits its environment."""
    variables = [*COMMAND_VARIABLES, "MUFAKAT_PORT_NODE1"]
    assert load_settings(dict.fromkeys(variables, "x")).node_id == "node1"


def test_the_table_lists_every_field_with_a_sentence():
    """Goal: docs and flags are made from the table."""
    assert list(Settings.__dataclass_fields__) == [setting.field for setting in SETTINGS]
    assert all(setting.doc.endswith(".") for setting in SETTINGS)
    assert all(setting.variable == f"MUFAKAT_{setting.field.upper()}" for setting in SETTINGS)


def test_a_site_is_where_the_other_groups_are():
    """Goal: what `up` and the compose files tell every node."""
    settings = load_settings({"MUFAKAT_SITE": "queue=127.0.0.1:8100, queue2:8101; cache=[::1]:8200;"})

    assert settings.site == {"queue": ("127.0.0.1:8100", "queue2:8101"), "cache": ("[::1]:8200",)}


@pytest.mark.parametrize("text", ["queue", "queue=8100", "quque=127.0.0.1:8100", "queue=a:1;queue=b:2"])
def test_a_site_that_cannot_be_read_is_refused(text):
    with pytest.raises(SettingsError, match="MUFAKAT_SITE"):
        load_settings({"MUFAKAT_SITE": text})
