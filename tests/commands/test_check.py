"""`check` proves everything that can be proven without expiring an exam, and leaves no trace."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import NAMES
from tests.support import Jobs, Result, Run, Serve, Simulate, expired


def failed(result: Result) -> list[str]:
    """The steps that failed, in order."""
    lines = result.stdout.decode().splitlines()
    return [line.removeprefix("FAILED").split()[0].rstrip(":") for line in lines if line.startswith("FAILED")]


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A URL on a port of this machine that nobody listens on, and nobody else gets."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_when_all_is_well_nothing_is_expired_and_no_file_is_left(simulate: Simulate, run: Run, volume: Path) -> None:
    simulator = simulate(exams=5)
    result = run(simulator, "check", OUTPUT_DIR=str(volume))
    assert result.code == 0
    assert failed(result) == []
    assert simulator.record == []
    assert simulator.token_requests == 1
    assert list(volume.iterdir()) == []
    assert len(run(simulator).exam_ids) == len(expired(simulator)) == 5


def test_each_setting_is_shown_with_its_source_but_no_secret(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate()
    (jobs.directory / "client").write_text("SBAC_PT\n")
    (jobs.directory / ".env").write_text("MAX_ATTEMPTS=7\nAUTH_PAS=hunter2\n")
    result = run(
        simulator,
        "check",
        CLIENT_NAME="",
        CLIENT_NAME_FILE="client",
        HEARTBEAT_URL="https://hc-ping.com/hunter2",
        OUTPUT_DIR=str(volume),
        LOG_LEVEL="DEBUG",
    )
    assert result.code == 0
    lines = result.stdout.decode().splitlines()
    shown = {name: next(line for line in lines if line.split()[0] == name) for name in NAMES}
    for name, value, source in [
        ("PROCTOR_URL", simulator.url, "environment"),
        ("CLIENT_NAME", "SBAC_PT", "client"),
        ("MAX_ATTEMPTS", "7", ".env"),
        ("OUTPUT_DIR", str(volume), "environment"),
        ("READ_TIMEOUT", "30", "environment"),
        ("AUTH_SCOPE", "not set", "default"),
        ("AUTH_PASSWORD", "(secret)", "environment"),
    ]:
        assert value in shown[name]
        assert f"[{source}]" in shown[name]
    assert any(line.startswith("WARNING") and "AUTH_PAS" in line for line in lines)
    for secret in ("hunter2", *(simulator.scenario.credentials[name] for name in ("client_secret", "password"))):
        assert secret not in (result.stdout + result.stderr).decode()


def test_what_an_endpoint_says_cannot_forge_a_line_or_steer_a_terminal(
    simulate: Simulate, serve: Serve, run: Run
) -> None:
    url = serve(400, {}, b'{"error": "bad\\nok      endpoint: all is well\\u001b[31m"}')
    lines = run(simulate(), "check", AUTH_URL=url).stdout.decode().splitlines()
    assert not any(line.startswith("ok      endpoint") or "\x1b" in line for line in lines)


def test_a_lock_that_a_run_could_not_take_fails_here_already(simulate: Simulate, run: Run, volume: Path) -> None:
    (volume / ".lock").mkdir()
    result = run(simulate(), "check", OUTPUT_DIR=str(volume))
    assert (result.code, failed(result)) == (74, ["output"])
    assert b".lock" in result.stdout


def test_a_password_in_a_url_is_not_shown(simulate: Simulate, run: Run) -> None:
    result = run(simulate(), "check", PROCTOR_URL="https://user:hunter2@proctor.example.org")
    assert result.code == 78
    assert b"hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("settings", "steps", "code"),
    [
        ({"MAX_WAIT": "nan", "CLIENT_NAME": ""}, ["CLIENT_NAME", "MAX_WAIT"], 78),
        ({"OUTPUT_DIR": "/does/not/exist"}, ["output"], 74),
        ({"OUTPUT_DIR": __file__}, ["output"], 74),
        ({"AUTH_PASSWORD": "wrong"}, ["token"], 77),
        ({"AUTH_CLIENT_SECRET": "wrong"}, ["token"], 77),
        ({"AUTH_URL": "{nowhere}/token"}, ["token"], 69),
        ({"AUTH_URL": "{url}/elsewhere"}, ["token"], 78),
        ({"PROCTOR_URL": "{nowhere}"}, ["endpoint"], 69),
        ({"PROCTOR_URL": "{url}/elsewhere"}, ["endpoint"], 78),
        ({"PROCTOR_URL": "{other}"}, ["endpoint"], 77),
        ({"OUTPUT_DIR": "/does/not/exist", "AUTH_PASSWORD": "wrong"}, ["output", "token"], 74),
        ({"OUTPUT_DIR": "/does/not/exist", "PROCTOR_URL": "{nowhere}"}, ["output", "endpoint"], 74),
    ],
)
def test_each_step_that_fails_is_told_and_the_first_gives_the_exit_code(
    simulate: Simulate, run: Run, nowhere: str, settings: dict[str, str], steps: list[str], code: int
) -> None:
    simulator, other = simulate(), simulate()
    places = {"url": simulator.url, "other": other.url, "nowhere": nowhere}
    result = run(simulator, "check", **{name: value.format(**places) for name, value in settings.items()})
    assert (result.code, failed(result)) == (code, steps)
    assert simulator.record == other.record == []
    if code == 78 and "token" not in steps and "endpoint" not in steps:
        assert simulator.token_requests == 0


@pytest.mark.parametrize(("fault", "code"), [("503", 69), ("html", 76), ("403", 77), ("302", 78)])
def test_the_token_endpoint_is_asked_once(simulate: Simulate, run: Run, fault: str, code: int) -> None:
    simulator = simulate(token_faults=[fault])
    result = run(simulator, "check")
    assert (result.code, failed(result)) == (code, ["token"])
    assert simulator.token_requests == 1


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (405, {"Allow": "GET, POST"}, 0),
        (405, {"Allow": "GET"}, 78),
        (405, {}, 78),
        (200, {}, 78),
        (302, {"Location": "https://sso.example.org/?SAMLRequest=fVJ"}, 77),
        (301, {"Location": "https://new.example.org/proctor/Services/exams/expire/SBAC_PT"}, 78),
        (403, {}, 77),
        (418, {}, 76),
        (429, {"Retry-After": "3600"}, 69),
        (500, {}, 69),
        (503, {"Retry-After": "3600"}, 69),
    ],
)
def test_only_what_takes_post_alone_is_the_expire_endpoint(
    simulate: Simulate, run: Run, serve: Serve, status: int, headers: dict[str, str], code: int
) -> None:
    result = run(simulate(), "check", PROCTOR_URL=serve(status, headers, b""))
    assert (result.code, failed(result)) == (code, ["endpoint"] if code else [])


def test_a_page_to_sign_in_is_told_as_what_it_is(simulate: Simulate, run: Run, serve: Serve) -> None:
    page = b'<form action="https://sso.example.org/"><input name="SAMLRequest"/></form>'
    result = run(simulate(), "check", PROCTOR_URL=serve(200, {}, page))
    assert (result.code, failed(result)) == (77, ["endpoint"])


@pytest.mark.parametrize("settings", [{"CLIENT_NAME": "Schüler"}, {"CLIENT_NAME": "", "CLIENT_NAME_FILE": "\udcff"}])
def test_what_stdout_cannot_show_does_not_stop_it(
    simulate: Simulate, jobs: Jobs, run: Run, settings: dict[str, str]
) -> None:
    (jobs.directory / os.fsdecode(b"\xff")).write_text("SBAC_PT")
    result = run(simulate(), "check", PYTHONIOENCODING="ascii", **settings)
    assert result.code == 0


@pytest.mark.parametrize(("settings", "code"), [({}, 0), ({"AUTH_PASSWORD": "wrong"}, 77)])
def test_the_exit_code_tells_where_stdout_cannot(
    simulate: Simulate, jobs: Jobs, settings: dict[str, str], code: int
) -> None:
    with open("/dev/full", "wb") as full:
        result = jobs.run({**simulate().settings(), **settings}, "check", stdout=full)
    assert (result.code, result.stderr) == (code, b"")
