"""Each fault: how much of the call's work it lets happen, and what the client gets."""

import http.client
import json
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime

import pytest

from app.simulator import FAULTS_HELP, LATE_FAULTS, RANDOM_FAULTS, TOKEN_FAULTS_HELP, Scenario, Simulator
from app.simulator.faults import FAULTS, named
from tests.embedded import EmbeddedProctor
from tests.simulator.client import bearer, expire, left, numbers, outcome, recorded
from tests.support import Simulate

EXAMS = 20


@pytest.mark.parametrize(
    ("fault", "status", "changed"),
    [
        ("503", 503, 0),
        ("404", 404, 0),
        ("403", 403, 0),
        ("503-slow", 503, 0),
        ("504-half", 504, 2),
        ("502-after", 502, EXAMS),
        ("504-after", 504, EXAMS),
        ("503-late", 503, EXAMS),
        ("429-late", 429, EXAMS),
        ("404-late", 404, EXAMS),
        ("302-late", 302, EXAMS),
        ("html", 200, EXAMS),
        ("maintenance-200", 200, EXAMS),
        ("maintenance-429", 429, EXAMS),
        ("maintenance-500", 500, EXAMS),
        ("maintenance-503", 503, EXAMS),
        ("sign-in", 200, 0),
        ("401-basic", 401, 0),
        ("plain-http", 400, 0),
        ("407", 407, 0),
    ],
)
def test_a_page_may_be_sent_before_within_or_after_the_work(
    simulate: Simulate, fault: str, status: int, changed: int
) -> None:
    simulator = simulate(exams=EXAMS, faults=[fault], late_seconds=0)
    response = expire(simulator)
    assert (response.status, response.is_page()) == (status, True)
    assert (b"SAMLRequest" in response.body) == (fault == "sign-in")
    assert ("Location" in response.headers) == (status == 302)
    assert ("Proxy-Authenticate" in response.headers) == (status == 407)
    assert outcome(simulator) == (changed, True)
    assert left(simulator) == [number for number in range(EXAMS) if not changed or (changed == 2 and number % 10 != 7)]


@pytest.mark.parametrize(("fault", "changed"), [("500", 0), ("500-half", 2), ("500-after", EXAMS)])
def test_a_500_is_as_empty_as_that_of_proctor(simulate: Simulate, fault: str, changed: int) -> None:
    simulator = simulate(exams=EXAMS, faults=[fault])
    response = expire(simulator)
    assert (response.status, response.is_empty(), response.headers["Connection"]) == (500, True, "close")
    entry = recorded(simulator)
    assert (entry["fault"], len(entry["expired"])) == (fault, changed)
    assert [update["status"] for update in entry["updates"]] == ["completed", "expired"][: changed // 2]


@pytest.mark.parametrize("fault", ["503:7", "429:7", "503:date", "429:date", "503-late:7"])
def test_a_client_may_be_asked_to_come_back_later(simulate: Simulate, fault: str) -> None:
    simulator = simulate(exams=2, faults=[fault], late_seconds=0)
    response = expire(simulator)
    assert response.status == int(fault[:3])
    after = response.headers["Retry-After"]
    assert after == "7" if fault.endswith("7") else parsedate_to_datetime(after).utcoffset() is not None


@pytest.mark.parametrize("fault", ["503-slow", *LATE_FAULTS, "404-late", "maintenance-200", "maintenance-500"])
def test_a_late_fault_responds_only_after_its_time(simulate: Simulate, fault: str) -> None:
    simulator = simulate(exams=2, faults=[fault], late_seconds=0.1)
    token = bearer(simulator)
    start = time.monotonic()
    expire(simulator, **token)
    assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize(("fault", "changed"), [("varnish-before", 0), ("varnish-after", 2)])
def test_varnish_leaves_its_marks(simulate: Simulate, fault: str, changed: int) -> None:
    simulator = simulate(exams=2, faults=[fault])
    response = expire(simulator)
    assert (response.status, response.reason) == (503, "Backend fetch failed")
    assert response.headers["X-Varnish"]
    assert "varnish" in response.headers["Via"]
    assert b"Guru Meditation" in response.body
    assert outcome(simulator) == (changed, True)


@pytest.mark.parametrize(
    ("fault", "reason", "changed"),
    [
        ("envoy-before", "remote connection failure", 0),
        ("envoy-overflow", "overflow", 0),
        ("envoy-after", "connection termination", 2),
    ],
)
def test_envoy_gives_the_reason(simulate: Simulate, fault: str, reason: str, changed: int) -> None:
    simulator = simulate(exams=2, faults=[fault])
    response = expire(simulator)
    assert (response.status, response.headers["Content-Type"]) == (503, "text/plain")
    text = f"upstream connect error or disconnect/reset before headers. reset reason: {reason}"
    assert response.body.decode().startswith(text)
    assert outcome(simulator) == (changed, True)


def test_a_good_token_may_get_401_and_be_accepted_again(simulate: Simulate) -> None:
    simulator = simulate(exams=2, faults=["401"])
    token = bearer(simulator)
    response = expire(simulator, **token)
    assert response.status == 401
    assert token["Authorization"].removeprefix("Bearer ").encode() in response.body
    assert numbers(expire(simulator, **token)) == [0, 1]


def test_a_good_token_may_expire_meanwhile(simulate: Simulate) -> None:
    simulator = simulate(exams=2, faults=["token-expired"])
    token = bearer(simulator)
    response = expire(simulator, **token)
    assert (response.status, response.headers["WWW-Authenticate"]) == (400, 'Bearer realm="oauth"')
    assert b"invalid_grant" in response.body
    assert expire(simulator, **token).status == 400
    assert left(simulator) == [0, 1]


def test_a_good_token_may_be_for_a_foreign_audience(simulate: Simulate) -> None:
    simulator = simulate(exams=2, faults=["foreign-audience"])
    response = expire(simulator)
    assert (response.status, b"access_denied" in response.body) == (403, True)
    assert left(simulator) == [0, 1]


def test_a_gateway_may_require_its_own_credentials(simulate: Simulate) -> None:
    response = expire(simulate(faults=["401-basic"]))
    assert response.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    ("fault", "content"),
    [
        ("null-list", {"additionalExamsToExpire": True, "expiredExams": None}),
        ("empty-list", {"additionalExamsToExpire": True, "expiredExams": []}),
        ("no-list", {"additionalExamsToExpire": True}),
    ],
)
def test_a_response_without_exams_never_hides_any(simulate: Simulate, fault: str, content: dict[str, object]) -> None:
    simulator = simulate(exams=2, faults=[fault])
    assert expire(simulator).json() == content
    assert outcome(simulator) == (0, True)
    assert left(simulator) == [0, 1]


def test_a_response_may_be_repeated_without_any_work(simulate: Simulate) -> None:
    simulator = simulate(exams=5, limit=2, faults=["repeat", "ok", "repeat", "repeat", "ok"])
    calls = [(expire(simulator).body, outcome(simulator)) for _ in range(5)]
    (first, second, third, fourth, fifth), outcomes = zip(*calls, strict=True)
    assert json.loads(first) == {"additionalExamsToExpire": True, "expiredExams": None}
    assert second == third == fourth != fifth
    assert [changed for changed, _ in outcomes] == [0, 2, 0, 0, 2]


def no_json(body: bytes) -> bool:
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    return True


def no_utf8(body: bytes) -> bool:
    with pytest.raises(UnicodeDecodeError):
        body.decode()
    return True


@pytest.mark.parametrize(
    ("fault", "is_malformed"),
    [
        ("not-json", no_json),
        ("not-utf8", no_utf8),
        ("no-flag", lambda body: json.loads(body).keys() == {"more", "expiredExams"}),
        ("malformed-records", lambda body: len(json.loads(body)["expiredExams"]) == EXAMS + 5),
        ("huge", lambda body: len(body) > 50_000_000 and len(json.loads(body)["expiredExams"]) == EXAMS),
    ],
)
def test_a_response_may_not_be_what_proctor_sends(
    simulate: Simulate, fault: str, is_malformed: Callable[[bytes], bool]
) -> None:
    simulator = simulate(exams=EXAMS, faults=[fault])
    response = expire(simulator)
    assert (response.status, response.headers.get_content_type()) == (200, "application/json")
    assert is_malformed(response.body)
    assert outcome(simulator) == (EXAMS, True)


@pytest.mark.parametrize("fault", ["", "nonsense", "503-", "50", "503-never", "cut", "null"])
def test_a_scenario_with_a_fault_that_does_not_exist_is_refused(fault: str) -> None:
    with pytest.raises(ValueError, match="is not a fault"):
        Simulator(Scenario(faults=["ok", fault]))
    with pytest.raises(ValueError, match="is not a fault"):
        Simulator(Scenario(token_faults=["ok", fault]))


def test_every_fault_has_a_line_in_the_help() -> None:
    lines = [line.split()[0] for line in FAULTS_HELP.splitlines()]
    assert lines.count("ok") == 1
    assert set(FAULTS) <= set(lines)
    assert max(map(len, (FAULTS_HELP + TOKEN_FAULTS_HELP).splitlines())) <= 120
    assert all(named(fault) for fault in (*RANDOM_FAULTS, *LATE_FAULTS))


def faults_of(simulator: EmbeddedProctor, calls: int) -> list[str]:
    """The faults that a number of calls met."""
    faults = []
    for _ in range(calls):
        with suppress(OSError, http.client.HTTPException):
            expire(simulator)
        faults.append(recorded(simulator)["fault"])
    return faults


def test_random_faults_depend_on_the_seed_alone(simulate: Simulate) -> None:
    one, same, other = (
        faults_of(simulate(exams=400, limit=5, fault_rate=0.7, seed=seed, late_seconds=0), 40) for seed in (7, 7, 8)
    )
    assert one == same != other
    assert len(set(one)) > 5
    assert "ok" in one
    assert set(one) - {"ok"} <= set(RANDOM_FAULTS)


def test_a_script_comes_first_and_faults_are_as_frequent_as_wanted(simulate: Simulate) -> None:
    assert faults_of(simulate(faults=["503", "ok"], fault_rate=1.0, late_seconds=0), 10)[:2] == ["503", "ok"]
    assert "ok" not in faults_of(simulate(fault_rate=1.0, late_seconds=0), 20)
    assert set(faults_of(simulate(), 20)) == {"ok"}
