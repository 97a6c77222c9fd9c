"""The compose stack, run by the real docker compose from the file as it is.

ofelia is not part of these tests: what it asks of Docker to start a run is asked here in its place, by way of the same
API proxy and with the user, command and container that its labels name.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

from app.simulator import Scenario, Simulator
from tests.engine import IMAGE, Engine
from tests.support import ROOT, expired, rows_of
from tests.test_docker import plain, write_secrets

SERVICES = ["standby", "docker-api"]

# What a Docker client library sends for an exec, as far as the answer to one is needed to send the next.
EXEC = """
import http.client, json, sys
container, user, *command = sys.argv[1:]
def ask(method, path, body=None):
    connection = http.client.HTTPConnection("docker-api", 2375)
    connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()
status, body = ask("POST", f"/containers/{container}/exec",
    {"Cmd": command, "User": user, "AttachStdout": True, "AttachStderr": True, "Tty": True})
assert status == 201, (status, body)
run = json.loads(body)["Id"]
status, output = ask("POST", f"/exec/{run}/start", {"Detach": False, "Tty": True})
assert status == 200, (status, output)
sys.stdout.buffer.write(output)
sys.exit(json.loads(ask("GET", f"/exec/{run}/json")[1])["ExitCode"])
"""


class Stack:
    """A project directory with the compose file, a filled-in .env and secret files."""

    def __init__(self, engine: Engine, directory: Path, proctor: Simulator) -> None:
        self.engine = engine
        self.directory = directory
        self.project = directory.name.replace("_", "-").lower()
        copy(ROOT / "docker-compose.yml", directory)
        self.configure(plain(proctor.settings()))
        write_secrets(directory / "secrets", proctor)

    def configure(self, settings: dict[str, str]) -> None:
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        (self.directory / ".env").write_text("".join(lines))

    def command(self, *arguments: str) -> list[str]:
        return ["docker", "compose", "-p", self.project, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_SOCKET": os.environ.get("DOCKER_HOST", "").removeprefix("unix://")}

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            check=False,
            timeout=600,
        )

    def up(self) -> None:
        result = self.compose("up", "-d", *SERVICES)
        assert result.returncode == 0, result.stderr

    def logs(self, service: str, text: bytes) -> bool:
        """Follow the log of a service until this text comes; false if it never does before the container ends."""
        command = ["docker", "logs", "-f", self.container(service)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout
            found = any(text in line for line in process.stdout)
            process.kill()
        return found

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", "--all", service).stdout.decode().strip()

    def labels(self) -> dict[str, str]:
        """What the scheduler is told to run in the standby container, by the last part of each label."""
        labels = self.engine.inspect(self.container("standby"))["Config"]["Labels"]
        return {key.rpartition(".")[2]: value for key, value in labels.items() if key.startswith("ofelia.job-exec.")}

    def night(self) -> subprocess.CompletedProcess[bytes]:
        """What the scheduler does at night, by way of the API proxy."""
        return subprocess.run(self.night_command(), capture_output=True, check=False, timeout=600)

    def night_command(self) -> list[str]:
        job = self.labels()
        python = ["docker", "run", "--rm", f"--network={self.project}_docker-api", "--entrypoint=python", IMAGE]
        name = self.engine.inspect(self.container("standby"))["Name"].strip("/")
        return [*python, "-c", EXEC, name, job["user"], *job["command"].split()]

    def reports(self) -> list[tuple[list[dict[str, str]], dict[str, Any]]]:
        """Rows and summary of each run on the volume, oldest first."""
        target = self.directory / "fetched"
        self.engine.docker(
            "run", "--name", f"{self.project}-fetch", "-v", f"{self.project}_output:/output", IMAGE, "-h"
        )
        self.engine.docker("cp", f"{self.project}-fetch:/output", str(target))
        self.engine.docker("rm", f"{self.project}-fetch")
        assert not list(target.glob("*.partial"))
        return [
            (rows_of(path.read_bytes()), json.loads(path.with_suffix(".json").read_text()))
            for path in sorted(target.glob("*.csv"))
        ]


@pytest.fixture
def proctor(engine: Engine) -> Iterator[Simulator]:
    with Simulator(Scenario(), host=engine.host) as simulator:
        yield simulator
        simulator.release.set()


@pytest.fixture
def stack(engine: Engine, proctor: Simulator, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(engine, tmp_path, proctor)
    yield stack
    proctor.release.set()
    stack.compose("down", "-v", "-t", "5")


def ids(rows: list[dict[str, str]]) -> list[str]:
    return sorted(row["examId"] for row in rows)


def test_up_proves_the_configuration_and_expires_nothing(stack: Stack, proctor: Simulator) -> None:
    stack.up()
    assert proctor.record == []
    assert b"ok      endpoint" in stack.compose("logs", "check").stdout
    assert stack.logs("standby", b"Waiting for the scheduler")


@pytest.mark.parametrize(("wrong", "code"), [({"CLIENT_NAME": ""}, 78), ({"AUTH_CLIENT_ID": "nobody"}, 77)])
def test_a_wrong_configuration_fails_up_at_once(
    stack: Stack, proctor: Simulator, wrong: dict[str, str], code: int
) -> None:
    stack.configure(plain(proctor.settings()) | wrong)
    result = stack.compose("up", "-d", *SERVICES)
    assert result.returncode != 0
    assert f"exit {code}".encode() in result.stderr
    assert b"FAILED" in stack.compose("logs", "check").stdout
    assert stack.engine.inspect(stack.container("standby"))["State"]["Status"] == "created"


def test_the_nightly_run_acts_as_the_image_user_and_leaves_its_report_on_the_volume(
    stack: Stack, proctor: Simulator
) -> None:
    stack.up()
    assert stack.labels() == {
        "schedule": "0 0 2 * * *",
        "command": "python -m app",
        "user": "10001:10001",
        "no-overlap": "true",
    }
    night = stack.night()
    assert night.returncode == 0, night.stdout
    ((rows, summary),) = stack.reports()
    assert ids(rows) == sorted(expired(proctor))
    assert len(rows) == 250
    assert summary["outcome"] == "drained"


def test_the_stack_is_healthy_while_the_last_night_went_well(stack: Stack, proctor: Simulator) -> None:
    stack.up()
    _, *command = stack.engine.inspect(stack.container("standby"))["Config"]["Healthcheck"]["Test"]

    def health() -> tuple[int, bytes]:
        result = stack.compose("exec", "-T", "standby", *command)
        return result.returncode, result.stdout

    assert health() == (1, b"No run has left its summary in /output.\n")
    assert stack.night().returncode == 0
    assert health()[0] == 0
    proctor.scenario.faults = ["403"]
    assert stack.night().returncode == 77
    code, told = health()
    assert code == 1
    assert b"ended with exit code 77" in told


def test_run_now_and_check_are_one_command_each(stack: Stack, proctor: Simulator) -> None:
    assert stack.compose("run", "--rm", "force-submit", "check").returncode == 0
    assert proctor.record == []
    result = stack.compose("run", "--rm", "force-submit")
    assert result.returncode == 0, result.stderr
    ((rows, _),) = stack.reports()
    assert ids(rows) == sorted(expired(proctor))


def test_a_second_run_beside_the_first_ends_and_changes_nothing(stack: Stack, proctor: Simulator) -> None:
    proctor.scenario.faults = ["hold"]
    stack.up()
    night = subprocess.Popen(stack.night_command(), stdout=subprocess.DEVNULL)
    assert proctor.held.wait(60)
    assert stack.compose("run", "--rm", "force-submit").returncode == 75
    proctor.release.set()
    assert night.wait(60) == 0
    assert len(proctor.record) == 3


def test_down_in_the_middle_of_a_run_loses_nothing(stack: Stack, proctor: Simulator) -> None:
    proctor.scenario.faults = ["ok", "hold"]
    stack.up()
    night = subprocess.Popen(stack.night_command(), stdout=subprocess.DEVNULL)
    assert proctor.held.wait(60)
    with stack.engine.signals(stack.container("standby")) as signals:
        stopping = subprocess.Popen(
            stack.command("down"), cwd=stack.directory, env=stack.environment, stderr=subprocess.DEVNULL
        )
        assert "15" in next(signals)
        proctor.release.set()
        assert stopping.wait(120) == 0
    night.wait(60)
    ((rows, summary),) = stack.reports()
    assert ids(rows) == sorted(expired(proctor))
    assert len(rows) == 200
    assert (summary["outcome"], summary["exit_code"], summary["lost"]) == ("interrupted", 128 + 15, [])


def test_a_standby_container_that_is_killed_in_the_middle_of_a_run_is_recovered(
    stack: Stack, proctor: Simulator
) -> None:
    proctor.scenario.faults = ["ok", "hold"]
    stack.up()
    night = subprocess.Popen(stack.night_command(), stdout=subprocess.DEVNULL)
    assert proctor.held.wait(60)
    stack.compose("kill", "standby")
    night.wait(60)
    proctor.release.set()
    stack.up()
    assert stack.night().returncode == 65  # what the killed one lost must not go unseen
    (killed, summary), (following, _) = stack.reports()
    first, lost, last = proctor.record
    assert ids(killed) == sorted(first["expired"])
    assert ids(following) == sorted(last["expired"])
    (window,) = summary["lost"]
    assert window["start"] <= lost["changed"].replace("+00:00", "Z") <= window["end"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/create"),
        ("POST", "/v1.41/containers/x/start"),
        ("DELETE", "/containers/x"),
        ("GET", "/images/json"),
        ("GET", "/containers/x/archive"),
        ("POST", "/build"),
        ("PUT", "/containers/x/exec"),
    ],
)
def test_ofelia_may_ask_nothing_else_of_docker(stack: Stack, method: str, path: str) -> None:
    stack.up()
    script = (
        "import http.client; c = http.client.HTTPConnection('docker-api', 2375);"
        f"c.request({method!r}, {path!r}); print(c.getresponse().status)"
    )
    network = f"--network={stack.project}_docker-api"
    result = stack.engine.docker("run", "--rm", network, "--entrypoint=python", IMAGE, "-c", script)
    assert result.stdout == b"403\n", result.stderr


def test_no_secret_is_in_any_container_or_log(stack: Stack, proctor: Simulator) -> None:
    stack.up()
    stack.night()
    told = stack.compose("logs").stdout + stack.compose("config").stdout
    for service in ("check", *SERVICES):
        told += json.dumps(stack.engine.inspect(stack.container(service))).encode()
    for name, value in proctor.settings().items():
        if name not in plain(proctor.settings()):
            assert value.encode() not in told
            assert json.dumps(value).strip('"').encode() not in told
