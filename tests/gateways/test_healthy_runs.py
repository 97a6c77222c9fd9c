"""Through a gateway that works, a run writes a row for every exam and reports no loss."""

import pytest

from tests.gateways.configurations import HTTP_GATEWAYS, PASSWORD, USER
from tests.gateways.conftest import Authority, Gateways
from tests.promise import assert_complete
from tests.support import Run, Simulate


@pytest.mark.parametrize("name", HTTP_GATEWAYS)
def test_a_healthy_run(gateways: Gateways, simulate: Simulate, run: Run, name: str) -> None:
    simulator = simulate(exams=1000)
    gateway = gateways.start(name, simulator.port)
    assert_complete(simulator, run(simulator, **gateway.settings()))


@pytest.mark.parametrize("login", [False, True])
@pytest.mark.parametrize("name", ["squid", "tinyproxy"])
def test_a_healthy_run_through_a_tunnel(
    gateways: Gateways, simulate: Simulate, run: Run, authority: Authority, name: str, login: bool
) -> None:
    simulator = simulate(certificate=authority.certificate[:2])
    gateway = gateways.start(name, simulator.port, login=login)
    credentials = f"{USER}:{PASSWORD}@" if login else ""
    proxy = f"http://{credentials}127.0.0.1:{gateway.port}"
    result = run(simulator, HTTPS_PROXY=proxy, TLS_CA_FILE=authority.file)
    assert_complete(simulator, result)
    assert PASSWORD.encode() not in result.stderr


@pytest.mark.parametrize("name", ["squid", "tinyproxy"])
def test_a_healthy_run_through_a_proxy_with_a_login(
    gateways: Gateways, simulate: Simulate, run: Run, name: str
) -> None:
    simulator = simulate()
    gateway = gateways.start(name, simulator.port, login=True)
    result = run(simulator, HTTP_PROXY=f"http://{USER}:{PASSWORD}@127.0.0.1:{gateway.port}")
    assert_complete(simulator, result)
    assert PASSWORD.encode() not in result.stderr


@pytest.mark.parametrize("name", ["nginx", "haproxy", "stunnel"])
def test_a_healthy_run_through_a_gateway_that_terminates_tls(
    gateways: Gateways, simulate: Simulate, run: Run, authority: Authority, name: str
) -> None:
    simulator = simulate()
    gateway = gateways.start(name, simulator.port, tls=authority.certificate)
    assert_complete(simulator, run(simulator, TLS_CA_FILE=authority.file, **gateway.settings()))


def test_a_healthy_run_through_a_gateway_that_compresses(gateways: Gateways, simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=1000)
    gateway = gateways.start(
        "nginx", simulator.port, location="gzip on; gzip_types application/json; gzip_proxied any;"
    )
    assert_complete(simulator, run(simulator, **gateway.settings()))


def test_a_proxy_that_closes_unannounced_causes_no_false_alarm(
    gateways: Gateways, simulate: Simulate, run: Run
) -> None:
    """Tinyproxy's next connection may be taken for open still, at some speeds only: hence many short calls."""
    simulator = simulate(exams=400, limit=10)
    gateway = gateways.start("tinyproxy", simulator.port)
    assert_complete(simulator, run(simulator, **gateway.settings()))


def test_interim_responses_that_a_gateway_passes_on_are_skipped(
    gateways: Gateways, simulate: Simulate, run: Run
) -> None:
    simulator = simulate(faults=["early-hints"] * 3)
    gateway = gateways.start("haproxy", simulator.port)
    assert_complete(simulator, run(simulator, **gateway.settings()))
