"""The compose stack in a project directory of its own, and what its containers report."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from threading import Timer
from typing import Any

from tests.containers.engine import IMAGE, Engine
from tests.containers.secrets import plain, write_secrets
from tests.embedded import EmbeddedProctor
from tests.support import PATIENCE, ROOT, rows_of

LOG = "/output/force-submit.log"
SOON = "@every 2s"
LATER = "0 0 0 29 2 *"
FINISHED = r"Finished in .*skipped: false"


class Stack:
    """A project directory with the compose file as it is, a filled-in .env and secret files."""

    def __init__(self, engine: Engine, directory: Path, proctor: EmbeddedProctor) -> None:
        self.engine = engine
        self.directory = directory
        self.project = f"{os.getpid()}-{directory.name.replace('_', '-').lower()}"
        self._settings = plain(proctor.settings()) | {"LOG_FORMAT": "json", "SCHEDULE": LATER}
        copy(ROOT / "docker-compose.yml", directory)
        write_secrets(directory / "secrets", proctor)
        self.configure()

    def configure(self, **settings: str) -> None:
        """Write .env, with these settings in place of the usual ones."""
        lines = [f"{name}={value}\n" for name, value in (self._settings | settings).items()]
        (self.directory / ".env").write_text("".join(lines))

    def label_ofelia(self, labels: dict[str, str], *volumes: str) -> None:
        """Give ofelia labels for its reports, and volumes, by an override file, as users do."""
        ofelia = {"labels": {f"ofelia.{name}": value for name, value in labels.items()}, "volumes": volumes}
        (self.directory / "docker-compose.override.yml").write_text(json.dumps({"services": {"ofelia": ofelia}}))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command of docker compose."""
        return subprocess.Popen(
            ["docker", "compose", "-p", self.project, *arguments],
            cwd=self.directory,
            env={**os.environ, "DOCKER_SOCKET": os.environ.get("DOCKER_HOST", "").removeprefix("unix://")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command of docker compose to its end."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def up(self, **settings: str) -> None:
        """Bring the whole stack up, with these settings in .env."""
        self.configure(**settings)
        result = self.compose("up", "-d")
        assert result.returncode == 0, result.stderr

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", "--all", service).stdout.decode().strip()

    def state(self, service: str) -> str:
        return str(self.engine.inspect(self.container(service))["State"]["Status"])

    def execute(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the standby container."""
        return self.compose("exec", "-T", "standby", *command)

    def health(self) -> tuple[int, str]:
        """What the health check of the standby container finds."""
        _, *command = self.engine.inspect(self.container("standby"))["Config"]["Healthcheck"]["Test"]
        result = self.execute(*command)
        return result.returncode, result.stdout.decode()

    def log(self, service: str, pattern: str, times: int = 1, *, tail: str = "all") -> str:
        """Follow the log of a service up to the line that is number `times` to match; returns it."""
        with _follow("docker", "logs", "-f", "--tail", tail, self.container(service)) as lines:
            return _nth(lines, pattern, times)

    def job_log(self, pattern: str, times: int = 1) -> str:
        """Follow the job's log on the volume in the same way, from within the standby container."""
        with _follow("docker", "exec", self.container("standby"), "tail", "-F", "-n", "+1", LOG) as lines:
            return _nth(lines, pattern, times)

    def fetch(self) -> Path:
        """A copy of the volume, also where no container of the stack is left."""
        target = self.directory / "fetched"
        subprocess.run(["rm", "-rf", target], check=True)
        fetch = f"{self.project}-fetch"
        self.engine.docker("create", "--name", fetch, "-v", f"{self.project}_output:/output", IMAGE)
        self.engine.docker("cp", f"{fetch}:/output", str(target))
        self.engine.docker("rm", fetch)
        return target

    def reports(self) -> list[tuple[list[dict[str, str]], dict[str, Any]]]:
        """Rows and summary of each run that ended, oldest first."""
        return [
            (rows_of(path.with_suffix(".csv").read_bytes()), json.loads(path.read_text()))
            for path in sorted(self.fetch().glob("*.json"))
        ]

    def exam_ids(self) -> list[str]:
        """The exams in all CSVs together."""
        contents = [path.read_bytes() for path in self.fetch().glob("*.csv")]
        return sorted(row["examId"] for content in contents for row in rows_of(content))

    def close(self) -> None:
        self.compose("--profile", "run", "down", "-v", "-t", "5", "--remove-orphans")


def line_in(file: Path, pattern: str) -> str:
    """Follow a file up to the first line that matches; returns it."""
    with _follow("tail", "-F", "-n", "+1", str(file)) as lines:
        return _nth(lines, pattern, 1)


@contextmanager
def _follow(*command: str) -> Iterator[Iterator[str]]:
    """The lines that a command prints; it is ended with the block, or when it hangs."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        limit = Timer(PATIENCE, process.kill)
        limit.start()
        try:
            yield process.stdout
        finally:
            limit.cancel()
            process.kill()


def _nth(lines: Iterator[str], pattern: str, times: int) -> str:
    seen: list[str] = []
    for line in lines:
        seen.append(line)
        times -= bool(re.search(pattern, line))
        if not times:
            return line
    raise AssertionError(f"{pattern!r} is missing in\n{''.join(seen)}")
