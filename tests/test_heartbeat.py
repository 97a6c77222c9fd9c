"""The monitor at HEARTBEAT_URL is informed of every run, and can do none any harm."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.simulator import Simulator
from tests.certificates import Authority
from tests.servers import Connection, Server, responding, response, serving
from tests.support import Jobs, Result, Run, Simulate, expired

SECRET = "5ecret-0f-the-m0nitor"
GOOD = responding(response(200))


def url_of(server: Server) -> str:
    return f"{server.url}/ping/{SECRET}"


def pings(server: Server) -> list[tuple[str, Any]]:
    """The paths that were posted to, and the JSON that was sent there."""
    assert {request.method for request in server.requests} == {"POST"}
    return [(request.path, json.loads(request.body) if request.body else None) for request in server.requests]


def is_silent_about_it(result: Result) -> bool:
    """Whether the URL, which lets anybody report runs, is in no output."""
    return SECRET.encode() not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("scenario", "code"), [({}, 0), ({"faults": ["500-after"]}, 65), ({"faults": ["403"]}, 77), ({"not_due": 120}, 0)]
)
def test_the_monitor_is_informed_of_the_start_and_of_the_end_with_the_summary(
    simulate: Simulate, run: Run, scenario: dict[str, Any], code: int
) -> None:
    with serving(GOOD) as monitor:
        result = run(simulate(**scenario), HEARTBEAT_URL=url_of(monitor))
    assert result.code == code
    assert pings(monitor) == [(f"/ping/{SECRET}/start", None), (f"/ping/{SECRET}/{code}", result.summary)]
    assert is_silent_about_it(result)


@pytest.mark.parametrize("end", ["", "/", "?rid=7&x=%2F", "/?rid=7&x=%2F"])
def test_the_query_of_the_url_is_kept(simulate: Simulate, run: Run, end: str) -> None:
    with serving(GOOD) as monitor:
        run(simulate(exams=0), HEARTBEAT_URL=url_of(monitor) + end)
    query = end.removeprefix("/")
    assert [path for path, _ in pings(monitor)] == [f"/ping/{SECRET}/start{query}", f"/ping/{SECRET}/0{query}"]


def test_the_alarm_of_the_monitor_stays_on_until_a_lost_response_is_resolved(
    simulate: Simulate, run: Run, jobs: Jobs, volume: Path
) -> None:
    simulator = simulate(exams=450, limit=150, faults=["500-after"])
    with serving(GOOD) as monitor:
        settings = {"OUTPUT_DIR": str(volume), "HEARTBEAT_URL": url_of(monitor)}
        assert run(simulator, **settings).code == 65
        later = run(simulator, **settings)
        assert later.code == 0
        (warning,) = later.events("unresolved")
        assert (warning["level"], warning["windows"]) == ("warning", 1)
        assert f"python -m app recover {volume}" in warning["message"]
        assert jobs.run({}, "recover", str(volume), "--acknowledge", "ticket 4711").code == 0
        last = run(simulator, **settings)
        assert (last.code, last.events("unresolved")) == (0, [])
    ends = [path.rpartition("/")[2] for path, _ in pings(monitor) if not path.endswith("start")]
    assert ends == ["65", "65", "0"]


def test_the_alarm_of_the_monitor_is_on_while_a_summary_that_may_list_a_window_cannot_be_read(
    simulate: Simulate, run: Run, jobs: Jobs, volume: Path
) -> None:
    (volume / "expired_exams_SBAC_PT_20260401T020000Z.json").write_text('{"lost": ["x"]}')
    simulator = simulate()
    with serving(GOOD) as monitor:
        result = run(simulator, OUTPUT_DIR=str(volume), HEARTBEAT_URL=url_of(monitor))
    assert result.code == 0
    (warning,) = result.events("ignored")
    assert "is not a readable summary" in warning["message"]
    assert "unresolved" in result.message
    assert pings(monitor)[-1][0].endswith("/65")
    recovery = jobs.run({}, "recover", str(volume))
    assert (recovery.code, recovery.stdout) == (74, b"")


def test_the_monitor_is_informed_of_settings_that_are_wrong(simulate: Simulate, run: Run) -> None:
    with serving(GOOD) as monitor:
        result = run(simulate(), HEARTBEAT_URL=url_of(monitor), MAX_ATTEMPTS="many")
    assert result.code == 78
    assert [path for path, _ in pings(monitor)] == [f"/ping/{SECRET}/78"]


@pytest.mark.parametrize("trust", ["TLS_CA_FILE", "SSL_CERT_FILE", "TLS_VERIFY"])
@pytest.mark.parametrize(("change", "paths"), [({}, ["start", "0"]), ({"MAX_ATTEMPTS": "many"}, ["78"])])
def test_a_monitor_with_a_certificate_of_your_own_authority_is_informed_of_every_end(
    simulate: Simulate, run: Run, authority: Authority, trust: str, change: dict[str, str], paths: list[str]
) -> None:
    settings = {trust: "false" if trust == "TLS_VERIFY" else authority.file}
    with serving(GOOD, tls=authority.context()) as monitor:
        url = url_of(monitor).replace("http", "https")
        result = run(simulate(exams=0), HEARTBEAT_URL=url, **settings, **change)
    assert str(result.code) == paths[-1]
    assert [path.rpartition("/")[2] for path, _ in pings(monitor)] == paths
    assert result.events("heartbeat") == []


@pytest.mark.parametrize("name", ["TLS_CA_FILE", "REQUESTS_CA_BUNDLE"])
def test_the_monitor_is_informed_of_ca_certificates_that_cannot_be_read(
    simulate: Simulate, run: Run, authority: Authority, name: str
) -> None:
    by_default = {"SSL_CERT_FILE": authority.file}  # is what OpenSSL takes for the system's
    with serving(GOOD, tls=authority.context()) as monitor:
        url = url_of(monitor).replace("http", "https")
        result = run(simulate(), HEARTBEAT_URL=url, **by_default, **{name: "/does/not/exist.pem"})
    assert (result.code, [path for path, _ in pings(monitor)]) == (78, [f"/ping/{SECRET}/78"])


def test_the_monitor_is_informed_of_output_that_cannot_be_written(simulate: Simulate, run: Run, tmp_path: Path) -> None:
    with serving(GOOD) as monitor:
        result = run(simulate(), HEARTBEAT_URL=url_of(monitor), OUTPUT_DIR=str(tmp_path / "missing"))
    assert [path for path, _ in pings(monitor)] == [f"/ping/{SECRET}/{result.code}"]
    assert result.code == 74


def is_unharmed(simulator: Simulator, result: Result, complaints: int = 2) -> bool:
    """Whether all exams are reported, and the log complains about the monitor without its URL."""
    assert is_silent_about_it(result)
    assert len(result.events("heartbeat")) == complaints
    return result.code == 0 and sorted(result.exam_ids) == sorted(expired(simulator))


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(response(500), id="500"),
        pytest.param(response(404), id="404"),
        pytest.param(response(302, Location=f"http://127.0.0.1:1/{SECRET}"), id="redirect"),
        pytest.param(b"\r\n", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="no-http"),
        pytest.param(
            response(503).replace(b"\r\n\r\n", b"\r\nno header\r\nRetry-After: 3600\r\n\r\n"), id="bad-header"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nOK", id="cut"),
    ],
)
def test_a_monitor_that_responds_badly_changes_nothing(simulate: Simulate, run: Run, bad: bytes) -> None:
    simulator = simulate(exams=150)
    with serving(responding(bad)) as monitor:
        result = run(simulator, HEARTBEAT_URL=url_of(monitor), LOG_LEVEL="DEBUG")
    assert is_unharmed(simulator, result)
    assert len(pings(monitor)) == 2


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_monitor_that_cannot_be_reached_changes_nothing(simulate: Simulate, run: Run, scheme: str, host: str) -> None:
    simulator = simulate(exams=150)
    assert is_unharmed(simulator, run(simulator, HEARTBEAT_URL=f"{scheme}://{host}/ping/{SECRET}"))


def test_a_monitor_that_does_not_respond_only_takes_time(simulate: Simulate, run: Run) -> None:
    def serve(connection: Connection) -> None:
        if (request := connection.receive()) and request.path.endswith("/start"):
            connection.wait_closed()
        else:
            connection.send(response(200))

    simulator = simulate(exams=150)
    with serving(serve) as monitor:
        assert is_unharmed(simulator, run(simulator, HEARTBEAT_URL=url_of(monitor)), complaints=1)
    assert len(pings(monitor)) == 2
