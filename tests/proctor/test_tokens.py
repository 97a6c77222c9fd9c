"""The bearer token: how it is asked for, kept and renewed, and that no secret is told on the way."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html import escape
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from urllib.parse import parse_qsl, quote, quote_plus

import pytest

from tests.support import Jobs, Result, Run, Simulate, delivered, expired

Serve = Callable[[Callable[[], tuple[int, object]]], "TokenEndpoint"]

SECRET = "hunter2-$&%+é"
FORM = "application/x-www-form-urlencoded"


class TokenEndpoint:
    """Answers every token request with what `answer` returns: a status, and bytes or what becomes JSON."""

    def __init__(self, answer: Callable[[], tuple[int, object]]) -> None:
        self.bodies: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.bodies.append(dict(parse_qsl(body.decode("ascii"), keep_blank_values=True)))
                endpoint.headers.append(dict(self.headers.items()))
                status, content = answer()
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/token?realm=/sbac"
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start token endpoints that do what a test tells them."""
    with ExitStack() as stack:

        def start(answer: Callable[[], tuple[int, object]]) -> TokenEndpoint:
            endpoint = TokenEndpoint(answer)
            stack.callback(endpoint.close)
            return endpoint

        yield start


def everything(result: Result) -> str:
    return (result.stdout + result.stderr).decode() + json.dumps(result.log, ensure_ascii=False)


@pytest.mark.parametrize("client_auth", ["post", "basic"])
@pytest.mark.parametrize("odd", [" $HOME ${X} ", "a&b=c%25%+d", "pässwörd 日本", "\"'`\\:;/?#@[]", "line\r\nbreak\t"])
def test_odd_credentials_arrive_whole(simulate: Simulate, run: Run, client_auth: str, odd: str) -> None:
    name = f"<{odd}>" if odd.isprintable() else "plain"
    credentials = {"client_id": name, "client_secret": f"s{odd}", "username": name, "password": odd}
    simulator = simulate(exams=1, credentials=credentials)
    result = run(simulator, AUTH_CLIENT_AUTH=client_auth)
    assert result.code == 0
    assert len(result.exam_ids) == 1


@pytest.mark.parametrize(
    ("settings", "fields", "has_basic"),
    [
        ({}, {"grant_type", "username", "password", "client_id", "client_secret"}, False),
        (
            {"AUTH_SCOPE": "proctor openid"},
            {"grant_type", "scope", "username", "password", "client_id", "client_secret"},
            False,
        ),
        ({"AUTH_CLIENT_AUTH": "basic"}, {"grant_type", "username", "password"}, True),
        ({"AUTH_GRANT_TYPE": "client_credentials"}, {"grant_type", "client_id", "client_secret"}, False),
        (
            {"AUTH_GRANT_TYPE": "client_credentials", "AUTH_CLIENT_AUTH": "basic", "AUTH_SCOPE": "proctor openid"},
            {"grant_type", "scope"},
            True,
        ),
    ],
)
def test_a_token_request_is_a_form_of_these_fields(
    simulate: Simulate, serve: Serve, run: Run, settings: dict[str, str], fields: set[str], has_basic: bool
) -> None:
    simulator = simulate(exams=1)
    endpoint = serve(lambda: (200, {"access_token": simulator.grant()[0]}))
    result = run(simulator, AUTH_URL=endpoint.url, **settings)
    assert result.code == 0
    (body,), (headers,) = endpoint.bodies, endpoint.headers
    assert body.keys() == fields
    assert body["grant_type"] == settings.get("AUTH_GRANT_TYPE", "password")
    assert body.get("scope") == settings.get("AUTH_SCOPE")
    assert headers["Content-Type"] == FORM
    assert headers.get("Authorization", "").startswith("Basic ") == has_basic


def test_one_token_serves_a_whole_run(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=50, limit=10)
    assert run(simulator).code == 0
    assert simulator.token_requests == 1


def test_a_token_that_dies_with_each_call_is_replaced_for_each_call(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=50, limit=10, token_calls=1)
    result = run(simulator)
    assert result.code == 0
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert len(result.exam_ids) == 50
    assert result.summary["lost"] == []
    assert simulator.token_requests == result.summary["calls"] == 5


def test_a_token_about_to_expire_is_renewed_before_the_call(simulate: Simulate, serve: Serve, run: Run) -> None:
    simulator = simulate(exams=50, limit=10)
    endpoint = serve(lambda: (200, {"access_token": simulator.grant()[0], "expires_in": 1e-9}))
    result = run(simulator, AUTH_URL=endpoint.url)
    assert result.code == 0
    assert len(endpoint.bodies) == len(simulator.record) == 5
    assert result.events("token_rejected") == []


@pytest.mark.parametrize("expires_in", ["3600", '"3600"', "0", "-1", "null", '"soon"', "NaN", "9" * 400])
def test_an_odd_lifetime_of_a_token_does_not_stop_a_run(
    simulate: Simulate, serve: Serve, run: Run, expires_in: str
) -> None:
    simulator = simulate(exams=20, limit=10)
    answer = '{"access_token": "%s", "expires_in": %s}'
    endpoint = serve(lambda: (200, (answer % (simulator.grant()[0], expires_in)).encode()))
    result = run(simulator, AUTH_URL=endpoint.url, LOG_LEVEL="DEBUG")
    assert result.code == 0
    assert len(result.exam_ids) == 20


@pytest.mark.parametrize("wrong", ["client_id", "client_secret", "username", "password"])
def test_a_wrong_credential_ends_the_run_with_what_to_check_and_no_secret(
    simulate: Simulate, run: Run, wrong: str
) -> None:
    simulator = simulate()
    result = run(simulator, LOG_LEVEL="DEBUG", **{f"AUTH_{wrong.upper()}": SECRET})
    assert result.code == 77
    assert f"AUTH_{wrong.upper()}" in result.message
    for secret in (SECRET, *(simulator.scenario.credentials[name] for name in ("client_secret", "password"))):
        assert secret not in everything(result)
    assert simulator.token_requests == 1  # a second try would help to lock the account
    assert simulator.record == []


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        *[(status, 77) for status in ("400", "401", "403")],
        *[(status, 78) for status in ("302", "307", "404", "405")],
        *[(answer, 76) for answer in ("html", "no-token", "201", "418")],
    ],
)
def test_what_is_no_token_ends_the_run_at_once(simulate: Simulate, run: Run, fault: str, code: int) -> None:
    simulator = simulate(token_faults=[fault])
    result = run(simulator)
    assert result.code == code
    assert "AUTH_URL" in result.message
    assert simulator.token_requests == 1
    assert simulator.record == []
    assert result.rows == []


@pytest.mark.parametrize("fault", ["500", "503", "503:0", "429:date", "reset", "silence"])
def test_a_token_endpoint_that_is_down_for_a_moment_is_asked_again(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=5, token_faults=[fault])
    result = run(simulator, READ_TIMEOUT="1")
    assert result.code == 0
    assert len(result.exam_ids) == 5
    assert simulator.token_requests == 2
    assert result.summary["lost"] == []


def test_a_token_endpoint_that_stays_down_ends_the_run_before_anything_is_expired(simulate: Simulate, run: Run) -> None:
    simulator = simulate(token_faults=["503"] * 9)
    result = run(simulator, MAX_ATTEMPTS="3")
    assert result.code == 69
    assert simulator.token_requests == 3
    assert result.summary["retries"] == 2
    assert simulator.record == []


@pytest.mark.parametrize(("faults", "code"), [(["ok", "401"], 77), (["ok", *["503"] * 12], 69), (["ok", "html"], 76)])
def test_a_token_that_cannot_be_renewed_ends_the_run_with_the_rows_so_far(
    simulate: Simulate, run: Run, faults: list[str], code: int
) -> None:
    simulator = simulate(exams=50, limit=10, token_calls=2, token_faults=faults)
    result = run(simulator)
    assert result.code == code
    assert sorted(result.exam_ids) == sorted(delivered(simulator)) == sorted(expired(simulator))
    assert len(result.exam_ids) == 20
    assert result.summary["lost"] == []


@pytest.mark.parametrize("client_auth", ["post", "basic"])
def test_other_credentials_in_a_netrc_are_not_used(simulate: Simulate, jobs: Jobs, run: Run, client_auth: str) -> None:
    netrc = jobs.directory / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\ndefault login someone password else\n")
    netrc.chmod(0o600)
    simulator = simulate(exams=5)
    result = run(simulator, AUTH_CLIENT_AUTH=client_auth, NETRC=str(netrc))
    assert result.code == 0
    assert len(result.exam_ids) == 5


@pytest.mark.parametrize(
    "token",
    [
        f"{SECRET}\r\nX-Evil: 1",
        "hunter2\n",
        "hunter2 hunter2",
        " hunter2",
        "hunter2\0",
        "hunter2é",
        "",
        None,
        7,
        ["hunter2"],
    ],
)
def test_a_token_that_no_header_can_carry_is_refused_unseen(
    simulate: Simulate, serve: Serve, run: Run, token: object
) -> None:
    simulator = simulate()
    endpoint = serve(lambda: (200, {"access_token": token, "expires_in": 60}))
    result = run(simulator, AUTH_URL=endpoint.url, LOG_LEVEL="DEBUG")
    assert result.code == 76
    assert "AUTH_URL" in result.message
    assert "hunter2" not in everything(result)
    assert simulator.record == []


@pytest.mark.parametrize("body", [b"", b"hunter2", b'["hunter2"]', b"[" * 100_000, b"\xff\xfe\x00", b"7" * 5000])
@pytest.mark.parametrize(("status", "code"), [(200, 76), (400, 77)])
def test_an_answer_that_is_no_json_is_not_repeated(
    simulate: Simulate, serve: Serve, run: Run, body: bytes, status: int, code: int
) -> None:
    simulator = simulate()
    result = run(simulator, AUTH_URL=serve(lambda: (status, body)).url, LOG_LEVEL="DEBUG")
    assert result.code == code
    assert "hunter2" not in everything(result)
    assert "Traceback" not in everything(result)


@pytest.mark.parametrize(
    "description",
    [
        f"bad password {SECRET}",
        f"{SECRET}{SECRET}",
        f"{'x' * 190}{SECRET}",
        f"password={quote_plus(SECRET)}&",
        f"{SECRET}-and-more",
        quote(SECRET),
        quote_plus(SECRET).lower(),
        escape(SECRET),
        json.dumps(SECRET),
        b64encode(f"proctor-client:{quote_plus(SECRET)}".encode()).decode(),
        [SECRET],
        {"password": SECRET},
    ],
)
def test_a_secret_that_the_endpoint_repeats_is_masked(
    simulate: Simulate, serve: Serve, run: Run, description: object
) -> None:
    simulator = simulate()
    endpoint = serve(lambda: (401, {"error": description, "error_description": description}))
    secrets = {"AUTH_CLIENT_SECRET": SECRET, "AUTH_PASSWORD": f"{SECRET}-and-more"}
    result = run(simulator, AUTH_URL=endpoint.url, LOG_LEVEL="DEBUG", **secrets)
    assert result.code == 77
    assert "hunter2" not in everything(result)
    assert "-and-more" not in everything(result)
    assert b64encode(b"proctor-client:").decode()[:-4] not in everything(result)


def test_the_reason_that_the_endpoint_states_is_told_but_not_at_any_length(
    simulate: Simulate, serve: Serve, run: Run
) -> None:
    simulator = simulate()
    endpoint = serve(lambda: (400, {"error": "invalid_grant", "error_description": "The account is locked " * 10_000}))
    result = run(simulator, AUTH_URL=endpoint.url)
    assert "invalid_grant The account is locked" in result.message
    assert len(result.message) < 2000
