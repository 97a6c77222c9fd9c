"""Connections: TLS, proxies, reuse, and the line between a request that was not sent and an answer that is lost."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
import trustme

from app.simulator import Simulator
from tests.support import Jobs, Result, Run, Simulate, expired

TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Authority:
    """A certificate authority of one's own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.file = str(directory / "ca.pem")
        self._authority.cert_pem.write_to_path(self.file)

    def certify(self, host: str) -> tuple[str, str]:
        """The files of a certificate and its key."""
        issued = self._authority.issue_cert(host)
        certificate, key = (self._directory / f"{host}.{kind}.pem" for kind in ("certificate", "key"))
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        return str(certificate), str(key)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Relay(BaseRequestHandler):
    """Hands a connection on to `target`; as a proxy, after it has answered the CONNECT with `welcome`."""

    target = 0
    welcome = b""

    def handle(self) -> None:
        if self.welcome:
            while not self.request.recv(65536).endswith(b"\r\n\r\n"):
                pass
            self.request.sendall(self.welcome)
            if self.welcome != TUNNEL:
                return
        with socket.create_connection(("127.0.0.1", self.target)) as onward:
            back = Thread(target=pump, args=(onward, self.request))
            back.start()
            pump(self.request, onward)
            back.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):  # either side may go away
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


class Reset(BaseRequestHandler):
    """Resets a connection as soon as it says something."""

    def handle(self) -> None:
        self.request.recv(1)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()


class Sends(BaseRequestHandler):
    """Answers an expire call with these bytes, then with more of them as long as somebody reads."""

    answer = b""
    more = b""

    def handle(self) -> None:
        with suppress(OSError):
            received = b""
            while not received.endswith(b'""'):
                received += self.request.recv(65536)
            self.request.sendall(self.answer)
            while self.more:
                self.request.sendall(self.more)
            self.request.recv(1)


@contextmanager
def serving(handler: type[BaseRequestHandler], **attributes: object) -> Iterator[tuple[int, list[object]]]:
    """Serve connections; yields the port and a list that grows with every connection."""
    connections: list[object] = []

    class Counted(handler):  # type: ignore[misc, valid-type]
        def setup(self) -> None:
            connections.append(self.client_address)

    for name, value in attributes.items():
        setattr(Counted, name, value)
    with ThreadingTCPServer(("127.0.0.1", 0), Counted) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1], connections
        server.shutdown()


def drained(simulator: Simulator, result: Result) -> bool:
    """Whether the run got at every exam, each once."""
    return result.code == 0 and sorted(result.exam_ids) == sorted(expired(simulator)) != []


def through(port: int, simulator: Simulator) -> dict[str, str]:
    """The settings that lead to the simulator through another port."""
    settings = simulator.settings()
    return {name: settings[name].replace(str(simulator.port), str(port)) for name in ("PROCTOR_URL", "AUTH_URL")}


def test_a_run_uses_one_connection(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=450)
    with serving(Relay, target=simulator.port) as (port, connections):
        assert drained(simulator, run(simulator, **through(port, simulator)))
    assert len(simulator.record) == 5
    assert len(connections) == 1


def test_a_connection_that_the_server_closes_without_a_word_costs_no_exam(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=450, limit=10, faults=["close"] * 40)
    result = run(simulator, MAX_LOST_RESPONSES="40")
    assert result.code in (0, 65)  # the next call may go out before the end of the connection comes in: a false alarm
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert len(result.exam_ids) == 450


def test_redirects_of_the_token_endpoint_are_not_followed(simulate: Simulate, run: Run) -> None:
    simulator = simulate(token_faults=["302"])
    result = run(simulator)
    assert result.code == 78
    assert "AUTH_URL" in result.message
    assert simulator.token_requests == 1


def test_a_certificate_of_an_own_authority_is_trusted_by_tls_ca_file(
    simulate: Simulate, run: Run, authority: Authority
) -> None:
    simulator = simulate(certificate=authority.certify("127.0.0.1"))
    assert drained(simulator, run(simulator, TLS_CA_FILE=authority.file))


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_where_nothing_is_set_the_system_says_whom_to_trust(
    simulate: Simulate, run: Run, authority: Authority, variable: str
) -> None:
    simulator = simulate(certificate=authority.certify("127.0.0.1"))
    assert drained(simulator, run(simulator, **{variable: authority.file}))


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("trust", ["TLS_VERIFY", "TLS_CA_FILE"])
def test_what_the_settings_say_about_trust_holds_over_the_system(
    simulate: Simulate, run: Run, authority: Authority, variable: str, trust: str
) -> None:
    simulator = simulate(certificate=authority.certify("127.0.0.1"))
    setting = {trust: {"TLS_VERIFY": "false", "TLS_CA_FILE": authority.file}[trust]}
    assert drained(simulator, run(simulator, **{variable: "/nonsense"}, **setting))


@pytest.mark.parametrize("setting", ["PROCTOR_URL", "AUTH_URL"])
@pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", False), ("other.example.org", True)])
def test_a_certificate_that_is_not_trusted_is_a_matter_of_configuration(
    simulate: Simulate, run: Run, authority: Authority, setting: str, host: str, trusted: bool
) -> None:
    plain, tls = simulate(), simulate(certificate=authority.certify(host))
    settings = {"TLS_CA_FILE": authority.file} if trusted else {}
    result = run(plain, **settings, **{setting: tls.settings()[setting]})
    assert result.code == 78
    assert "TLS_CA_FILE" in result.message
    assert f"127.0.0.1:{tls.port}" in result.message
    assert result.summary["lost"] == []
    assert plain.record == tls.record == []


def was_not_sent(simulator: Simulator, result: Result, attempts: int) -> bool:
    """Whether every attempt ended before the request, by the program's word and by the record."""
    retries = [event["attempt"] for event in result.events("retry")]
    return (
        (result.code, result.summary["lost"]) == (69, [])
        and retries == list(range(1, attempts))
        and not simulator.record
    )


def test_tls_to_a_port_without_it_is_not_sent(simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    result = run(simulator, PROCTOR_URL=simulator.url.replace("http", "https"), MAX_ATTEMPTS="2")
    assert was_not_sent(simulator, result, attempts=2)
    assert "does not speak TLS" in result.message


def test_a_reset_in_the_tls_handshake_is_not_sent(simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    with serving(Reset) as (port, connections):
        result = run(simulator, PROCTOR_URL=f"https://127.0.0.1:{port}", MAX_ATTEMPTS="3")
    assert was_not_sent(simulator, result, attempts=3)
    assert len(connections) == 3


def test_a_reset_after_the_request_is_lost(simulate: Simulate, run: Run) -> None:
    with serving(Reset) as (port, connections):
        result = run(simulate(), PROCTOR_URL=f"http://127.0.0.1:{port}", MAX_LOST_RESPONSES="0")
    assert result.code == 65
    assert len(result.summary["lost"]) == len(connections) == 1


@pytest.mark.parametrize("status", [101, 102, 103, 199])
def test_an_interim_answer_is_not_taken_for_the_one_that_counts(simulate: Simulate, run: Run, status: int) -> None:
    with serving(Sends, answer=f"HTTP/1.1 {status} Wait\r\n\r\n".encode()) as (port, connections):
        result = run(simulate(), PROCTOR_URL=f"http://127.0.0.1:{port}", MAX_LOST_RESPONSES="1", READ_TIMEOUT="77")
    assert result.code == 65
    windows = result.summary["lost"]
    assert len(windows) == len(connections) == 2  # no further call goes where an answer is still to come
    for window in windows:
        moments = [datetime.fromisoformat(window[end]) for end in ("start", "end")]
        assert moments[1] - moments[0] >= timedelta(seconds=77)


def test_an_answer_without_an_end_is_given_up(simulate: Simulate, run: Run) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"
    with serving(Sends, answer=head, more=b" " * 65536) as (port, _):
        result = run(simulate(), PROCTOR_URL=f"http://127.0.0.1:{port}", MAX_LOST_RESPONSES="0")
    assert result.code == 65
    (window,) = result.summary["lost"]
    assert "longer than 64 MB" in window["reason"]


@pytest.mark.parametrize("variable", ["TLS_CA_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("path", ["/no/such.pem", "/dev/zero"])
def test_a_ca_bundle_that_cannot_be_read_is_named(simulate: Simulate, run: Run, variable: str, path: str) -> None:
    simulator = simulate()
    result = run(simulator, **{variable: path})
    assert result.code == 78
    assert any(variable in event["message"] and path in event["message"] for event in result.log)
    assert simulator.token_requests == 0


def test_an_http_proxy_is_used(simulate: Simulate, run: Run) -> None:
    simulator = simulate()
    names = {
        "PROCTOR_URL": "http://proctor.invalid",
        "AUTH_URL": "http://sso.invalid/auth/oauth2/access_token?realm=/sbac",
    }
    assert drained(simulator, run(simulator, **names, HTTP_PROXY=simulator.url))


def test_a_proxy_tunnels_tls(simulate: Simulate, run: Run, authority: Authority) -> None:
    simulator = simulate(exams=450, certificate=authority.certify("proctor.invalid"))
    names = {
        "PROCTOR_URL": "https://proctor.invalid",
        "AUTH_URL": "https://proctor.invalid/auth/oauth2/access_token?realm=/sbac",
        "TLS_CA_FILE": authority.file,
    }
    with serving(Relay, target=simulator.port, welcome=TUNNEL) as (port, connections):
        assert drained(simulator, run(simulator, **names, HTTPS_PROXY=f"http://127.0.0.1:{port}"))
    assert connections


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "502 Bad Gateway"])
def test_a_proxy_that_refuses_the_tunnel_keeps_the_request_from_being_sent(
    simulate: Simulate, run: Run, status: str
) -> None:
    simulator = simulate()
    refusal = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    with serving(Relay, welcome=refusal) as (port, connections):
        proxy = {"HTTPS_PROXY": f"http://127.0.0.1:{port}", "PROCTOR_URL": "https://proctor.invalid"}
        result = run(simulator, **proxy, MAX_ATTEMPTS="2")
    assert was_not_sent(simulator, result, attempts=2)
    assert len(connections) == 2
    assert "proxy" in result.message
    assert status[:3] in result.message


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "http://nowhere.invalid:3128"])
def test_a_proxy_that_is_not_reached_keeps_the_request_from_being_sent(
    simulate: Simulate, run: Run, proxy: str
) -> None:
    simulator = simulate()
    result = run(
        simulator, PROCTOR_URL="http://proctor.invalid", HTTP_PROXY=proxy, NO_PROXY="127.0.0.1", MAX_ATTEMPTS="2"
    )
    assert was_not_sent(simulator, result, attempts=2)


def test_credentials_in_a_netrc_do_not_replace_the_token(simulate: Simulate, jobs: Jobs, run: Run) -> None:
    simulator = simulate()
    (jobs.directory / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (jobs.directory / ".netrc").chmod(0o600)
    assert drained(simulator, run(simulator))
