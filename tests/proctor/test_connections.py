"""Connections: their reuse, proxies, cookies, and the line between a request that was not sent and a lost response."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGINT, SIGTERM
from subprocess import Popen
from urllib.parse import quote_plus

import pytest

from app.simulator import Simulator
from tests.proctor.bodies import EXAM, batch, exam
from tests.proctor.outcomes import was_not_sent
from tests.promise import assert_complete
from tests.servers import (
    Connection,
    Request,
    ServeConnection,
    in_turn,
    json_response,
    relaying,
    responding,
    response,
    serving,
)
from tests.support import PATIENCE, QUICK, Jobs, Run, Simulate

REMOTE = {
    "PROCTOR_URL": "http://proctor.invalid",
    "AUTH_URL": "http://sso.invalid/auth/oauth2/access_token?realm=/sbac",
}


def through(port: int, simulator: Simulator) -> dict[str, str]:
    """The settings that lead to the simulator through another port."""
    settings = simulator.settings()
    return {name: settings[name].replace(str(simulator.port), str(port)) for name in ("PROCTOR_URL", "AUTH_URL")}


def test_a_run_reuses_its_connection(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=450, limit=10)
    with serving(relaying(simulator.port)) as server:
        assert_complete(simulator, run(simulator, **through(server.port, simulator)))
    assert len(simulator.record) == 45
    assert len(server.connections) < 10  # one, unless this machine was so busy that a call took long


def test_a_call_that_took_long_is_followed_by_a_new_connection(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, latency=0.3)
    with serving(relaying(simulator.port)) as server:
        assert_complete(simulator, run(simulator, PROCTOR_URL=server.url))
    assert len(server.connections) == len(simulator.record) == 3


@pytest.mark.parametrize("_", range(5))
def test_a_server_that_closes_its_connections_without_saying_so_costs_no_response(
    simulate: Simulate, run: Run, _: int
) -> None:
    responses = [batch(exam(f"exam {number}"), more=number < 30) for number in range(31)]
    with serving(responding(in_turn(*responses))) as server:
        result = run(simulate(), PROCTOR_URL=server.url, MAX_LOST_RESPONSES="40")
    assert (result.code, result.summary["lost"], len(result.rows)) == (0, [], 31)
    assert len(server.connections) == len(server.requests) == 31


def test_a_connection_that_the_server_announces_to_close_is_not_used_again(simulate: Simulate, run: Run) -> None:
    responses = [response(503, Connection="close"), batch(EXAM)]
    with serving(responding(in_turn(*responses))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.exam_ids, result.summary["lost"]) == (0, ["exam"], [])


def test_cookies_are_never_sent_back(simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    cookies = "JSESSIONID=0123456789; Path=/"

    def respond(request: Request) -> bytes:
        if request.path.startswith("/token"):
            return json_response({"access_token": simulator.grant()[0], "expires_in": 1e-9}, Set_Cookie=cookies)
        return next(calls)

    calls = iter(
        [
            batch(EXAM, more=True).replace(b"\r\n", f"\r\nSet-Cookie: {cookies}\r\n".encode(), 1),
            response(503, Set_Cookie=cookies),
            batch().replace(b"\r\n", f"\r\nSet-Cookie: {cookies}\r\n".encode(), 1),
        ]
    )
    with serving(responding(respond, keep=True)) as server:
        result = run(simulator, PROCTOR_URL=server.url, AUTH_URL=f"{server.url}/token")
    assert (result.code, result.exam_ids) == (0, ["exam"])
    assert len(server.requests) == 6
    assert [request.headers["Cookie"] for request in server.requests] == [None] * 6


def test_a_call_is_a_post_of_an_empty_text_in_json(simulate: Simulate, run: Run) -> None:
    with serving(responding(batch(EXAM))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.exam_ids) == (0, ["exam"])
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/proctor/Services/exams/expire/SBAC_PT")
    assert (request.headers["Content-Type"], request.body) == ("application/json", b'""')
    assert request.headers["Authorization"].startswith("Bearer ")


def test_an_interim_response_is_skipped(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, faults=["early-hints"] * 3)
    assert_complete(simulator, run(simulator))


@pytest.mark.parametrize("status", [100, 101, 102, 103, 199])
@pytest.mark.parametrize("times", [1, 3])
def test_every_interim_response_is_skipped(simulate: Simulate, run: Run, status: int, times: int) -> None:
    interim = f"HTTP/1.1 {status} Wait\r\nLink: </style.css>\r\n\r\n".encode() * times
    with serving(responding(interim + batch(EXAM))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.exam_ids, result.summary["lost"]) == (0, ["exam"], [])


def test_an_interim_response_is_not_taken_for_the_final_one(simulate: Simulate, run: Run) -> None:
    with serving(responding(b"HTTP/1.1 103 Early Hints\r\n\r\n")) as server:
        result = run(simulate(), PROCTOR_URL=server.url, MAX_LOST_RESPONSES="1", READ_TIMEOUT="77")
    assert result.code == 65
    windows = result.summary["lost"]
    assert len(windows) == len(server.requests) == 2
    for window in windows:
        moments = [datetime.fromisoformat(window[end]) for end in ("start", "end")]
        assert moments[1] - moments[0] >= timedelta(seconds=77)


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port at which no connection is ever opened, nor refused."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def await_connecting(process: Popen[bytes], port: int) -> None:
    """Wait until a process has a connection to a port under way (state 02, SYN_SENT)."""
    give_up = time.monotonic() + PATIENCE
    sockets = set[str]()
    while time.monotonic() < give_up:
        own = set[str]()
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since it was listed
                own.add(os.readlink(link))
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "02" and fields[2].endswith(f":{port:04X}"):
                sockets.add(f"socket:[{fields[9]}]")
        if sockets & own:
            return
    pytest.fail("the process opened no connection")


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux shows connections that are being opened")
def test_two_signals_while_the_connection_is_opened_end_the_run_without_a_loss(
    simulate: Simulate, jobs: Jobs, run: Run, tmp_path: Path
) -> None:
    simulator = simulate()
    with full_backlog() as port:
        url = {"PROCTOR_URL": f"http://127.0.0.1:{port}", "CONNECT_TIMEOUT": "3600", "OUTPUT_DIR": str(tmp_path)}
        process = jobs.start({**simulator.settings(), **QUICK, **url})
        await_connecting(process, port)
        process.send_signal(SIGTERM)
        process.send_signal(SIGINT)
        result = jobs.finish(process)
    assert result.code in (128 + SIGTERM, 128 + SIGINT)
    assert (result.summary["outcome"], result.summary["lost"]) == ("interrupted", [])
    assert run(simulator, OUTPUT_DIR=str(tmp_path)).events("earlier_call") == []


def test_redirects_of_the_token_endpoint_are_not_followed(simulate: Simulate, run: Run) -> None:
    simulator = simulate(token_faults=["302"])
    result = run(simulator)
    assert result.code == 78
    assert "AUTH_URL" in result.message
    assert simulator.token_requests == 1


def test_an_http_proxy_is_used(simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    assert_complete(simulator, run(simulator, **REMOTE, HTTP_PROXY=simulator.url))


@pytest.mark.parametrize("status", [401, 407])
def test_a_proxy_that_requires_a_login_for_the_tunnel_is_a_matter_of_configuration(
    simulate: Simulate, run: Run, status: int
) -> None:
    simulator = simulate()
    with serving(responding(response(status))) as server:
        proxy = {"HTTPS_PROXY": server.url, "PROCTOR_URL": "https://proctor.invalid"}
        result = run(simulator, **proxy)
    assert (result.code, result.summary["lost"]) == (78, [])
    assert len(server.requests) == 1
    assert "HTTPS_PROXY" in result.message
    assert simulator.record == []


@pytest.mark.parametrize("setting", ["PROCTOR_URL", "AUTH_URL"])
def test_a_proxy_that_requires_a_login_for_a_request_is_a_matter_of_configuration(
    simulate: Simulate, run: Run, setting: str
) -> None:
    with serving(responding(response(407, Proxy_Authenticate="Basic"))) as server:
        settings = {setting: REMOTE[setting], "HTTP_PROXY": server.url, "NO_PROXY": "127.0.0.1"}
        result = run(simulate(), **settings)
    assert (result.code, result.summary["lost"]) == (78, [])
    assert len(server.requests) == 1
    assert "HTTP_PROXY" in result.message


def test_a_proxy_that_refuses_the_tunnel_keeps_the_request_from_being_sent(simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    with serving(responding(response(502))) as server:
        proxy = {"HTTPS_PROXY": server.url, "PROCTOR_URL": "https://proctor.invalid"}
        result = run(simulator, **proxy, MAX_ATTEMPTS="2")
    assert was_not_sent(simulator, result, attempts=2)
    assert len(server.connections) == 2
    assert "proxy refused the connection with 502" in result.message


def test_a_proxy_that_does_not_respond_to_the_tunnel_keeps_the_request_from_being_sent(
    simulate: Simulate, run: Run
) -> None:
    simulator = simulate()
    with serving(Connection.wait_closed) as server:
        proxy = {"HTTPS_PROXY": server.url, "PROCTOR_URL": "https://proctor.invalid"}
        result = run(simulator, **proxy, MAX_ATTEMPTS="2", READ_TIMEOUT="1")
    assert was_not_sent(simulator, result, attempts=2)
    assert "cannot be reached through the proxy: no complete response within 1 seconds" in result.message


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "http://nowhere.invalid:3128"])
def test_a_proxy_that_cannot_be_reached_keeps_the_request_from_being_sent(
    simulate: Simulate, run: Run, proxy: str
) -> None:
    simulator = simulate()
    url = {"PROCTOR_URL": REMOTE["PROCTOR_URL"], "HTTP_PROXY": proxy, "NO_PROXY": "127.0.0.1"}
    result = run(simulator, **url, MAX_ATTEMPTS="2")
    assert was_not_sent(simulator, result, attempts=2)


def test_credentials_in_a_netrc_do_not_replace_the_token(simulate: Simulate, jobs: Jobs, run: Run) -> None:
    simulator = simulate()
    (jobs.directory / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (jobs.directory / ".netrc").chmod(0o600)
    assert_complete(simulator, run(simulator))


def echoing(template: bytes) -> ServeConnection:
    def serve(connection: Connection) -> None:
        if request := connection.receive():
            connection.send(template.replace(b"REQUEST", request.raw).replace(b"LINE", b" ".join(request.raw.split())))

    return serve


@pytest.mark.parametrize("setting", ["PROCTOR_URL", "AUTH_URL"])
@pytest.mark.parametrize(
    "template",
    [
        b"REQUEST",
        b"LINE\r\n\r\n",
        b"HTTP/1.1 LINE\r\n\r\n",
        b"HTTP/1.1 200 LINE\r\n\r\nREQUEST",
        b"HTTP/1.1 200 OK\r\nREQUEST",
        b"HTTP/1.1 200 OK\r\nLINE\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: LINE\r\n\r\nREQUEST",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nLINE\r\nREQUEST",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nREQUEST",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: LINE\r\n\r\nREQUEST",
        b"HTTP/1.1 400 LINE\r\nContent-Type: LINE\r\n\r\n<title>LINE</title>",
        b"HTTP/1.1 302 Found\r\nLocation: http://LINE\r\n\r\n",
        b'HTTP/1.1 400 Bad\r\n\r\n{"error": "LINE", "error_description": "LINE", "message": "LINE"}',
    ],
)
def test_a_port_that_echoes_the_request_brings_no_secret_into_the_log(
    simulate: Simulate, run: Run, setting: str, template: bytes
) -> None:
    with serving(echoing(template)) as server:
        settings = {setting: server.url, "MAX_ATTEMPTS": "2", "MAX_LOST_RESPONSES": "0", "LOG_LEVEL": "DEBUG"}
        result = run(simulate(), **settings)
    assert result.code not in (0, 70)
    assert server.requests
    printed = (result.stdout + result.stderr).decode()
    for request in server.requests:
        form = request.form
        _, _, token = request.headers.get("Authorization", "").partition(" ")
        for secret in filter(None, (token, form.get("password"), form.get("client_secret"))):
            assert secret not in printed
            assert quote_plus(secret) not in printed
