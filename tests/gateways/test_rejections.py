"""A request that a gateway rejects at once, having sent nothing to Proctor, is tried again and is no loss."""

import pytest

from app.simulator import Simulator
from tests.gateways.conftest import Gateways
from tests.promise import assert_complete, changed
from tests.support import Result, Run, Simulate

PATIENT = {"READ_TIMEOUT": "300"}  # with which a response after less than ten seconds is not late


def rate_limit(status: int, rate: str) -> dict[str, str]:
    """Directives of nginx that admit requests at a rate, and reject others with a status."""
    return {
        "http": f"limit_req_zone $binary_remote_addr zone=calls:1m rate={rate};",
        "location": f"limit_req zone=calls; limit_req_status {status};",
    }


def assert_gave_up(simulator: Simulator, result: Result, attempts: int) -> None:
    """A run ended after so many attempts of its last call, and reported no loss."""
    assert (result.code, result.summary["lost"]) == (69, []), result.stderr.decode()
    assert result.summary["retries"] == attempts - 1
    assert sorted(result.exam_ids) == changed(simulator)


@pytest.mark.parametrize("status", [429, 503])
def test_a_rate_limit_that_clears_is_waited_for(gateways: Gateways, simulate: Simulate, run: Run, status: int) -> None:
    simulator = simulate(exams=150)
    gateway = gateways.start("nginx", simulator.port, **rate_limit(status, "20r/m"))
    result = run(simulator, MAX_WAIT="4", MAX_ATTEMPTS="10", **PATIENT, **gateway.settings())
    assert_complete(simulator, result)
    assert result.summary["retries"] > 0


@pytest.mark.parametrize("status", [429, 503])
def test_a_rate_limit_that_stays_ends_the_run(gateways: Gateways, simulate: Simulate, run: Run, status: int) -> None:
    simulator = simulate()
    gateway = gateways.start("nginx", simulator.port, **rate_limit(status, "1r/m"))
    result = run(simulator, MAX_ATTEMPTS="3", **PATIENT, **gateway.settings())
    assert_gave_up(simulator, result, attempts=3)
    assert len(result.rows) == 100


@pytest.mark.parametrize(
    ("name", "options", "attempts"),
    [
        ("haproxy", {"backend": "retries 0"}, 3),
        ("haproxy", {}, 1),  # it retries for three seconds by itself
        ("apache", {}, 3),
        ("squid", {}, 3),
    ],
)
def test_a_backend_that_is_down_ends_the_run(
    gateways: Gateways,
    simulate: Simulate,
    run: Run,
    unused_port: int,
    name: str,
    options: dict[str, str],
    attempts: int,
) -> None:
    simulator = simulate()
    gateway = gateways.start(name, unused_port, **options)
    result = run(simulator, MAX_ATTEMPTS=str(attempts), **PATIENT, **gateway.settings())
    assert_gave_up(simulator, result, attempts)
    assert simulator.record == []
