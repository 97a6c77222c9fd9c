"""The README's commands for docker run and docker compose, in their order, as an operator types them in a clone."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.containers.secrets import plain
from tests.containers.stack import FINISHED, LATER, SOON
from tests.documents import commands
from tests.embedded import EmbeddedProctor
from tests.support import PATIENCE, ROOT, expired, ids_in, output_of


@pytest.fixture
def clone(tmp_path: Path, proctor: EmbeddedProctor) -> Path:
    """A clone in which the section "Run it" was followed: it has secret files, and a filled-in `.env`."""
    clone = tmp_path / "clone"
    clone.mkdir()
    shutil.copytree(ROOT / "app", clone / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ".env.example", ".dockerignore", "Dockerfile", "docker-compose.yml", "requirements.txt":
        shutil.copy(ROOT / name, clone)
    (prepare,) = commands("README.md", "Run it")
    secrets = proctor.scenario.credentials
    bash(clone, prepare, typed=f"{secrets['client_secret']}\n{secrets['password']}\n")
    set_in(clone, plain(proctor.settings()))
    return clone


def bash(clone: Path, script: str, typed: str = "") -> str:
    """Run a script in an operator's shell, with what is typed into it; returns its stdout."""
    command = ["bash", "-euc", script]
    return output_of(command, typed=typed, cwd=clone, env=environment(clone), timeout=PATIENCE * 5)


def first_line(clone: Path, command: str, pattern: str) -> str:
    """Run a command until it prints a line that matches; returns that."""
    patient = ["timeout", str(PATIENCE * 5), "bash", "-c", command]
    with subprocess.Popen(patient, cwd=clone, env=environment(clone), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = next((line for line in process.stdout if re.search(pattern, line)), "")
        process.terminate()
    assert line, f"{command} did not print {pattern}"
    return line


def environment(clone: Path) -> dict[str, str]:
    socket = os.environ.get("DOCKER_HOST", "").removeprefix("unix://")
    project = f"{os.getpid()}-{clone.parent.name.replace('_', '-').lower()}"
    return {**os.environ, "COMPOSE_PROJECT_NAME": project, "DOCKER_SOCKET": socket}


def set_in(clone: Path, settings: dict[str, str]) -> None:
    """Fill in settings in `.env`."""
    text = (clone / ".env").read_text()
    for name, value in settings.items():
        text = re.sub(rf"^#?{name}=.*\n", "", text, flags=re.MULTILINE) + f"{name}={value}\n"
    (clone / ".env").write_text(text)


def assert_recorded(directory: Path, proctor: EmbeddedProctor) -> None:
    """The CSVs in a directory have each exam that Proctor expired, once."""
    assert ids_in(directory) == sorted(expired(proctor))
    assert len(expired(proctor)) == 250


def test_the_commands_of_docker_run_work(proctor: EmbeddedProctor, clone: Path) -> None:
    first, second = commands("README.md", "docker run")
    build, job, check, run = first.splitlines(keepends=True)
    checked = bash(clone, build + job + check)
    assert re.findall(r"^ok +(\w+)", checked, re.MULTILINE) == ["settings", "output", "token", "endpoint"]
    assert not proctor.record
    bash(clone, job + run)
    assert_recorded(clone, proctor)

    proctor.scenario.faults = ["reset-after"]
    set_in(clone, {"MAX_ATTEMPTS": "1"})
    output, run, history = second.splitlines(keepends=True)
    bash(clone, f"{output}{job}! {run}")
    assert " failed 65 " in " ".join(bash(clone, f"{job}! {history}").split())
    (summary,) = (clone / "output").glob("*.json")
    assert stat.S_IMODE(summary.stat().st_mode) == 0o640
    recover, *_ = commands("README.md", "You were paged")[0].splitlines()
    assert "FROM exam.exam_event" in bash(clone, recover)


def test_the_commands_of_docker_compose_work(proctor: EmbeddedProctor, clone: Path) -> None:
    up, others = commands("README.md", "docker compose")
    run, follow, history, copy, change = others.splitlines()
    try:
        set_in(clone, {"SCHEDULE": SOON})
        bash(clone, up)
        first_line(clone, "docker compose logs -f ofelia", FINISHED)
        set_in(clone, {"SCHEDULE": LATER})
        bash(clone, change)
        assert "Done: 250 exams" in first_line(clone, follow.replace("tail -f", "tail -n +1 -f"), "Done: 250")
        bash(clone, run)
        assert " drained 0 225 25 " in " ".join(bash(clone, history).split())
        bash(clone, copy)
        assert_recorded(clone / "fetched", proctor)
        _, recover, _ = commands("README.md", "You were paged")[0].splitlines()
        assert bash(clone, recover) == ""
    finally:
        bash(clone, "docker compose --profile run down -v -t 5 --remove-orphans")
