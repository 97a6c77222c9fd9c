"""Every way in which a call can end, and what the run makes of it."""

import json
import socket
from contextlib import ExitStack
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from app.simulator import Simulator
from tests.support import HEADER, QUICK, Result, Run, Serve, Simulate, delivered, expired

HEADER_LINE = ",".join(HEADER).encode() + b"\r\n"


def reported(simulator: Simulator) -> list[str]:
    """The ids of the exams that the server changed in a call without a fault."""
    return [exam for call in simulator.record if call["fault"] == "ok" for exam in call["expired"]]


EXAM = dict(zip(HEADER, ("key", "id", "exam", 7, "expired"), strict=True))


def answer(*exams: object) -> bytes:
    """The body of a last answer with these records."""
    return json.dumps({"expiredExams": exams, "additionalExamsToExpire": False}, ensure_ascii=False).encode()


def settled(simulator: Simulator, result: Result) -> bool:
    """Whether the CSV holds every exam that the server changed exactly once."""
    return sorted(result.exam_ids) == sorted(expired(simulator))


def test_a_run_goes_on_until_proctor_has_no_more(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, limit=100)
    result = run(simulator)
    assert result.code == 0
    assert settled(simulator, result)
    assert len(result.exam_ids) == 250
    assert len(simulator.record) == 3
    assert result.summary["outcome"] == "drained"
    assert result.summary["exams"] == {"expired": 225, "completed": 25, "unknown": 0}


def test_a_call_is_a_post_of_an_empty_text_in_json(simulate: Simulate, run: Run) -> None:
    calls = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer(EXAM))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        result = run(simulate(), PROCTOR_URL=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert (result.code, result.exam_ids) == (0, ["exam"])
    assert calls == [("application/json", b'""')]


def test_more_without_anything_new_ends_the_run_well(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=30, not_due=120, limit=100)
    result = run(simulator)
    assert result.code == 0
    assert result.summary["outcome"] == "no_progress"
    assert "expireExamLimit" in result.message
    assert len(simulator.record) == 1


@pytest.mark.parametrize("fault", ["503", "503:0", "429:0", "429:date", "401"])
def test_what_is_turned_away_is_tried_again_and_nothing_is_lost(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=150, faults=["ok", fault])
    result = run(simulator)
    assert result.code == 0
    assert settled(simulator, result)
    assert result.summary["lost"] == []


@pytest.mark.parametrize(
    "fault",
    "reset-before reset-after cut-head cut-body 500 500-after 500-half 408-after 502-after 504-after 524-after"
    " html not-json no-list null-list".split(),
)
def test_a_lost_answer_is_named_with_its_window(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=250, faults=["ok", fault])
    result = run(simulator)
    assert result.code == 65
    assert sorted(result.exam_ids) == sorted(reported(simulator))
    (window,) = result.summary["lost"]
    lost = simulator.record[1]
    assert window["start"] <= lost["start"].replace("+00:00", "Z")
    assert lost.get("changed", lost["start"]).replace("+00:00", "Z") <= window["end"]
    assert set(delivered(simulator)) >= set(result.exam_ids)


@pytest.mark.parametrize(
    ("fault", "at_work"),
    [
        *[(fault, True) for fault in "reset-after cut-body 408 408-after 502-after 504-after 524-after".split()],
        *[(fault, False) for fault in "500-after html not-json".split()],
    ],
)
def test_where_proctor_may_still_be_at_work_the_window_and_the_wait_leave_it_time(
    simulate: Simulate, run: Run, fault: str, at_work: bool
) -> None:
    result = run(simulate(faults=[fault]), MAX_WAIT="3600", MAX_RUNTIME="2")
    (window,) = result.summary["lost"]
    start, end = (datetime.fromisoformat(window[name]) for name in ("start", "end"))
    assert (end - start >= timedelta(seconds=float(QUICK["READ_TIMEOUT"]))) == at_work
    (retry,) = result.events("retry")
    assert (retry["wait_seconds"] == 3600) == at_work


@pytest.mark.parametrize("status", [201, 206, 500])
@pytest.mark.parametrize("body", [answer(EXAM), b'<input name="SAMLRequest"/>'], ids=["exams", "sign-in"])
def test_what_does_not_come_with_200_is_lost_whatever_is_in_it(
    simulate: Simulate, run: Run, serve: Serve, status: int, body: bytes
) -> None:
    result = run(simulate(), PROCTOR_URL=serve(status, {}, body), MAX_LOST_RESPONSES="0")
    assert result.code == 65
    assert len(result.summary["lost"]) == 1
    assert result.rows == []


@pytest.mark.parametrize("setting", ["PROCTOR_URL", "AUTH_URL"])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid", "https://nowhere.invalid"])
def test_what_cannot_be_reached_is_tried_again_and_then_unavailable(
    simulate: Simulate, run: Run, setting: str, url: str
) -> None:
    simulator = simulate()
    result = run(simulator, MAX_ATTEMPTS="3", **{setting: url})
    assert result.code == 69
    assert result.stdout == HEADER_LINE
    assert [event["attempt"] for event in result.events("retry")] == [1, 2]
    assert url.partition("//")[2] in result.message
    assert result.summary["lost"] == []
    assert simulator.record == []


def test_a_connect_timeout_is_tried_again_and_then_unavailable(simulate: Simulate, run: Run) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # fills the backlog: no further connection is answered
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        result = run(simulate(), PROCTOR_URL=url, CONNECT_TIMEOUT="0.1", MAX_ATTEMPTS="2")
    assert result.code == 69
    assert len(result.events("retry")) == 1
    assert result.summary["lost"] == []


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("fault", ["503", "429:0", "429:date"])
def test_what_is_turned_away_at_every_attempt_is_unavailable(
    simulate: Simulate, run: Run, fault: str, attempts: int
) -> None:
    simulator = simulate(exams=150, faults=["ok", *[fault] * 5])
    result = run(simulator, MAX_ATTEMPTS=str(attempts))
    assert result.code == 69
    assert settled(simulator, result)
    assert len(simulator.record) == 1 + attempts
    assert (result.summary["calls"], result.summary["retries"]) == (1, attempts - 1)
    assert result.summary["lost"] == []
    assert f"{attempts} times" in result.message


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        (["401", "401"], 77, "AUTH_URL"),
        (["403"], 77, "may not expire"),
        (["300"], 77, "sign in"),
        (["302"], 77, "sign in"),
        (["sign-in"], 77, "sign in"),
        (["404"], 78, "PROCTOR_URL"),
        (["405"], 78, "PROCTOR_URL"),
        (["400"], 76, "in front of it"),
        (["418"], 76, "in front of it"),
    ],
)
def test_what_is_wrong_stops_the_run_with_a_message_that_says_what_to_change(
    simulate: Simulate, run: Run, faults: list[str], code: int, words: str
) -> None:
    simulator = simulate(exams=150, faults=["ok", *faults])
    result = run(simulator)
    assert result.code == code
    assert words in result.message
    assert "SAMLRequest" not in result.message
    assert settled(simulator, result)
    assert len(result.exam_ids) == 100
    assert len(simulator.record) == 1 + len(faults)
    assert result.summary["outcome"] == "failed"


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_proctor_that_has_moved_is_not_followed_but_named(simulate: Simulate, run: Run, status: int) -> None:
    simulator = simulate()

    class Moved(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Location", simulator.url + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Moved) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        result = run(simulator, PROCTOR_URL=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert result.code == 78
    assert f"moved to {simulator.url}/proctor" in result.message
    assert simulator.record == []


def test_a_redirect_to_nowhere_is_told_as_what_it_is(simulate: Simulate, run: Run, serve: Serve) -> None:
    result = run(simulate(), PROCTOR_URL=serve(302, {}, b""))
    assert result.code == 77
    assert "to nowhere" in result.message


@pytest.mark.parametrize("tolerated", [0, 2])
def test_an_unknown_client_name_ends_the_run_as_soon_as_too_many_answers_are_lost(
    simulate: Simulate, run: Run, tolerated: int
) -> None:
    simulator = simulate()
    result = run(simulator, CLIENT_NAME="SBAC_PX", MAX_LOST_RESPONSES=str(tolerated))
    assert result.code == 65
    assert "CLIENT_NAME" in result.message
    assert len(simulator.record) == len(result.summary["lost"]) == tolerated + 1
    assert result.summary["outcome"] == "failed"


@pytest.mark.parametrize("fault", ["silence-before", "silence-after", "drip"])
def test_an_answer_that_is_not_whole_in_time_is_lost(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=150, faults=[fault])
    result = run(simulator, READ_TIMEOUT="0.5")
    assert result.code == 65
    (window,) = result.summary["lost"]
    assert "0.5 seconds" in window["reason"]
    assert sorted(result.exam_ids) == sorted(reported(simulator))


@pytest.mark.parametrize("fault", ["no-flag", "not-utf8", "huge"])
def test_an_odd_body_is_read_as_well_as_it_can_be(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=250, faults=["ok", fault])
    result = run(simulator)
    assert result.code == 0
    assert settled(simulator, result)
    assert len(result.exam_ids) == 250
    assert len(result.events("unexpected_response")) == (fault != "huge")


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "1.10", "1e400", "NaN"])
def test_a_number_is_written_as_it_was_sent(simulate: Simulate, run: Run, serve: Serve, number: str) -> None:
    body = b"\xef\xbb\xbf" + answer(EXAM).replace(b"7", number.encode())
    result = run(simulate(), PROCTOR_URL=serve(200, {}, body))
    assert (result.code, result.events("unexpected_response")) == (0, [])
    assert [row["studentId"] for row in result.rows] == [number]


def test_an_older_proctor_tells_no_status_and_is_warned_of_once(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, with_status=False)
    result = run(simulator)
    assert result.code == 0
    assert settled(simulator, result)
    assert {row["updatedExamStatus"] for row in result.rows} == {""}
    assert result.summary["exams"] == {"expired": 0, "completed": 0, "unknown": 250}
    assert len(result.events("unexpected_response")) == 1


def test_every_odd_record_becomes_a_row_and_each_oddity_is_warned_of_once(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, faults=["odd-records", "ok", "odd-records"])
    result = run(simulator)
    assert result.code == 0
    regular = [row["examId"] for row in result.rows if row["examId"] in set(expired(simulator))]
    assert sorted(regular) == sorted(expired(simulator))
    odd = [list(row.values()) for row in result.rows if row["examId"] not in regular]
    assert odd[: len(odd) // 2] == odd[len(odd) // 2 :]
    assert odd[: len(odd) // 2] == [
        ["", "", "00000000-0000-4000-8000-000000000001", "", ""],
        ["", "", "", "", ""],
        ["", "", "", "", ""],
        ['["a","b"]', "", "", '{"id":"7"}', ""],
        [
            'a "quoted", key\r\nover two lines',
            "=1+1\\ud800",
            "00000000-0000-4000-8000-000000000002",
            "123456789012345678901234567890",
            "paused",
        ],
    ]
    warnings = [event["message"] for event in result.events("unexpected_response")]
    assert len(warnings) == len(set(warnings)) > 5


@pytest.mark.parametrize(
    ("record", "cell", "oddity"),
    [
        ({**EXAM, "studentId": "7"}, "7", "a record whose studentId is not a number"),
        ({**EXAM, "examId": 8}, "7", "a record whose examId is not text"),
        ({**EXAM, "updatedExamStatus": None}, "7", "a record without updatedExamStatus"),
        ({**EXAM, "segments": []}, "7", "a record with the unknown field 'segments' (left out)"),
        ({**EXAM, "studentId": {"n\u00e9": True}}, '{"n\u00e9":true}', "a record whose studentId is not a number"),
        (7, "", "a record that is no object (written as its examId)"),
    ],
)
def test_what_is_odd_about_a_record_is_told(
    simulate: Simulate, run: Run, serve: Serve, record: object, cell: str, oddity: str
) -> None:
    result = run(simulate(), PROCTOR_URL=serve(200, {}, answer(record)))
    assert [row["studentId"] for row in result.rows] == [cell]
    (warning,) = result.events("unexpected_response")
    assert oddity in warning["message"]


def test_an_exam_that_stands_twice_in_an_answer_stands_in_one_row(simulate: Simulate, run: Run, serve: Serve) -> None:
    other = {**EXAM, "examId": "other"}
    result = run(simulate(), PROCTOR_URL=serve(200, {}, answer(EXAM, other, EXAM, other)))
    assert result.code == 0
    assert result.exam_ids == ["exam", "other"]
    assert result.summary["exams"]["expired"] == 2


@pytest.mark.parametrize(("faults", "code"), [("ok repeat", 0), ("repeat", 0), ("ok cut-body repeat", 65)])
def test_an_exam_that_is_reported_twice_stands_in_one_row(simulate: Simulate, run: Run, faults: str, code: int) -> None:
    simulator = simulate(exams=250, faults=faults.split())
    result = run(simulator)
    assert result.code == code
    assert settled(simulator, result)


def test_no_progress_fails_where_that_is_wished_for(simulate: Simulate, run: Run) -> None:
    result = run(simulate(exams=30, not_due=120), FAIL_ON_NO_PROGRESS="true")
    assert result.code == 75
    assert result.summary["outcome"] == "no_progress"


def test_no_call_is_made_after_max_runtime(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, latency=0.3)
    result = run(simulator, MAX_RUNTIME="0.2")
    assert result.code == 75
    assert result.summary["outcome"] == "time_limit"
    assert len(simulator.record) == 1
    assert settled(simulator, result)


@pytest.mark.parametrize("most", [3600, 60])
def test_max_runtime_cuts_a_wait_short(simulate: Simulate, run: Run, most: int) -> None:
    simulator = simulate(faults=["503:3600"])
    result = run(simulator, MAX_RUNTIME="2", MAX_WAIT=str(most))
    assert result.code == 75
    assert result.summary["outcome"] == "time_limit"
    assert len(simulator.record) == 1
    (retry,) = result.events("retry")
    assert retry["wait_seconds"] == most
    assert "503" in retry["reason"]


def test_no_call_is_made_where_max_runtime_passed_over_the_token(simulate: Simulate, run: Run) -> None:
    simulator = simulate(token_faults=["silence"])
    result = run(simulator, MAX_RUNTIME="0.2", READ_TIMEOUT="0.5")
    assert simulator.record == []
    assert result.code == 75
    assert result.summary["outcome"] == "time_limit"


@pytest.mark.parametrize(
    ("world", "settings", "outcome", "code"),
    [
        ({"faults": ["500-after"]}, {}, "drained", 65),
        ({"faults": ["500-after", "503", "503"]}, {"MAX_ATTEMPTS": "3"}, "failed", 65),
        ({"faults": ["500-after"], "latency": 0.3}, {"MAX_RUNTIME": "0.2"}, "time_limit", 65),
        ({"faults": ["500-after"], "not_due": 120}, {}, "no_progress", 65),
        ({"faults": ["500-after"], "not_due": 120}, {"FAIL_ON_NO_PROGRESS": "1"}, "no_progress", 65),
        ({"faults": ["500-after", "403"]}, {}, "failed", 77),
        ({"faults": ["500-after", "404"]}, {}, "failed", 78),
    ],
)
def test_a_lost_answer_changes_an_end_that_would_hide_it(
    simulate: Simulate, run: Run, world: dict[str, Any], settings: dict[str, str], outcome: str, code: int
) -> None:
    result = run(simulate(exams=250, **world), **settings)
    assert (result.code, result.summary["outcome"]) == (code, outcome)
    assert len(result.summary["lost"]) == 1
