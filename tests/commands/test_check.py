"""`check` verifies everything that can be verified without expiring an exam, and leaves no trace."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.settings import NAMES
from tests.servers import responding, response, serving, silent
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


def test_the_text_of_an_endpoint_cannot_forge_a_line_or_steer_a_terminal(
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
def test_each_step_that_fails_is_shown_and_the_first_gives_the_exit_code(
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


@pytest.mark.parametrize("fault", ["server_error", "reset", "unknown-realm"])
def test_a_token_endpoint_that_fails_is_not_asked_again(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(token_faults=[fault])
    result = run(simulator, "check")
    assert (result.code, failed(result)) == (78 if fault == "unknown-realm" else 69, ["token"])
    assert simulator.token_requests == 1


@pytest.mark.parametrize("older_methods", [False, True])
@pytest.mark.parametrize("endpoint", ["openam", "keycloak"])
def test_proctor_is_recognized_by_its_response_to_options_or_get_alone(
    simulate: Simulate, run: Run, older_methods: bool, endpoint: str
) -> None:
    simulator = simulate(older_methods=older_methods, token_endpoint=endpoint)
    result = run(simulator, "check")
    assert (result.code, failed(result), simulator.record) == (0, [], [])
    assert b"exists and accepts the token" in result.stdout


NOT_ALLOWED = response(405, Allow="GET")
OPTIONS_OF_PROCTOR = response(200, Allow="POST")
GET_OF_PROCTOR = response(500, Connection="close")
SIGN_IN = b'<form action="https://sso.example.org/"><input name="SAMLRequest"/></form>'


@pytest.mark.parametrize(
    ("options", "get", "code", "words"),
    [
        (OPTIONS_OF_PROCTOR, GET_OF_PROCTOR, 0, ""),
        (response(405, Allow="POST"), response(405, Allow="POST"), 0, ""),
        (response(405, Allow="GET, POST"), NOT_ALLOWED, 0, ""),
        (response(403), response(405, Allow="POST"), 0, ""),
        (response(501), response(405, Allow="POST"), 0, ""),
        (NOT_ALLOWED, NOT_ALLOWED, 78, "no expire endpoint"),
        (response(405), response(405), 78, "no expire endpoint"),
        (response(404), response(404), 78, "no expire endpoint"),
        (response(200), response(200), 78, "is not Proctor's expire endpoint"),
        (response(200, Allow="GET, HEAD"), response(200), 78, "is not Proctor's expire endpoint"),
        (response(301, Location="https://new.example.org/SBAC_PT"), response(404), 78, "has moved to"),
        (response(302, Location="https://sso.example.org/?SAMLRequest=fVJ"), response(404), 77, "sign in"),
        (response(200, SIGN_IN), response(200, SIGN_IN), 77, "sign in"),
        (response(401, WWW_Authenticate="Bearer"), response(500), 77, "rejected the token with 401"),
        (response(400, WWW_Authenticate="Bearer"), response(500), 77, "rejected the token with 400"),
        (response(401, WWW_Authenticate="Basic"), response(401, WWW_Authenticate="Basic"), 77, "Basic login"),
        (response(403, WWW_Authenticate="Bearer"), response(403), 77, "issued for another service"),
        (response(403), response(403), 77, "a gateway's response, not Proctor's"),
        (response(418), response(418), 76, "418"),
        (response(429, Retry_After="3600"), response(429), 69, "429"),
        (response(500), response(500), 69, "500"),
        (response(503, Retry_After="3600"), response(503), 69, "503"),
    ],
)
def test_each_other_response_has_its_exit_code_and_message(
    simulate: Simulate, run: Run, options: bytes, get: bytes, code: int, words: str
) -> None:
    responses = {"OPTIONS": options, "GET": get}
    with serving(responding(lambda request: responses[request.method])) as server:
        result = run(simulate(), "check", PROCTOR_URL=server.url)
    assert (result.code, failed(result)) == (code, ["endpoint"] if code else [])
    lines = result.stdout.decode().splitlines()
    assert words in lines[-1]
    assert ".." not in lines[-1]
    assert "SAMLRequest" not in lines[-1]
    assert {request.method for request in server.requests} <= {"OPTIONS", "GET"}
    for request in server.requests:
        token = request.headers["Authorization"].partition(" ")[2]
        assert token.encode() not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("scenario", "settings", "code"),
    [
        ({"foreign_audience": True}, {}, 77),
        ({}, {"PROCTOR_URL": "{url}/elsewhere"}, 78),
        ({"sign_in": "form"}, {}, 0),
    ],
)
def test_nothing_is_ever_expired(
    simulate: Simulate, run: Run, scenario: dict[str, Any], settings: dict[str, str], code: int
) -> None:
    simulator = simulate(**scenario)
    places = {name: text.format(url=simulator.url) for name, text in settings.items()}
    result = run(simulator, "check", **places)
    assert (result.code, failed(result), simulator.record) == (code, ["endpoint"] if code else [], [])


def test_a_proctor_that_does_not_respond_is_unavailable(simulate: Simulate, run: Run) -> None:
    with serving(silent) as server:
        result = run(simulate(), "check", PROCTOR_URL=server.url, READ_TIMEOUT="3")
    assert (result.code, failed(result)) == (69, ["endpoint"])
    assert len(server.connections) == 1


@pytest.mark.parametrize("settings", [{"CLIENT_NAME": "Schüler"}, {"CLIENT_NAME": "", "CLIENT_NAME_FILE": "\udcff"}])
def test_what_stdout_cannot_show_does_not_stop_it(
    simulate: Simulate, jobs: Jobs, run: Run, settings: dict[str, str]
) -> None:
    (jobs.directory / os.fsdecode(b"\xff")).write_text("SBAC_PT")
    result = run(simulate(), "check", PYTHONIOENCODING="ascii", **settings)
    assert result.code == 0


@pytest.mark.parametrize(("settings", "code"), [({}, 0), ({"AUTH_PASSWORD": "wrong"}, 77)])
def test_the_exit_code_is_right_where_stdout_cannot(
    simulate: Simulate, jobs: Jobs, settings: dict[str, str], code: int
) -> None:
    with open("/dev/full", "wb") as full:
        result = jobs.run({**simulate().settings(), **settings}, "check", stdout=full)
    assert (result.code, result.stderr) == (code, b"")
