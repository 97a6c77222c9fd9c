"""A response that does not get through a gateway is reported as lost, with a window that holds Proctor's work."""

import pytest

from tests.gateways.configurations import HTTP_GATEWAYS
from tests.gateways.conftest import Authority, Gateways
from tests.promise import assert_alarm, assert_losses
from tests.support import Run, Simulate

# Seconds after which the gateways here abandon Proctor, and a READ_TIMEOUT with which that is late for a rejection.
TIMEOUT = 1
LATE = {"READ_TIMEOUT": "5"}


# Seconds that Proctor works. Squid looks at its timeouts once a second, so that they end within two.
TOO_LONG = [(name, 4 if name == "squid" else 3.5) for name in HTTP_GATEWAYS]


@pytest.mark.parametrize(("name", "latency"), TOO_LONG)
def test_proctor_works_until_after_the_timeout_of_a_gateway(
    gateways: Gateways, simulate: Simulate, run: Run, name: str, latency: float
) -> None:
    simulator = simulate(latency=latency)
    gateway = gateways.start(name, simulator.port, timeout=TIMEOUT)
    result = run(simulator, MAX_LOST_RESPONSES="0", **LATE, **gateway.settings())
    assert_losses(simulator, result)


@pytest.mark.parametrize("name", HTTP_GATEWAYS)
def test_a_run_goes_on_after_the_timeout_of_a_gateway(
    gateways: Gateways, simulate: Simulate, run: Run, name: str
) -> None:
    simulator = simulate(faults=["ok", "silence-after"])
    gateway = gateways.start(name, simulator.port, timeout=TIMEOUT)
    result = run(simulator, **LATE, **gateway.settings())
    assert_losses(simulator, result)
    assert len(result.rows) == 150


@pytest.mark.parametrize("status", [200, 429, 500, 503])
def test_a_maintenance_page_in_place_of_a_timeout(
    gateways: Gateways, simulate: Simulate, run: Run, status: int
) -> None:
    simulator = simulate(faults=["ok", "silence-after"])
    page = f"""
error_page 502 504 ={status} @maintenance;
location @maintenance {{ default_type text/html; return {status} "<html><title>Down for maintenance</title></html>"; }}
"""
    gateway = gateways.start("nginx", simulator.port, timeout=TIMEOUT, server=page)
    result = run(simulator, **LATE, **gateway.settings())
    assert_losses(simulator, result)
    assert len(result.rows) == 150


@pytest.mark.parametrize("name", HTTP_GATEWAYS)
def test_proctor_breaks_off_after_the_work(gateways: Gateways, simulate: Simulate, run: Run, name: str) -> None:
    simulator = simulate(exams=550, faults=["reset-after", "ok", "reset-after", "cut-head", "ok", "cut-body"])
    gateway = gateways.start(name, simulator.port)
    result = run(simulator, MAX_LOST_RESPONSES="4", **gateway.settings())
    assert_losses(simulator, result, count=4)
    assert len(result.rows) == 200


def test_a_compressed_response_is_cut_short(gateways: Gateways, simulate: Simulate, run: Run) -> None:
    simulator = simulate(faults=["ok", "cut-body"])
    compression = "gzip on; gzip_types application/json; gzip_proxied any;"
    gateway = gateways.start("nginx", simulator.port, location=compression)
    result = run(simulator, **gateway.settings())
    assert_losses(simulator, result)
    assert len(result.rows) == 150


@pytest.mark.parametrize("name", ["nginx", "varnish"])
def test_a_backend_that_is_down_looks_like_a_loss(
    gateways: Gateways, simulate: Simulate, run: Run, unused_port: int, name: str
) -> None:
    """The response is the same as after a reset, so that the alarm cannot be avoided."""
    simulator = simulate()
    gateway = gateways.start(name, unused_port)
    result = run(simulator, MAX_LOST_RESPONSES="0", **gateway.settings())
    assert_alarm(simulator, result)


@pytest.mark.parametrize("name", ["haproxy", "stunnel"])
def test_http_to_a_tls_port_that_closes_without_a_word_looks_like_a_loss(
    gateways: Gateways, simulate: Simulate, run: Run, authority: Authority, name: str
) -> None:
    simulator = simulate()
    gateway = gateways.start(name, simulator.port, tls=authority.certificate)
    result = run(simulator, MAX_LOST_RESPONSES="0", PROCTOR_URL=f"http://127.0.0.1:{gateway.port}")
    assert_alarm(simulator, result)


def test_a_gateway_that_repeats_the_request_hides_the_loss_from_every_client(
    gateways: Gateways, simulate: Simulate, run: Run
) -> None:
    """The reason why operators must switch such repetitions off: no client can see them."""
    simulator = simulate(faults=["reset-after"])
    upstream = f"upstream proctor {{ server 127.0.0.1:{simulator.port}; server 127.0.0.1:{simulator.port}; }}"
    repetition = "proxy_next_upstream error timeout non_idempotent;"
    gateway = gateways.start("nginx", simulator.port, http=upstream, upstream="proctor", location=repetition)
    result = run(simulator, **gateway.settings())
    assert (result.code, result.summary["lost"]) == (0, [])
    assert len(simulator.record[0]["expired"]) == 100
    assert not set(simulator.record[0]["expired"]) & set(result.exam_ids)
