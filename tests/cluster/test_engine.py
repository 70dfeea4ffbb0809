"""services/cluster/engine.py and containers.py with a stand-in for `docker`: what is run, and what of it is shown."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from services.cluster.containers import DockerBackend
from services.cluster.engine import FAILURE_LINES, Engine, run_logged
from services.cluster.errors import ClusterError
from services.cluster.home import Home, Record, new_cluster
from services.cluster.log_view import LogView
from tests.cluster.tools import wait_until

#: Says much, and does as it is told by the file `says` beside it. Knows one container for each node.
DOCKER = """#!{python}
import json, sys, time
from pathlib import Path

arguments = sys.argv[1:]
folder = Path(__file__).parent
with open(folder / "called", "a") as called:
    called.write(" ".join(arguments) + "\\n")
if arguments[0] == "ps":
    print("container-of-node1\\ncontainer-of-node2")
elif arguments[0] == "inspect":
    print(json.dumps([
        {{"Id": each, "Config": {{"Labels": {{"com.docker.compose.service": each[-5:]}}}}}} for each in arguments[1:]
    ]))
elif arguments[0] == "logs":
    second = {{"node1": 2, "node2": 1}}[arguments[-1][-5:]]
    print(json.dumps({{"timestamp": f"2026-11-27T23:11:0{{second}}Z", "level": "info", "event": arguments[-1]}}))
    print("to stderr", file=sys.stderr)
else:
    for number in range(500):
        print("line", number)
    sys.exit(int((folder / "code").read_text()))
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-in, which is what `docker` calls from now on."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(DOCKER.format(python=sys.executable))
    program.chmod(0o755)
    (folder / "code").write_text("0")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def backend(tmp_path: Path, docker: Path) -> DockerBackend:
    engine = Engine("20.10", ("docker", "compose"))
    cluster = replace(new_cluster(), record=Record("docker", "combined"))
    home = Home(tmp_path / "home")
    home.create()
    return DockerBackend(home, cluster, engine)


def test_compose_shows_one_line_while_it_works_and_nothing_of_what_it_says(
    backend: DockerBackend, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A build says hundreds of lines, of which nobody needs one where it works."""
    backend.start_all()

    output, errors = capfd.readouterr()
    assert output == "Making the containers (0 s)\n"
    assert errors == ""
    assert (tmp_path / "home" / "compose-up.log").read_text().splitlines()[-1] == "line 499"


def test_of_a_compose_that_fails_the_end_is_shown_and_where_the_rest_is(
    backend: DockerBackend, docker: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (docker / "code").write_text("17")

    with pytest.raises(ClusterError, match="the lines above say why"):
        backend.start_all()

    errors = capfd.readouterr().err.splitlines()
    assert errors[:-1] == [f"  line {number}" for number in range(500 - FAILURE_LINES, 500)]
    assert str(tmp_path / "home" / "compose-up.log") in errors[-1]


def test_a_command_that_cannot_be_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="`nowhere-to-be-found` cannot be run"):
        run_logged(("nowhere-to-be-found",), "Trying", log_path=tmp_path / "log")


def test_output_that_cannot_be_kept_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").touch()

    with pytest.raises(ClusterError, match="home"):
        run_logged((sys.executable, "-c", ""), "Trying", log_path=tmp_path / "home" / "log")


def test_an_interrupted_command_is_ended(tmp_path: Path) -> None:
    """Ctrl-C during a build must not leave the build behind."""
    program = (
        "from pathlib import Path; from services.cluster.engine import run_logged; import sys; "
        "run_logged((sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'), "
        "'Trying', log_path=Path(sys.argv[1]))"
    )
    log = tmp_path / "log"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(log)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2], start_new_session=True,
    ) as process:  # fmt: skip
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"), timeout_seconds=20, what="it runs")
        process.send_signal(signal.SIGINT)
        process.wait(20)

    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


@pytest.mark.parametrize("follow", [False, True])
def test_logs_of_containers_are_one_log_by_time(
    backend: DockerBackend, docker: Path, follow: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """As those of processes; what the engine says beside them is shown, too."""
    nodes = backend.topology.nodes[:2]

    backend.show_logs(nodes, follow=follow, lines=7, view=LogView(["node1", "node2"]))

    lines = capfd.readouterr().out.splitlines()
    told = [line for line in lines if "info" in line]
    calls = [line for line in (docker / "called").read_text().splitlines() if line.startswith("logs")]
    assert sum("to stderr" in line for line in lines) == 2
    assert sorted(told) == [
        "2026-11-27 23:11:01.000 node2  info      container-of-node2",
        "2026-11-27 23:11:02.000 node1  info      container-of-node1",
    ]
    # Followed lines are in order as far as they come together.
    assert follow or told == sorted(told)
    assert all("--tail 7" in call and ("--follow" in call) == follow for call in calls)
