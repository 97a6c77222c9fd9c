"""The embedded Proctor, held against what is known of the real one: without it, no other test would mean anything."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID

import pytest

from app.simulator import RANDOM_FAULTS, Scenario, Simulator
from tests.conftest import PATIENCE, ROOT, Jobs

EXPIRE = "/proctor/Services/exams/expire/"
TOKEN = "/auth/oauth2/access_token?realm=/sbac"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Watched(Simulator):
    """An embedded Proctor that hands over what it wrote down of a call, so that a test can wait for it."""

    def __init__(self, world: Scenario) -> None:
        super().__init__(world)
        self.notes: Queue[dict[str, Any]] = Queue()

    def end(self, entry: dict[str, Any]) -> None:
        super().end(entry)
        self.notes.put(entry)

    def noted(self) -> dict[str, Any]:
        """What was recorded of the next call."""
        return self.notes.get(timeout=PATIENCE)


Watch = Callable[..., Watched]


@pytest.fixture
def watch() -> Iterator[Watch]:
    with ExitStack() as stack:
        yield lambda **world: stack.enter_context(Watched(Scenario(**world)))


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> dict[str, Any]:
        content = json.loads(self.body)
        assert isinstance(content, dict)
        return content

    def is_page(self) -> bool:
        return self.headers.get_content_type() == "text/html" and b"<html>" in self.body


def connect(simulator: Simulator) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", simulator.port, timeout=PATIENCE)


def send(simulator: Simulator, method: str, path: str, body: str = "", **headers: str) -> Reply:
    """One request on a connection of its own."""
    connection = connect(simulator)
    try:
        connection.request(
            method, path, body.encode(), {name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def token(simulator: Simulator) -> dict[str, str]:
    """The header with a new token."""
    form = urlencode({"grant_type": "password", **simulator.scenario.credentials})
    return {"Authorization": f"Bearer {send(simulator, 'POST', TOKEN, form, **FORM).json()['access_token']}"}


def expire(simulator: Simulator, method: str = "POST", client_name: str = "SBAC_PT", **headers: str) -> Reply:
    """One expire call, with a new token unless other headers are given."""
    return send(simulator, method, EXPIRE + quote(client_name, safe=""), '""', **(headers or token(simulator)))


def answered(simulator: Simulator) -> tuple[list[int], bool]:
    """The numbers of the exams that a call reports, and whether it says that there are more."""
    content = expire(simulator).json()
    assert content.keys() == {"additionalExamsToExpire", "expiredExams"}
    return sorted(exam["studentId"] - 100_000 for exam in content["expiredExams"]), content["additionalExamsToExpire"]


@pytest.mark.parametrize(
    ("world", "calls"),
    [
        ({"exams": 0}, [([], False)]),
        ({"exams": 2, "limit": 2}, [([0, 1], False), ([], False)]),
        ({"exams": 3, "limit": 2}, [([0, 1], True), ([2], False)]),
        ({"exams": 5, "limit": 2}, [([0, 1], True), ([2, 3], True), ([4], False)]),
        ({"exams": 2, "not_due": 2, "limit": 3}, [([2], True), ([3], False), ([], False)]),
        ({"exams": 2, "not_due": 2, "limit": 2}, [([], True), ([], True)]),
        ({"exams": 0, "not_due": 2, "limit": 2}, [([], False)]),
        ({"exams": 0, "not_due": 3, "limit": 2}, [([], True), ([], True)]),
    ],
)
def test_a_call_takes_the_due_ones_of_the_oldest_exams(
    watch: Watch, world: dict[str, int], calls: list[tuple[list[int], bool]]
) -> None:
    simulator = watch(**world)
    assert [answered(simulator) for _ in calls] == calls


def test_by_default_a_call_takes_a_hundred(watch: Watch) -> None:
    assert answered(watch()) == (list(range(100)), True)


@pytest.mark.parametrize("with_status", [True, False])
def test_an_exam_is_reported_with_the_fields_of_its_deployment(watch: Watch, with_status: bool) -> None:
    simulator = watch(exams=20, with_status=with_status)
    answer = expire(simulator)
    assert (answer.status, answer.headers.get_content_type()) == (200, "application/json")
    exams = answer.json()["expiredExams"]
    for exam in exams:
        assert {name: type(value) for name, value in exam.items()} == {
            "studentId": int,
            "assessmentKey": str,
            "assessmentId": str,
            "examId": str,
            **({"updatedExamStatus": str} if with_status else {}),
        }
        assert str(UUID(exam["examId"])) == exam["examId"]
        assert exam["assessmentId"] in exam["assessmentKey"]
    statuses = {exam["examId"]: exam.get("updatedExamStatus") for exam in exams}
    assert set(statuses.values()) == ({"expired", "completed"} if with_status else {None})
    assert simulator.noted()["expired"] == list(statuses)
    assert [exam["studentId"] for exam in exams] != sorted(exam["studentId"] for exam in exams)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("headers", [{"Accept": "*/*"}, {"Authorization": "Basic YTpi"}])
def test_without_a_token_a_caller_is_sent_to_sign_in(watch: Watch, method: str, headers: dict[str, str]) -> None:
    simulator = watch(exams=2)
    answer = expire(simulator, method, **headers)
    assert answer.status == 302
    assert "SAMLRequest" in answer.headers["Location"]
    assert answered(simulator) == ([0, 1], False)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("world", [{}, {"token_seconds": 0}])
def test_a_token_that_is_bad_or_has_expired_gets_401(watch: Watch, method: str, world: dict[str, int]) -> None:
    simulator = watch(**world)
    headers = token(simulator) if world else {"Authorization": "Bearer made-up"}
    answer = expire(simulator, method, **headers)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="sbac", error="invalid_token"')
    assert answer.headers.get_content_type() == "application/json"
    assert answer.json()["error"] == "invalid_token"
    assert all(call["expired"] == [] for call in simulator.record)


def test_a_token_is_good_for_as_many_calls_as_the_world_wants(watch: Watch) -> None:
    simulator = watch(token_calls=2)
    headers = token(simulator)
    assert [expire(simulator, **headers).status for _ in range(4)] == [200, 200, 401, 401]
    assert expire(simulator).status == 200


def test_a_get_with_a_good_token_gets_405_and_changes_nothing(watch: Watch) -> None:
    simulator = watch(exams=2)
    answer = expire(simulator, "GET")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert simulator.record == []
    assert answered(simulator) == ([0, 1], False)


@pytest.mark.parametrize("client_name", ["SBAC", "sbac_pt", "SBAC_PT ", ""])
def test_an_unknown_client_name_gets_a_page_of_an_internal_error(watch: Watch, client_name: str) -> None:
    simulator = watch(exams=2)
    answer = expire(simulator, client_name=client_name)
    assert (answer.status, answer.is_page()) == (500, True)
    assert simulator.noted()["expired"] == []


@pytest.mark.parametrize("path", ["/", "/proctor", "/proctor/Services/exams/expire", EXPIRE + "SBAC_PT/more"])
def test_there_is_nothing_elsewhere(watch: Watch, path: str) -> None:
    simulator = watch()
    assert send(simulator, "POST", path, **token(simulator)).status == 404
    assert simulator.record == []


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"client_id": "other"}, 401, "invalid_client"),
        ({"client_secret": "other"}, 401, "invalid_client"),
        ({"client_secret": None}, 401, "invalid_client"),
        ({"grant_type": "implicit"}, 400, "unsupported_grant_type"),
        ({"grant_type": None}, 400, "unsupported_grant_type"),
        ({"username": "other"}, 400, "invalid_grant"),
        ({"password": "other"}, 400, "invalid_grant"),
    ],
)
def test_the_token_endpoint_refuses_with_an_oauth_error(
    watch: Watch, change: dict[str, str | None], status: int, error: str
) -> None:
    simulator = watch()
    form = {"grant_type": "password", **simulator.scenario.credentials, **change}
    body = urlencode({name: value for name, value in form.items() if value is not None})
    answer = send(simulator, "POST", TOKEN, body, **FORM)
    assert answer.status == status
    assert answer.headers.get_content_type() == "application/json"
    assert answer.json().keys() == {"error", "error_description"}
    assert answer.json()["error"] == error


@pytest.mark.parametrize(("method", "headers"), [("GET", FORM), ("POST", {"Content-Type": "application/json"})])
def test_the_token_endpoint_takes_a_posted_form_alone(watch: Watch, method: str, headers: dict[str, str]) -> None:
    simulator = watch()
    form = urlencode({"grant_type": "password", **simulator.scenario.credentials})
    answer = send(simulator, method, TOKEN, form, **headers)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")


def test_a_token_comes_with_its_lifetime(watch: Watch) -> None:
    simulator = watch(token_seconds=90)
    form = urlencode({"grant_type": "client_credentials", **simulator.scenario.credentials})
    answer = send(simulator, "POST", TOKEN, form, **FORM).json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 90)
    assert answer["access_token"] != token(simulator)["Authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize(
    ("fault", "status", "changed"),
    [
        ("503", 503, 0),
        ("404", 404, 0),
        ("500", 500, 0),
        ("500-half", 500, 2),
        ("500-after", 500, 20),
        ("502-after", 502, 20),
        ("504-after", 504, 20),
        ("html", 200, 20),
        ("sign-in", 200, 0),
    ],
)
def test_a_page_may_come_before_within_or_after_the_work(watch: Watch, fault: str, status: int, changed: int) -> None:
    simulator = watch(exams=20, faults=[fault])
    answer = expire(simulator)
    assert answer.status == status
    assert answer.headers.get_content_type() == "text/html"
    assert (b"SAMLRequest" in answer.body) == (fault == "sign-in")
    entry = simulator.noted()
    assert (entry["fault"], len(entry["expired"]), entry["delivered"]) == (fault, changed, True)
    left, _ = answered(simulator)
    assert left == [number for number in range(20) if not changed or (changed == 2 and number % 10 != 7)]


@pytest.mark.parametrize("fault", ["503:7", "429:7", "503:date", "429:date"])
def test_a_caller_may_be_told_when_to_come_back(watch: Watch, fault: str) -> None:
    simulator = watch(exams=2, faults=[fault])
    answer = expire(simulator)
    assert answer.status == int(fault[:3])
    after = answer.headers["Retry-After"]
    assert after == "7" if fault.endswith("7") else parsedate_to_datetime(after).utcoffset() is not None
    assert answered(simulator) == ([0, 1], False)


def test_a_401_may_come_to_a_good_token(watch: Watch) -> None:
    simulator = watch(exams=2, faults=["401"])
    assert expire(simulator).status == 401
    assert simulator.noted()["expired"] == []


@pytest.mark.parametrize(
    ("fault", "error", "changed"),
    [
        ("reset-before", ConnectionResetError, 0),
        ("reset-after", ConnectionResetError, 2),
        ("cut-body", http.client.IncompleteRead, 2),
    ],
)
def test_a_connection_may_end_before_the_whole_answer(
    watch: Watch, fault: str, error: type[Exception], changed: int
) -> None:
    simulator = watch(exams=2, faults=[fault])
    headers = token(simulator)
    with pytest.raises(error):
        expire(simulator, **headers)
    entry = simulator.noted()
    assert (len(entry["expired"]), entry["delivered"]) == (changed, False)


def test_a_connection_may_end_within_the_headers(watch: Watch) -> None:
    simulator = watch(exams=2, faults=["cut-head"])
    answer = expire(simulator)
    assert (answer.headers["Content-Length"], answer.body) == (None, b"")
    entry = simulator.noted()
    assert (len(entry["expired"]), entry["delivered"]) == (2, False)


@pytest.mark.parametrize(("fault", "changed"), [("silence-before", 0), ("silence-after", 2)])
def test_an_answer_may_never_come(watch: Watch, fault: str, changed: int) -> None:
    simulator = watch(exams=2, faults=[fault])
    connection = connect(simulator)
    connection.request("POST", EXPIRE + "SBAC_PT", b'""', token(simulator))
    assert simulator.notes.empty()
    connection.close()
    entry = simulator.noted()
    assert (len(entry["expired"]), entry["delivered"]) == (changed, False)


def test_an_answer_may_never_end(watch: Watch) -> None:
    simulator = watch(exams=2, faults=["drip"])
    connection = connect(simulator)
    connection.request("POST", EXPIRE + "SBAC_PT", b'""', token(simulator))
    answer = connection.getresponse()
    assert (answer.status, answer.read(3)) == (200, b"   ")
    assert simulator.notes.empty()
    answer.close()
    connection.close()
    entry = simulator.noted()
    assert (len(entry["expired"]), entry["delivered"]) == (2, False)


def test_an_answer_may_be_held_until_it_is_released(watch: Watch) -> None:
    simulator = watch(exams=2, faults=["hold"])
    connection = connect(simulator)
    connection.request("POST", EXPIRE + "SBAC_PT", b'""', token(simulator))
    assert simulator.held.wait(PATIENCE)
    assert simulator.notes.empty()
    simulator.release.set()
    assert len(json.load(connection.getresponse())["expiredExams"]) == 2
    connection.close()
    assert simulator.noted()["delivered"]


@pytest.mark.parametrize(("fault", "closed"), [("ok", False), ("close", True)])
def test_a_good_answer_may_be_followed_by_the_end_of_the_connection(watch: Watch, fault: str, closed: bool) -> None:
    simulator = watch(exams=3, limit=1, faults=[fault])
    headers = token(simulator)
    connection = connect(simulator)
    connection.request("POST", EXPIRE + "SBAC_PT", b'""', headers)
    answer = connection.getresponse()
    assert len(json.load(answer)["expiredExams"]) == 1
    assert simulator.noted()["delivered"]
    assert connection.sock is not None
    if closed:
        assert connection.sock.recv(1) == b""
    else:
        connection.request("POST", EXPIRE + "SBAC_PT", b'""', headers)
        assert connection.getresponse().status == 200
    connection.close()


def test_an_answer_may_be_repeated_without_any_work(watch: Watch) -> None:
    simulator = watch(exams=5, limit=2, faults=["repeat", "ok", "repeat", "repeat", "ok"])
    first, second, third, fourth, fifth = (expire(simulator).body for _ in range(5))
    assert json.loads(first) == {"additionalExamsToExpire": True, "expiredExams": []}
    assert second == third == fourth != fifth
    assert [len(simulator.noted()["expired"]) for _ in range(5)] == [0, 2, 0, 0, 2]


def no_json(body: bytes) -> bool:
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    return True


def no_utf8(body: bytes) -> bool:
    with pytest.raises(UnicodeDecodeError):
        body.decode()
    return True


@pytest.mark.parametrize(
    ("fault", "is_odd"),
    [
        ("not-json", no_json),
        ("not-utf8", no_utf8),
        ("no-list", lambda body: json.loads(body).keys() == {"additionalExamsToExpire"}),
        ("null-list", lambda body: json.loads(body)["expiredExams"] is None),
        ("no-flag", lambda body: json.loads(body).keys() == {"more", "expiredExams"}),
        ("odd-records", lambda body: len(json.loads(body)["expiredExams"]) == 25),
        ("huge", lambda body: len(body) > 50_000_000 and len(json.loads(body)["expiredExams"]) == 20),
    ],
)
def test_after_the_work_an_answer_may_be_no_answer_of_proctor(
    watch: Watch, fault: str, is_odd: Callable[[bytes], bool]
) -> None:
    simulator = watch(exams=20, faults=[fault])
    answer = expire(simulator)
    assert (answer.status, answer.headers.get_content_type()) == (200, "application/json")
    assert is_odd(answer.body)
    entry = simulator.noted()
    assert (len(entry["expired"]), entry["delivered"]) == (20, True)


@pytest.mark.parametrize(
    ("fault", "status"), [("503", 503), ("429:7", 429), ("302", 302), ("html", 200), ("no-token", 200), ("reset", None)]
)
def test_the_token_endpoint_fails_on_demand(watch: Watch, fault: str, status: int | None) -> None:
    simulator = watch(exams=1, token_faults=[fault])
    form = urlencode({"grant_type": "password", **simulator.scenario.credentials})
    if status:
        answer = send(simulator, "POST", TOKEN, form, **FORM)
        assert answer.status == status
        assert b"access_token" not in answer.body
    else:
        with pytest.raises(ConnectionResetError):
            send(simulator, "POST", TOKEN, form, **FORM)
    assert simulator.token_requests == 1
    assert answered(simulator) == ([0], False)


def faults_of(simulator: Watched, calls: int) -> list[str]:
    """The faults that a number of calls met."""
    faults = []
    for _ in range(calls):
        with suppress(OSError, http.client.HTTPException):
            expire(simulator)
        faults.append(simulator.noted()["fault"])
    return faults


def test_random_faults_are_those_of_their_seed(watch: Watch) -> None:
    one, same, other = (faults_of(watch(exams=400, limit=5, fault_rate=0.7, seed=seed), 40) for seed in (7, 7, 8))
    assert one == same != other
    assert len(set(one)) > 5
    assert "ok" in one
    assert set(one) - {"ok"} <= set(RANDOM_FAULTS)


def test_a_script_comes_first_and_faults_come_as_often_as_wanted(watch: Watch) -> None:
    assert faults_of(watch(faults=["503", "ok"], fault_rate=1.0), 10)[:2] == ["503", "ok"]
    assert "ok" not in faults_of(watch(fault_rate=1.0), 20)
    assert set(faults_of(watch(), 20)) == {"ok"}


def test_the_record_tells_when_a_call_came_changed_and_ended(watch: Watch) -> None:
    simulator = watch(exams=2)
    expire(simulator)
    entry = simulator.noted()
    times = [datetime.fromisoformat(entry[name]) for name in ("start", "changed", "end")]
    assert times == sorted(times)
    assert all(time.tzinfo for time in times)


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The embedded Proctor as a process of its own."""
    command = [
        sys.executable,
        "-m",
        "app.simulator",
        "--port",
        "0",
        "--exams",
        "5",
        "--limit",
        "3",
        "--faults",
        "503,ok",
    ]
    process = subprocess.Popen(
        [*command, "--record", str(tmp_path / "record")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    yield process
    process.terminate()
    process.communicate(timeout=PATIENCE)


def test_on_its_own_it_prints_the_settings_that_lead_there_and_keeps_a_record(
    standalone: subprocess.Popen[str], jobs: Jobs, tmp_path: Path
) -> None:
    assert standalone.stdout
    assert standalone.stderr
    url = standalone.stderr.readline().split()[-1]
    lines = [standalone.stdout.readline() for _ in range(7)]
    settings = dict(line.rstrip("\n").split("=", 1) for line in lines)
    assert settings["PROCTOR_URL"] == url
    assert urlsplit(url).hostname == "127.0.0.1"
    (jobs.directory / ".env").write_text("".join(lines), encoding="utf-8")
    result = jobs.run({"MAX_WAIT": "0"})
    assert result.code == 0
    record = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    assert [call["fault"] for call in record] == ["503", "ok", "ok"]
    assert sorted(exam for call in record for exam in call["expired"]) == sorted(result.exam_ids)
    assert len(result.exam_ids) == 5
