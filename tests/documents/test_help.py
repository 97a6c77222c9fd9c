"""`--help` of each command: complete, and its examples work as they are."""

import re
from pathlib import Path

import pytest

from app.exceptions import ExitCode
from app.settings import NAMES
from tests.recover.database import Database
from tests.recover.runs import fill
from tests.recover.shell import Shell
from tests.support import QUICK, Jobs, Run, Simulate, expired, ids_in, rows_of


def help_of(jobs: Jobs, *command: str) -> str:
    return jobs.run({}, *command, "--help").stdout.decode()


def examples(jobs: Jobs, *command: str) -> list[str]:
    """The examples in the help of a command, each a line of a shell."""
    return re.findall(r"^  ((?:python|mysql|mkdir) .*)$", help_of(jobs, *command), re.MULTILINE)


def place(shell: Shell) -> Path:
    return Path(shell("pwd").stdout.decode().strip())


def test_every_setting_and_every_exit_code_is_named(jobs: Jobs) -> None:
    text = help_of(jobs)
    assert set(NAMES) <= set(re.findall(r"\w+", text))
    codes = re.findall(r"^  (\d+) +\S", text.partition("exit codes:\n")[2], re.MULTILINE)
    assert [int(code) for code in codes[:-1]] == list(ExitCode)
    assert codes[-1] == "128"


@pytest.mark.parametrize("command", ["", "check", "demo", "history", "recover", "standby"])
def test_no_line_is_wider_than_the_readme(jobs: Jobs, command: str) -> None:
    assert max(map(len, help_of(jobs, *command.split()).splitlines())) <= 120


def test_the_examples_of_the_job_work(jobs: Jobs, simulate: Simulate, shell: Shell) -> None:
    check, to_stdout, to_directory = examples(jobs)
    simulator = simulate(exams=250)
    settings = {**simulator.settings(), **QUICK}
    assert examples(jobs, "check") == [check]
    assert shell(check, **settings).code == 0
    assert not simulator.record
    assert shell(to_stdout, **settings).code == 0
    assert [row["examId"] for row in rows_of((place(shell) / "expired.csv").read_bytes())] == expired(simulator)
    again = simulate(exams=150)
    assert shell(to_directory, **{**settings, **again.settings()}).code == 0
    assert ids_in(place(shell) / "output") == sorted(expired(again))
    (history,) = examples(jobs, "history")
    assert shell(history).code == 0


def test_the_examples_of_the_demo_work(jobs: Jobs, shell: Shell) -> None:
    expected = [(0, 250), (0, 5000), (65, 150)]
    for example, (code, exams) in zip(examples(jobs, "demo"), expected, strict=True):
        assert shell(example).code == code
        assert len(rows_of((place(shell) / "expired.csv").read_bytes())) == exams


def test_the_example_of_standby_reads_the_settings_of_the_job(jobs: Jobs, shell: Shell) -> None:
    """With settings it runs in the tests of containers alone: it would pass its signal on to all runs around it."""
    (example,) = examples(jobs, "standby")
    result = shell(example)
    assert (result.code, b"PROCTOR_URL" in result.stderr) == (78, True)


def test_the_examples_of_recover_work(
    jobs: Jobs, simulate: Simulate, run: Run, database: Database, shell: Shell
) -> None:
    query, recover, from_log, acknowledge, *_ = examples(jobs, "recover")
    simulator = simulate(exams=250, faults=["ok", "reset-after"])
    output = place(shell) / "output"
    output.mkdir()
    assert run(simulator, OUTPUT_DIR=str(output)).code == 65
    fill(database, [simulator])
    assert shell(query).code == 0
    assert shell(recover).code == 0
    assert ids_in(output) == sorted(expired(simulator))

    csv = next(path for path in output.glob("*.csv") if "recovered" not in path.name)
    *rows, last = csv.read_bytes().splitlines(keepends=True)
    csv.write_bytes(b"".join(rows))
    (output.parent / "job.log").write_bytes(b"2026-11-22T02:00:00.679Z ERROR   UNWRITTEN ROW " + last)
    assert shell(from_log).code == 0
    assert ids_in(output) == sorted(expired(simulator))

    assert run(simulate(faults=["reset-before"]), OUTPUT_DIR=str(output)).code == 65
    assert shell("python -m app history output").code == 1
    assert shell(acknowledge).code == 0
    assert shell("python -m app history output").code == 0


def test_the_examples_of_recover_work_without_a_directory(
    jobs: Jobs, simulate: Simulate, run: Run, database: Database, shell: Shell
) -> None:
    *_, query, recover = examples(jobs, "recover")
    simulator = simulate(exams=250, faults=["ok", "reset-after"])
    result = run(simulator)
    (place(shell) / "expired.csv").write_bytes(result.stdout)
    fill(database, [simulator])
    (lost,) = result.events("response_lost")
    times = re.findall(r"\S+Z\b", query)
    for time, name in zip(times, ("start", "end"), strict=True):
        query = query.replace(time, lost[name])
    assert shell(query).code == 0
    assert shell(recover).code == 0
    recovered = rows_of((place(shell) / "recovered.csv").read_bytes())
    assert sorted(result.exam_ids + [row["examId"] for row in recovered]) == sorted(expired(simulator))
