"""README, "Run it" and "Without a container": secrets, settings, and a crontab, typed in a clone."""

import json
import re
import shutil
import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.simulator import Simulator
from tests.documents import commands
from tests.documents.clone import INSTALLATION, Clone
from tests.support import Result, Simulate, expired, ids

INSTALL, CRONTAB = commands("README.md", "Without a container")
JOB, REPORT = CRONTAB.splitlines()


def give_secrets(clone: Clone, simulator: Simulator) -> None:
    """Do what "Run it" says, and type the secrets at its prompts."""
    (block,) = commands("README.md", "Run it")
    typed = simulator.scenario.credentials
    clone.type_at_prompts(block, {"Client secret: ": typed["client_secret"], "Password: ": typed["password"]})


def fill_in(clone: Clone, simulator: Simulator) -> None:
    """Fill in `.env` as "Without a container" says, without long waits."""
    settings = simulator.settings()
    for name in "AUTH_CLIENT_SECRET", "AUTH_PASSWORD":
        del settings[name]
        settings[f"{name}_FILE"] = f"secrets/{name.lower()}"
    clone.fill_in(**settings, OUTPUT_DIR="output", MAX_WAIT="0")


@pytest.fixture
def installed(clone: Clone, first_look: tuple[Clone, Result]) -> Clone:
    """A clone with the virtual environment of another, and a directory for the output."""
    (clone.directory / ".venv").symlink_to(first_look[0].directory / ".venv")
    (clone.directory / "output").mkdir()
    return clone


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_in_files_that_nobody_else_reaches(clone: Clone, simulate: Simulate) -> None:
    simulator = simulate()
    give_secrets(clone, simulator)
    secrets = clone.directory / "secrets"
    assert (mode(secrets), mode(clone.directory / ".env")) == (0o700, 0o600)
    for name in "client_secret", "password":
        path = secrets / f"auth_{name}"
        assert mode(path) == 0o644
        assert path.read_text(encoding="utf-8") == simulator.scenario.credentials[name]
    assert len(list(secrets.iterdir())) == 2


def test_check_verifies_an_installation_in_the_environment_of_cron(clone: Clone, simulate: Simulate) -> None:
    simulator = simulate()
    give_secrets(clone, simulator)
    fill_in(clone, simulator)
    result = clone.type(INSTALL, INSTALLATION)
    assert result.code == 0, result.stdout + result.stderr
    verified = re.findall(r"^(\S+) +(\w+)", result.stdout.decode(), re.MULTILINE)[-4:]
    assert verified == [("ok", "settings"), ("ok", "output"), ("ok", "token"), ("ok", "endpoint")]
    assert not simulator.record


def test_a_good_run_and_the_report_after_it_send_no_mail(installed: Clone, simulate: Simulate) -> None:
    simulator = simulate(exams=250, faults=["503"])
    give_secrets(installed, simulator)
    fill_in(installed, simulator)
    for line in JOB, REPORT:
        assert installed.cron(line) == Result(0, b"", b"")
    (csv,) = (installed.directory / "output").glob("*.csv")
    assert ids(csv.read_bytes()) == expired(simulator)
    for path in csv, installed.directory / "job.log":
        assert mode(path) & 0o007 == 0


def test_a_failed_run_sends_the_last_line_of_its_log_and_the_report_says_so_again(
    installed: Clone, simulate: Simulate
) -> None:
    simulator = simulate(exams=250)
    give_secrets(installed, simulator)
    fill_in(installed, simulator)
    assert installed.cron(JOB).code == 0
    installed.fill_in(AUTH_USERNAME="somebody.else@example.org")
    mail = installed.cron(JOB)
    assert mail.stderr == b""
    assert mail.stdout.splitlines(keepends=True) == (installed.directory / "job.log").read_bytes().splitlines(True)[-1:]
    assert b"Ended with exit code 77: 0 exams" in mail.stdout
    report = installed.cron(REPORT)
    assert b"ended with exit code 77" in report.stdout
    for row in simulator.exam_events():
        assert str(row["studentId"]).encode() not in mail.stdout + report.stdout


def test_the_report_is_a_mail_while_a_lost_response_is_unresolved(installed: Clone, simulate: Simulate) -> None:
    simulator = simulate(exams=250, faults=["ok", "reset-after"])
    give_secrets(installed, simulator)
    fill_in(installed, simulator)
    assert b"Ended with exit code 65" in installed.cron(JOB).stdout
    assert installed.cron(JOB).stdout == b""
    assert b"Unresolved: " in installed.cron(REPORT).stdout


def test_the_report_is_a_mail_if_no_run_has_ended_for_long(installed: Clone, simulate: Simulate) -> None:
    assert b"There is no summary of a run in output." in installed.cron(REPORT).stdout
    simulator = simulate(exams=3)
    give_secrets(installed, simulator)
    fill_in(installed, simulator)
    installed.cron(JOB)
    (path,) = (installed.directory / "output").glob("*.json")
    summary = json.loads(path.read_bytes())
    for hours, is_silent in (25, True), (27, False):
        earlier = {
            name: (datetime.fromisoformat(summary[name]) - timedelta(hours=hours)).isoformat()
            for name in ("started", "ended")
        }
        path.write_text(json.dumps(summary | earlier))
        assert (installed.cron(REPORT).stdout == b"") == is_silent
    shutil.rmtree(installed.directory / "output")
    assert installed.cron(REPORT).stderr != b""
