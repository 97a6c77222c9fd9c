"""`python -m app.simulator`: the embedded Proctor as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import PATIENCE, ROOT, Jobs

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start it with these arguments, on any free port."""
    processes = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.simulator", "--port", "0", *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def test_it_prints_the_settings_that_lead_there_and_keeps_a_record(start: Start, jobs: Jobs, tmp_path: Path) -> None:
    process = start("--exams", "5", "--limit", "3", "--faults", "503,ok", "--record", str(tmp_path / "record"))
    assert process.stdout
    assert process.stderr
    url = process.stderr.readline().split()[-1]
    lines = [process.stdout.readline() for _ in range(7)]
    settings = dict(line.rstrip("\n").split("=", 1) for line in lines)
    assert settings["PROCTOR_URL"] == url
    assert urlsplit(url).hostname == "127.0.0.1"
    (jobs.directory / ".env").write_text("".join(lines), encoding="utf-8")
    result = jobs.run({"MAX_WAIT": "0"})
    assert result.code == 0
    record_file = tmp_path / "record"
    while record_file.read_text().count("\n") < 3:
        pass  # each line is written after its response
    record = [json.loads(line) for line in record_file.read_text().splitlines()]
    assert [call["fault"] for call in record] == ["503", "ok", "ok"]
    assert sorted(exam for call in record for exam in call["expired"]) == sorted(result.exam_ids)
    assert len(result.exam_ids) == 5


def test_it_may_have_a_keycloak(start: Start) -> None:
    process = start("--token-endpoint", "keycloak")
    assert process.stdout
    assert any("/realms/sbac/" in process.stdout.readline() for _ in range(7))


def test_a_fault_that_does_not_exist_is_a_usage_error(start: Start) -> None:
    process = start("--faults", "ok,nonsense")
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (2, "")
    assert "'nonsense' is not a fault" in stderr


def test_the_help_lists_every_fault(start: Start) -> None:
    process = start("--help")
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr) == (0, "")
    for text in ("503-late:7", "varnish-after", "cut-gzip", "server_error", "--empty-list"):
        assert text in stdout
