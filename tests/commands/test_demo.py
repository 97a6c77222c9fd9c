"""The commands that need no settings: `demo`, `--version`, `--help`, and what is none of them."""

import os

import pytest

from app import __version__
from tests.support import Jobs


@pytest.mark.parametrize(("arguments", "exams"), [([], 250), (["--exams", "7"], 7), (["--exams", "0"], 0)])
def test_a_demonstration_prints_the_rows_of_made_up_exams(jobs: Jobs, arguments: list[str], exams: int) -> None:
    result = jobs.run({}, "demo", *arguments)
    assert result.code == 0
    assert len(set(result.exam_ids)) == len(result.rows) == exams
    assert b"made up" in result.stderr
    assert list(jobs.directory.iterdir()) == []


def test_a_demonstration_of_faults_shows_a_lost_response(jobs: Jobs) -> None:
    result = jobs.run({"LOG_FORMAT": "json"}, "demo", "--faults")
    assert result.code == 65
    assert len(result.rows) == 150
    assert len(result.events("token_rejected")) == 1
    assert len(result.events("response_lost")) == len(result.summary["lost"]) == 1
    assert any("503" in event["reason"] for event in result.events("retry"))


@pytest.mark.parametrize(
    "settings",
    [
        {"OUTPUT_DIR": "/does/not/exist", "MAX_WAIT": "nan", "AUTH_PASSWORD_FILE": "/x", "AUTH_PASSWORD": "y"},
        {"PROCTOR_URL": "https://proctor.example.org", "AUTH_URL": "https://sso.example.org", "CLIENT_NAME": ".."},
        {"HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://["},
        {"http_proxy": "http://["},
        {"ALL_PROXY": "http://["},
        {"HTTP_PROXY": "http://[", "NO_PROXY": "example.org"},
        {"HTTP_PROXY": "http://[", "no_proxy": "example.org"},
        {"REQUESTS_CA_BUNDLE": "/does/not/exist"},
    ],
)
def test_a_demonstration_goes_on_whatever_is_set(jobs: Jobs, settings: dict[str, str]) -> None:
    (jobs.directory / ".env").write_bytes(b"\xff this is no .env\nMAX_WAIT=soon\n")
    (jobs.directory / ".netrc").write_text("default login someone password else\n")
    result = jobs.run(settings, "demo", "--exams", "3")
    assert result.code == 0
    assert len(result.rows) == 3


def test_the_version_is_all_that_version_prints(jobs: Jobs) -> None:
    result = jobs.run({}, "--version")
    assert (result.code, result.stdout.decode().strip(), result.stderr) == (0, __version__, b"")


@pytest.mark.parametrize("command", [[], ["check"], ["demo"], ["standby"]])
def test_help_is_printed_for_every_command(jobs: Jobs, command: list[str]) -> None:
    result = jobs.run({}, *command, "--help")
    assert (result.code, result.stderr) == (0, b"")
    assert result.stdout.startswith(b"usage: python -m app")


@pytest.mark.parametrize(
    "arguments",
    [
        ["expire"],
        [""],
        ["--force"],
        ["--exams", "3"],
        ["check", "everything"],
        ["demo", "--exams"],
        ["demo", "--exams", "many"],
        ["demo", "--exams", "-5"],
        ["demo", "check"],
    ],
)
def test_wrong_usage_is_reported_on_stderr_alone(jobs: Jobs, arguments: list[str]) -> None:
    result = jobs.run({}, *arguments)
    assert (result.code, result.stdout) == (64, b"")
    assert result.stderr.startswith(b"usage: python -m app")


def test_a_demonstration_whose_stdout_is_closed_ends_and_expires_nothing(jobs: Jobs) -> None:
    result = jobs.finish(jobs.start({}, "demo", preexec_fn=lambda: os.close(1)))
    assert result.code == 74
    assert b"Nothing was expired" in result.stderr
