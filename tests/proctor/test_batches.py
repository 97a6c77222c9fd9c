"""The body of a response: every record becomes a row, and what is unexpected about it is logged once."""

import gzip
import json
import resource
from datetime import datetime

import pytest

from tests.proctor.bodies import EXAM, batch, body, exam
from tests.servers import Connection, Request, ServeConnection, in_turn, responding, response, serving
from tests.support import QUICK, Jobs, Run, Serve, Simulate, expired

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize("empty_list", ["null", "list", "missing"])
def test_a_response_without_exams_is_an_empty_batch(simulate: Simulate, run: Run, empty_list: str) -> None:
    simulator = simulate(exams=0, empty_list=empty_list)
    result = run(simulator)
    assert (result.code, result.rows, result.summary["outcome"]) == (0, [], "drained")
    assert (len(simulator.record), result.summary["calls"], result.summary["lost"]) == (1, 1, [])
    assert result.events("unexpected_response") == []


@pytest.mark.parametrize("empty_list", ["null", "list", "missing"])
@pytest.mark.parametrize(("fails", "code"), [("false", 0), ("true", 75)])
def test_more_without_exams_is_no_progress(
    simulate: Simulate, run: Run, empty_list: str, fails: str, code: int
) -> None:
    simulator = simulate(exams=30, not_due=120, empty_list=empty_list)
    result = run(simulator, FAIL_ON_NO_PROGRESS=fails)
    assert (result.code, result.rows, result.summary["outcome"]) == (code, [], "no_progress")
    assert (len(simulator.record), result.summary["calls"], result.summary["lost"]) == (1, 1, [])
    assert "expireExamLimit" in result.message


@pytest.mark.parametrize("fault", ["null-list", "empty-list", "no-list"])
def test_an_empty_response_after_others_keeps_their_rows(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=250, faults=["ok", fault])
    result = run(simulator)
    assert (result.code, result.summary["outcome"], result.summary["lost"]) == (0, "no_progress", [])
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert len(result.exam_ids) == 100


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"expiredExams": null}',
        b'{"expiredExams": null, "additionalExamsToExpire": null}',
        b'{"expiredExams": null, "additionalExamsToExpire": "false"}',
        b'{"expiredExams": {}, "additionalExamsToExpire": false}',
        b'{"expiredExams": "", "additionalExamsToExpire": false}',
        body(EXAM)[:-1],
        b"[" * 100_000,
    ],
)
def test_what_is_not_the_list_of_exams_is_a_lost_response(
    simulate: Simulate, run: Run, serve: Serve, content: bytes
) -> None:
    url = serve(200, {"Content-Type": "application/json"}, content)
    result = run(simulate(), PROCTOR_URL=url, MAX_LOST_RESPONSES="0")
    assert (result.code, result.rows) == (65, [])
    (window,) = result.summary["lost"]
    assert "200 OK (application/json" in window["reason"]


@pytest.mark.parametrize("fault", ["no-flag", "not-utf8"])
def test_an_unexpected_body_is_read_as_well_as_it_can_be(simulate: Simulate, run: Run, fault: str) -> None:
    simulator = simulate(exams=250, faults=["ok", fault])
    result = run(simulator)
    assert result.code == 0
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert len(result.exam_ids) == 250
    assert len(result.events("unexpected_response")) == 1


def test_a_list_of_exams_that_is_there_twice_keeps_all_exams(simulate: Simulate, run: Run, serve: Serve) -> None:
    lists = ",".join(f'"expiredExams":[{json.dumps(exam(name))}]' for name in ("first", "second"))
    content = "{" + lists + ',"additionalExamsToExpire":false}'
    result = run(simulate(), PROCTOR_URL=serve(200, {}, content.encode()))
    assert (result.code, result.exam_ids) == (0, ["first", "second"])
    (warning,) = result.events("unexpected_response")
    assert "expiredExams more than once" in warning["message"]


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "1.10", "1e400", "NaN", "-7"])
def test_a_number_is_written_as_it_was_sent(simulate: Simulate, run: Run, serve: Serve, number: str) -> None:
    content = b"\xef\xbb\xbf" + body(EXAM).replace(b"7", number.encode())
    result = run(simulate(), PROCTOR_URL=serve(200, {}, content))
    assert (result.code, result.events("unexpected_response")) == (0, [])
    assert [row["studentId"] for row in result.rows] == [number]


def test_an_older_proctor_reports_no_status_which_is_logged_once(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, with_status=False)
    result = run(simulator)
    assert result.code == 0
    assert sorted(result.exam_ids) == sorted(expired(simulator))
    assert {row["updatedExamStatus"] for row in result.rows} == {""}
    assert result.summary["exams"] == {"expired": 0, "completed": 0, "unknown": 250}
    assert len(result.events("unexpected_response")) == 1


def test_every_malformed_record_becomes_a_row_and_each_anomaly_is_logged_once(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, faults=["malformed-records", "ok", "malformed-records"])
    result = run(simulator)
    assert result.code == 0
    regular = set(expired(simulator))
    assert sorted(row["examId"] for row in result.rows if row["examId"] in regular) == sorted(regular)
    with_id = [
        ["", "", "00000000-0000-4000-8000-000000000001", "", ""],
        [
            'a "quoted", key\r\nover two lines',
            "=1+1\\ud800",
            "00000000-0000-4000-8000-000000000002",
            "123456789012345678901234567890",
            "paused",
        ],
    ]
    without_id = [["", "", "", "", ""], ["", "", "", "", ""], ['["a","b"]', "", "", '{"id":"7"}', ""]]
    malformed = [list(row.values()) for row in result.rows if row["examId"] not in regular]
    assert malformed == [with_id[0], *without_id, with_id[1], *without_id]  # an exam with an id gets no second row
    warnings = [event["message"] for event in result.events("unexpected_response")]
    assert len(warnings) == len(set(warnings)) > 5


@pytest.mark.parametrize(
    ("record", "cell", "anomaly"),
    [
        ({**EXAM, "studentId": "7"}, "7", "a record whose studentId is not a number"),
        ({**EXAM, "studentId": True}, "true", "a record whose studentId is not a number"),
        ({**EXAM, "examId": 8}, "7", "a record whose examId is not text"),
        ({**EXAM, "updatedExamStatus": None}, "7", "a record without updatedExamStatus"),
        ({**EXAM, "segments": []}, "7", "a record with the unknown field 'segments' (left out)"),
        ({**EXAM, "studentId": {"n\u00e9": True}}, '{"n\u00e9":true}', "a record whose studentId is not a number"),
        (7, "", "a record that is not an object (written as its examId)"),
    ],
)
def test_what_is_unexpected_about_a_record_is_logged(
    simulate: Simulate, run: Run, serve: Serve, record: object, cell: str, anomaly: str
) -> None:
    result = run(simulate(), PROCTOR_URL=serve(200, {}, body(record)))
    assert [row["studentId"] for row in result.rows] == [cell]
    (warning,) = result.events("unexpected_response")
    assert anomaly in warning["message"]


def test_anomalies_are_logged_once_and_not_without_end(simulate: Simulate, run: Run) -> None:
    responses = [
        batch(*(exam(f"{call}-{number}", **{f"field{number % 70}": 1}) for number in range(300)), more=call < 3)
        for call in range(4)
    ]
    with serving(responding(in_turn(*responses))) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, len(result.rows)) == (0, 1200)
    warnings = [event["message"] for event in result.events("unexpected_response")]
    assert 0 < len(warnings) == len(set(warnings)) < 50


def test_names_of_unknown_fields_are_cut_and_repeat_no_token(simulate: Simulate, run: Run) -> None:
    def respond(request: Request) -> bytes:
        token = request.headers["Authorization"].split()[1]
        return batch({**EXAM, token: 1, "long" * 10_000: 2})

    with serving(responding(respond)) as server:
        result = run(simulate(), PROCTOR_URL=server.url)
    assert (result.code, result.exam_ids) == (0, ["exam"])
    assert all(len(event["message"]) < 500 for event in result.log)
    assert any("unknown field 'long" in event["message"] for event in result.log)


def test_a_response_longer_than_16_mib_is_lost(simulate: Simulate, run: Run) -> None:
    simulator = simulate(exams=250, faults=["ok", "huge"])
    result = run(simulator)
    assert result.code == 65
    (window,) = result.summary["lost"]
    assert "longer than 16 MiB" in window["reason"]
    lost = simulator.record[1]
    assert sorted(result.exam_ids) == sorted(set(expired(simulator)) - set(lost["expired"]))
    assert datetime.fromisoformat(window["start"]) <= datetime.fromisoformat(lost["changed"])


def _without_end(connection: Connection) -> None:
    connection.receive()
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"%x\r\n%s\r\n" % (MEBIBYTE, b" " * MEBIBYTE)
    while True:
        connection.send(chunk)


def _without_end_of_chunk(connection: Connection) -> None:
    connection.receive()
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
    while True:
        connection.send(b" " * MEBIBYTE)


def _gzip_bomb(connection: Connection) -> None:
    connection.receive()
    member = gzip.compress(b" " * 64 * MEBIBYTE)
    connection.send(response(200, member * 32, Content_Encoding="gzip"))
    connection.wait_closed()


@pytest.mark.parametrize("serve_long", [_without_end, _without_end_of_chunk, _gzip_bomb])
def test_the_longest_response_does_not_take_all_memory(
    simulate: Simulate, jobs: Jobs, serve_long: ServeConnection
) -> None:
    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (512 * MEBIBYTE, 512 * MEBIBYTE))

    with serving(serve_long) as server:
        settings = {**simulate().settings(), **QUICK, "PROCTOR_URL": server.url, "MAX_LOST_RESPONSES": "0"}
        result = jobs.run(settings, preexec_fn=limit_memory)
    assert result.code == 65
    (window,) = result.summary["lost"]
    assert "longer than 16 MiB" in window["reason"]
