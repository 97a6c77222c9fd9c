"""`recover` without a database: usage, lists that others made, rows of a log, storage that fails, and repetition."""

import fcntl
import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.model import Period
from app.output.csv_report import csv_bytes
from app.output.past_runs import PastRun, past_runs
from app.recovery.candidates import candidates
from app.recovery.csvs import csvs_in
from app.recovery.query import KnownExam, query
from app.recovery.zones import parse_zone, readings
from tests.output.volumes import sabotaged, without_privileges
from tests.support import HEADER, PATIENCE, Jobs, Result, Run, Simulate, expired, files_in, rows_of

JSON = {"LOG_FORMAT": "json"}
STEM = "expired_exams_SBAC_PT_20261122T020000Z"
START, END = "2026-11-22T02:00:00.679Z", "2026-11-22T02:06:00.681Z"
WINDOW = {"start": START, "end": END, "reason": "reset"}
ASKED = f"asked window\t{START}\t{END}\tUTC\t2026-11-22 02:10:00"
KNOWN = f"known exam\t2026-11-22T02:00:00.000Z\t{{}}\t2026-11-22T02:01:00.000Z\t2026-11-22 02:00:30\n{ASKED}"


def exam(number: int, status: str = "expired") -> list[str]:
    return ["(SBAC)key", "id", f"00000000-0000-4000-8000-{number:012}", str(number), status]


def listed(*numbers: int, end: str = KNOWN.format(exam(1)[2])) -> bytes:
    """The result of the query, as `mysql -N` gives it."""
    return "".join("\t".join(exam(number)) + "\n" for number in numbers).encode() + end.encode() + b"\n"


def leave(volume: Path, stem: str = STEM, numbers: tuple[int, ...] = (1, 2), **changes: Any) -> Path:
    """Write the CSV and the summary of a run with one lost response."""
    csv = volume / f"{stem}.csv"
    csv.write_bytes(csv_bytes([HEADER, *map(exam, numbers)]))
    summary = {"client_name": "SBAC_PT", "started": "2026-11-22T02:00:00.000Z", "ended": "2026-11-22T02:01:00.000Z"}
    counts = {"expired": 2, "completed": 0, "unknown": 0}
    rest = {"outcome": "drained", "exit_code": 65, "message": "", "calls": 1, "exams": counts, "lost": [WINDOW]}
    csv.with_suffix(".json").write_text(json.dumps({**summary, **rest, **changes}))
    return csv


def resolved(volume: Path) -> list[dict[str, Any] | None]:
    summaries = [json.loads(path.read_bytes()) for path in sorted(volume.glob("expired_exams_*.json"))]
    return [window.get("resolved") for summary in summaries for window in summary["lost"]]


@pytest.fixture
def recover(jobs: Jobs, volume: Path) -> Callable[..., Result]:
    """Run `recover` on the volume; `given` is on stdin."""

    def recover(*arguments: str, given: bytes = b"", **options: Any) -> Result:
        process = jobs.start(JSON, "recover", str(volume), *arguments, stdin=subprocess.PIPE, **options)
        stdout, stderr = process.communicate(given, timeout=60)
        return Result(process.returncode, stdout or b"", stderr)

    return recover


Recover = Callable[..., Result]


def test_the_query_asks_for_each_window_with_a_margin_and_for_any_client(volume: Path, recover: Recover) -> None:
    leave(volume)
    leave(volume, STEM.replace("22T", "23T"), lost=[{**WINDOW, "start": "2026-11-22T02:05:00Z"}])
    result = recover("--database-zone=America/Los_Angeles")
    assert result.code == 0
    sql = result.stdout.decode()
    assert sql.count("BETWEEN") == 1
    assert "BETWEEN '2026-11-21 17:59:00' AND '2026-11-21 18:07:01'" in sql
    assert "client_name" not in sql
    assert sql.count("'asked window'") == 2
    assert [event["start"] for event in result.events("unresolved")] == [START, "2026-11-22T02:05:00.000Z"]
    assert END in result.log[-1]["not_before"]


def test_no_settings_and_no_secrets_are_needed(volume: Path, jobs: Jobs) -> None:
    leave(volume)
    settings = {"PROCTOR_URL": "nonsense", "AUTH_PASSWORD_FILE": "/missing", "LOG_FORMAT": "json"}
    assert jobs.run(settings, "recover", str(volume)).code == 0


def test_found_exams_that_no_csv_has_get_one_of_their_own(volume: Path, recover: Recover) -> None:
    csv = leave(volume)
    (volume / "redirected.csv").write_bytes(csv_bytes([HEADER[:4], exam(3)[:4]]))
    other = volume.parent / "elsewhere.csv"
    other.write_bytes(csv_bytes([HEADER, exam(4)]))
    result = recover("--found", "-", "--csv", str(other), given=listed(1, 2, 3, 4, 5, 6, 5))
    assert result.code == 0
    new = volume / f"{csv.stem}_recovered.csv"
    assert [row["studentId"] for row in rows_of(new.read_bytes())] == ["5", "6"]
    (entry,) = resolved(volume)
    assert entry
    assert {**entry, "at": ""} == {
        "how": f"recovered: 2 exams, in {new.name}",
        "at": "",
        "csv": new.name,
        "exams": 2,
    }


def test_where_nothing_was_lost_the_window_is_resolved_without_a_csv(volume: Path, recover: Recover) -> None:
    leave(volume)
    assert recover("--found", "-", given=listed(1, 2)).code == 0
    (entry,) = resolved(volume)
    assert entry
    assert (entry["how"], entry["csv"], entry["exams"]) == ("recovered: no exam was missing", None, 0)
    assert [path.name for path in volume.glob("*.csv")] == [f"{STEM}.csv"]


def test_an_empty_list_is_only_taken_when_it_is_confirmed(volume: Path, recover: Recover) -> None:
    leave(volume, numbers=())
    before = files_in(volume)
    assert recover("--found", "-").code == 76
    result = recover("--found", "-", given=listed(end=ASKED))  # nothing shows that the time zone was right
    assert (result.code, files_in(volume)) == (76, before)
    assert "--trust-zone" in result.message
    assert recover("--found", "-", "--trust-zone", given=listed(end=ASKED)).code == 0
    assert all(resolved(volume))


@pytest.mark.parametrize("confirmed", ["--trust-zone", "--unverified"])
def test_an_empty_list_is_never_taken_whatever_is_confirmed(volume: Path, recover: Recover, confirmed: str) -> None:
    leave(volume, numbers=())
    for given in b"", b"\n", b"assessment_key\tassessment_id\tid\tstudent_id\tstatus\n":
        assert recover("--found", "-", confirmed, given=given).code == 76
        assert resolved(volume) == [None]
    assert "--acknowledge" in recover("--found", "-", "--unverified").message


@pytest.mark.parametrize("confirmed", ["--trust-zone", "--unverified"])
@pytest.mark.parametrize("end", [KNOWN.format(exam(1)[2]).partition("\n")[0], ASKED + "\n" + "\t".join(exam(5))])
def test_a_result_of_the_query_that_is_not_complete_is_never_taken(
    volume: Path, recover: Recover, confirmed: str, end: str
) -> None:
    leave(volume, numbers=())
    result = recover("--found", "-", confirmed, given=listed(3, end=end))
    assert (result.code, resolved(volume)) == (76, [None])
    assert "not the complete result of the query" in result.message


def test_a_trusted_time_zone_is_verified_all_the_same_where_it_can_be(volume: Path, recover: Recover) -> None:
    leave(volume)
    wrong = listed(3, end=KNOWN.format(exam(1)[2]).replace("02:00:30", "03:00:30"))
    result = recover("--found", "-", "--trust-zone", given=wrong)
    assert (result.code, resolved(volume)) == (76, [None])
    assert "--database-zone=+01:00" in result.message


def test_only_windows_that_the_query_asked_for_are_resolved_whatever_is_confirmed(
    volume: Path, recover: Recover
) -> None:
    leave(volume)
    other = {**WINDOW, "start": "2026-11-23T02:00:00.000Z", "end": "2026-11-23T02:05:00.000Z"}
    leave(volume, STEM.replace("22T", "23T"), lost=[other])
    end = ASKED.replace("2026-11-22 02:10", "2026-11-23 02:10")
    result = recover("--found", "-", "--unverified", given=listed(3, end=end))
    assert (result.code, [bool(entry) for entry in resolved(volume)]) == (65, [True, False])


def test_without_an_exam_to_verify_the_time_zone_by_a_list_is_only_taken_when_it_is_confirmed(
    volume: Path, recover: Recover
) -> None:
    leave(volume, numbers=())
    result = recover("--found", "-", given=listed(3, end=ASKED))
    assert (result.code, resolved(volume)) == (76, [None])
    assert "--trust-zone" in result.message
    assert recover("--found", "-", "--trust-zone", given=listed(3, end=ASKED)).code == 0
    assert (volume / f"{STEM}_recovered.csv").exists()


@pytest.mark.parametrize("action", ["--found", "--log"])
def test_a_list_or_a_log_that_cannot_be_read_fails(volume: Path, recover: Recover, action: str) -> None:
    leave(volume)
    result = recover(action, "/proc/self/mem")
    assert (result.code, resolved(volume)) == (74, [None])
    assert "/proc/self/mem cannot be read" in result.message


def test_a_list_of_one_s_own_is_taken_when_it_is_confirmed(volume: Path, recover: Recover) -> None:
    leave(volume)
    own = listed(2, 3).splitlines()[:2]
    assert recover("--found", "-", given=b"\n".join(own)).code == 76
    assert recover("--found", "-", "--unverified", given=b"\n".join(own)).code == 0
    assert len(list(volume.glob("*_recovered.csv"))) == 1


NEXT_MONTH = "expired_exams_SBAC_PT_20261222T020000Z"


@pytest.mark.parametrize("what", ["run", "recovered", "from_log"])
def test_an_exam_that_was_reopened_and_expired_again_is_missing_all_the_same(
    volume: Path, recover: Recover, what: str
) -> None:
    times = {"started": "2026-12-22T02:00:00.000Z", "ended": "2026-12-22T02:01:00.000Z"}
    log = "2026-11-22T02:00:30.000Z ERROR   UNWRITTEN ROW {}\n"
    if what == "run":
        leave(volume, numbers=(1, 7), lost=[])
    else:
        leave(volume, numbers=(1,))
        action = ("--found", listed(7)) if what == "recovered" else ("--log", log.format(",".join(exam(7))).encode())
        assert recover(action[0], "-", given=action[1]).code == 0
        recover("--acknowledge", "x")
    again = {"start": "2026-12-22T02:00:10.000Z", "end": "2026-12-22T02:05:00.000Z", "reason": "reset"}
    leave(volume, NEXT_MONTH, numbers=(2,), lost=[again], **times)
    late = log.replace("2026-11", "2026-12").format(",".join(exam(7)))
    end = KNOWN.format(exam(1)[2]).replace(START, again["start"]).replace(END, again["end"])
    found = listed(2, 7, end=end.replace("2026-11-22 02:10", "2026-12-22 02:10"))
    for _ in range(2):
        assert recover("--log", "-", given=late.encode()).code == 0
        assert recover("--found", "-", given=found).code == 0
        new = [row["studentId"] for path in volume.glob(f"{NEXT_MONTH}_*.csv") for row in rows_of(path.read_bytes())]
        assert new == ["7"]


def test_rows_of_a_run_without_files_are_recovered_once(volume: Path, recover: Recover) -> None:
    leave(volume)
    log = f"2026-12-22T02:00:30.000Z ERROR   UNWRITTEN ROW {','.join(exam(1))}\n"
    for _ in range(2):
        assert recover("--log", "-", given=log.encode()).code == 0
        assert [path.name for path in volume.glob("*_from_log*")] == [f"{STEM}_from_log.csv"]


def test_a_list_that_lies_in_the_directory_is_not_taken_for_a_csv_of_a_run(volume: Path, recover: Recover) -> None:
    leave(volume)
    own = volume / "list.csv"
    own.write_bytes(csv_bytes([HEADER, exam(3)]))
    assert recover("--found", str(own), "--unverified").code == 0
    assert (volume / f"{STEM}_recovered.csv").exists()


@pytest.mark.parametrize(
    ("content", "complete"),
    [
        ([HEADER, exam(3)], True),
        ([exam(3)], False),  # a list that lies beside the CSVs, and no CSV of a run
        ([["assessment_key", "assessment_id", "id", "student_id", "status"], exam(3)], False),
    ],
)
def test_only_what_names_its_columns_is_a_csv(
    volume: Path, recover: Recover, content: list[list[str]], complete: bool
) -> None:
    leave(volume)
    (volume / "found.csv").write_bytes(csv_bytes(content))
    recover("--found", "-", given=listed(3))
    assert bool(list(volume.glob("*_recovered.csv"))) is not complete


def test_a_truncated_row_of_a_killed_run_is_in_no_csv(volume: Path, recover: Recover) -> None:
    leave(volume)
    partial = volume / "expired_exams_SBAC_PT_20261122T030000Z.csv.partial"
    partial.write_bytes(csv_bytes([HEADER, exam(3), exam(4)])[:-2])
    recover("--found", "-", given=listed(3, 4))
    (new,) = volume.glob("*_recovered.csv")
    assert [row["studentId"] for row in rows_of(new.read_bytes())] == ["4"]


def test_windows_can_be_acknowledged(volume: Path, recover: Recover, jobs: Jobs) -> None:
    leave(volume)
    assert recover("--acknowledge", "found\nby hand").code == 0
    (entry,) = resolved(volume)
    assert entry
    assert entry["how"] == "acknowledged: found by hand"
    history = jobs.run({}, "history", str(volume))
    assert (history.code, b"acknowledged: found by hand" in history.stdout) == (0, True)
    before = files_in(volume)
    assert recover("--acknowledge", "again").code == 0
    assert files_in(volume) == before


@pytest.mark.parametrize("action", [("--found", "-"), ("--acknowledge", "x"), ("--log", "-")])
def test_a_run_that_is_under_way_is_waited_for(volume: Path, recover: Recover, action: tuple[str, ...]) -> None:
    leave(volume)
    with (volume / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert recover(*action).code == 75
        assert recover().code == 0  # the query changes nothing
    assert resolved(volume) == [None]


@pytest.mark.parametrize("action", [(), ("--found", "-"), ("--acknowledge", "x")])
def test_where_nothing_is_unresolved_nothing_is_done(volume: Path, recover: Recover, action: tuple[str, ...]) -> None:
    leave(volume, lost=[])
    before = files_in(volume)
    result = recover(*action)
    assert (result.code, result.stdout, files_in(volume)) == (0, b"", before)


@pytest.mark.parametrize("action", [(), ("--found", "-"), ("--found", "-", "--unverified"), ("--acknowledge", "x")])
def test_a_directory_without_any_run_is_not_taken_for_one_where_nothing_is_unresolved(
    volume: Path, recover: Recover, action: tuple[str, ...]
) -> None:
    result = recover(*action, given=listed(3))
    assert (result.code, result.stdout, files_in(volume)) == (74, b"", {})
    assert f"There is no summary of a run in {volume}." in result.message


@pytest.mark.parametrize("action", [(), ("--found", "-"), ("--acknowledge", "x"), ("--log", "-")])
@pytest.mark.parametrize("mode", [0o300, 0o600])
def test_a_directory_that_this_user_may_not_read_fails(
    volume: Path, recover: Recover, action: tuple[str, ...], mode: int
) -> None:
    leave(volume)
    (volume / PARTIAL).touch()
    before = files_in(volume)
    volume.chmod(mode)
    result = recover(*action, executable=without_privileges(volume.parent))
    volume.chmod(0o700)
    assert (result.code, result.stdout, files_in(volume)) == (74, b"", before)
    assert b"ermission" in result.stderr


PARTIAL = "expired_exams_SBAC_PT_20261122T030000Z.csv.partial"


@pytest.mark.parametrize("action", [(), ("--found", "-"), ("--found", "-", "--unverified"), ("--acknowledge", "x")])
def test_a_window_that_only_the_next_run_reports_is_waited_for(
    volume: Path, recover: Recover, action: tuple[str, ...]
) -> None:
    leave(volume, lost=[])
    (volume / PARTIAL).write_bytes(csv_bytes([HEADER, exam(3)]))
    before = files_in(volume)
    result = recover(*action)
    assert (result.code, result.stdout, files_in(volume)) == (75, b"", before)
    assert result.message == (
        f"Ended with exit code 75: {PARTIAL} belongs to a run that was killed, or could not write its summary. Run the"
        " job again before you recover: that run cleans up, and reports the window of a lost response, if there is one."
    )


@pytest.mark.parametrize("action", [(), ("--log", "-")])
def test_what_can_be_recovered_before_the_next_run_is_recovered_with_a_warning(
    volume: Path, recover: Recover, action: tuple[str, ...]
) -> None:
    leave(volume)
    (volume / PARTIAL).touch()
    log = f"2026-11-22T03:00:30.000Z ERROR   UNWRITTEN ROW {','.join(exam(3))}\n"
    result = recover(*action, given=log.encode())
    assert result.code == 0
    (event,) = result.events("killed_run")
    assert PARTIAL in event["message"]
    assert result.stdout or (volume / PARTIAL.replace(".csv.partial", "_from_log.csv")).exists()


def test_a_run_under_way_is_waited_for_as_it_may_lose_responses(volume: Path, recover: Recover) -> None:
    leave(volume, lost=[])
    with (volume / PARTIAL).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = recover()
    assert result.code == 75
    assert "A run is under way." in result.message


@pytest.mark.parametrize("left", ["summary", "other name"])
def test_a_csv_that_is_not_final_for_another_reason_is_not_waited_for(
    volume: Path, recover: Recover, left: str
) -> None:
    leave(volume, lost=[])
    partial = volume / (PARTIAL if left != "other name" else "expired_exams_copy.csv.partial")
    partial.touch()
    if left == "summary":  # of a run that was killed after it had reported everything
        leave(volume, PARTIAL.removesuffix(".csv.partial"), lost=[])
    result = recover()
    assert (result.code, result.message) == (0, "No window is unresolved: there is nothing to recover.")


@pytest.mark.parametrize("limit", [0, 50])
def test_a_full_disk_leaves_everything_as_it_was(volume: Path, recover: Recover, limit: int) -> None:
    leave(volume)
    before = files_in(volume)
    full = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))}
    assert recover("--found", "-", given=listed(3), **full).code == 74
    assert files_in(volume) == before
    assert recover("--found", "-", given=listed(3)).code == 0
    assert all(resolved(volume))


def test_a_query_that_cannot_be_printed_completely_fails(volume: Path, recover: Recover) -> None:
    leave(volume)
    with open("/dev/full", "wb") as full:
        assert recover(stdout=full).code == 74


def test_a_signal_ends_the_wait_for_the_list(volume: Path, jobs: Jobs) -> None:
    leave(volume)
    process = jobs.start(JSON, "recover", str(volume), "--found", "/dev/stdin", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(listed(3))
    process.stdin.flush()
    while not (volume / ".lock").exists():
        os.sched_yield()
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert resolved(volume) == [None]


def test_a_signal_ends_the_wait_for_whoever_reads_the_query(volume: Path, jobs: Jobs) -> None:
    leave(volume)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader, "rb"), open(writer, "wb", buffering=0) as full:
        while full.write(b"x" * 65_536):
            pass
        os.set_blocking(writer, True)
        process = jobs.start(JSON, "recover", str(volume), stdout=full, bufsize=0)
        jobs.read_until(process, "unresolved")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM


@pytest.mark.parametrize("action", ["--found", "--log"])
def test_a_run_can_start_while_the_result_of_the_query_or_a_log_is_waited_for(
    volume: Path, jobs: Jobs, action: str
) -> None:
    leave(volume)
    pipe = volume.parent / "pipe"
    os.mkfifo(pipe)
    process = jobs.start(JSON, "recover", str(volume), action, str(pipe))
    with pipe.open("wb") as writer, (volume / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_UN)
        writer.write(listed(3))
    assert jobs.finish(process).code == 0


def test_rows_of_a_log_get_into_the_csv_of_their_run(volume: Path, recover: Recover) -> None:
    leave(volume)
    leave(volume, STEM.replace("22T", "23T"), numbers=(5,))
    two_lines = 'a,"b\r\nc",,7,'
    log = [
        "2026-11-22T02:00:30.000Z INFO    Expiring overdue exams at https://proctor.example.org",
        *(f"2026-11-22T02:00:30.000Z ERROR   UNWRITTEN ROW {','.join(exam(number))}" for number in (2, 3, 3)),
        f"force-submit-1  | 2026-11-23T02:00:30.000Z ERROR   UNWRITTEN ROW {','.join(exam(4))}",
        f"2026-11-23T02:00:31.000Z ERROR   UNWRITTEN ROW AS JSON {json.dumps(two_lines)}",
        "pod | " + json.dumps({"time": "2026-11-23T03:00:00.000Z", "event": "unwritten_row", "row": ",".join(exam(6))}),
        "2026-11-23T02:00:32.000Z WARNING Rows that are marked UNWRITTEN ROW may also be in expired.csv",
        "2026-11-23T02:00:33.000Z ERROR   Ended with exit code 74: marked UNWRITTEN ROW: add them",
        "2026-11-23T02:00:34.000Z ERROR   UNWRITTEN ROW " + ",".join(exam(8)),
    ]
    for _ in range(2):
        assert recover("--log", "-", given="\n".join(log).encode()).code == 0
        new = sorted(volume.glob("*_from_log*.csv"))
        assert [path.name for path in new] == [f"{STEM}_from_log.csv", f"{STEM.replace('22T', '23T')}_from_log.csv"]
        students = [[row["studentId"] for row in rows_of(path.read_bytes())] for path in new]
        assert students == [["3"], ["4", "7", "6", "8"]]
    assert resolved(volume) == [None, None]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"UNWRITTEN ROW (SBAC)key,id,{exam(9)[2]},900100,exp", "the log ends within its last cell"),
        ("UNWRITTEN ROW (SBAC)key,900100\n", "it has 2 instead of 5 cells"),
        ("UNWRITTEN ROW \n", "it has 0 instead of 5 cells"),
        ('UNWRITTEN ROW (SBAC)key,id,,900100,"expi\n', "its quotes are not those of a complete row"),
        ('UNWRITTEN ROW AS JSON "(SBAC)key,id,,900100,\n', "its JSON or its time is incomplete"),
        ('{"time": "900100", "event": "unwritten_row", "row": "a,b,c,900100,e"}', "its JSON or its time is incomplete"),
        ('{"time": "2026-11-22T02:00:30.000Z", "event": "unwritten_row", "mess', "its JSON or its time is incomplete"),
    ],
)
def test_a_truncated_row_of_a_log_is_reported_without_its_content_and_the_others_are_taken(
    volume: Path, recover: Recover, line: str, problem: str
) -> None:
    leave(volume)
    begin = "2026-11-22T02:00:30.000Z ERROR   "
    good = f"{begin}UNWRITTEN ROW {','.join(exam(3))}\n"
    line = line if line.startswith("{") else begin + line
    result = recover("--log", "-", given=(good + line).encode())
    assert result.code == 76
    (event,) = result.events("unreadable_row")
    assert event["message"] == f"Line 2 of stdin has a row that is truncated or changed: {problem}."
    assert b"900100" not in result.stderr
    assert [row["studentId"] for row in rows_of((volume / f"{STEM}_from_log.csv").read_bytes())] == ["3"]


@pytest.mark.parametrize("by_hand", [False, True])
def test_rows_of_a_log_that_share_an_id_are_all_recovered(
    volume: Path, recover: Recover, jobs: Jobs, by_hand: bool
) -> None:
    csv = leave(volume)
    rows = [[*exam(2)[:3], "2", "completed"], *([*exam(number)[:3], student, "expired"] for number, student in SHARED)]
    log = "".join(f"2026-11-22T02:00:30.000Z ERROR   UNWRITTEN ROW {','.join(row)}\n" for row in rows).encode()
    if by_hand:
        (volume.parent / "log").write_bytes(log)
        own = jobs.run(JSON, "recover", "--log", str(volume.parent / "log"), "--csv", str(csv))
        assert [row["studentId"] for row in own.rows] == ["22", "7", "8"]
        return
    for _ in range(2):
        assert recover("--log", "-", given=log).code == 0
        (new,) = volume.glob("*_from_log*.csv")
        assert [row["studentId"] for row in rows_of(new.read_bytes())] == ["22", "7", "8"]


def test_the_directory_is_not_listed_anew_for_each_row_of_a_log(volume: Path, jobs: Jobs, tmp_path: Path) -> None:
    count = (
        "import atexit, os, sys\n"
        "listed = []\n"
        "def hook(name, arguments):\n"
        "    if name in ('os.listdir', 'os.scandir'):\n"
        "        listed.append(os.fspath(arguments[0]))\n"
        "sys.addaudithook(hook)\n"
        f"atexit.register(lambda: print(listed.count({str(volume)!r})))\n"
    )
    leave(volume)
    counts = []
    for rows in 2, 200:
        log = tmp_path / f"{rows}.log"
        line = "2026-11-22T02:00:30.{:03}Z ERROR   UNWRITTEN ROW {}\n"
        log.write_text("".join(line.format(number, ",".join(exam(1))) for number in range(rows)))
        result = jobs.run({**JSON, **sabotaged(tmp_path, count)}, "recover", str(volume), "--log", str(log))
        assert result.code == 0
        counts.append(int(result.stdout))
    assert counts[0] == counts[1] > 0


class Counted(list[PastRun]):
    """Runs, and how often they were gone through."""

    times = 0

    def __iter__(self) -> Iterator[PastRun]:
        self.times += 1
        return super().__iter__()


def test_the_runs_are_not_gone_through_anew_for_each_csv(volume: Path) -> None:
    times = []
    period = Period.parse("2026-11-22T02:00:00Z", "2026-11-22T02:01:00Z")
    for day in range(10, 30):
        leave(volume, STEM.replace("22T", f"{day}T"), started=f"2026-11-{day}T02:00:00Z", ended=None, lost=[])
        runs = Counted(past_runs(volume)[0])
        assert len(candidates(csvs_in(volume), runs, [period])) == min(day, 22) - 9
        times.append(runs.times)
    assert len(set(times)) == 1


SHARED = [(2, "22"), (3, "7"), (3, "8"), (3, "8")]

ENTRY = {"time": "2026-11-22T02:00:30.000Z", "event": "unwritten_row", "row": ",".join(exam(3))}


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"log": json.dumps(ENTRY) + "\n", "stream": "stderr"}),
        "level=error msg=" + json.dumps(json.dumps(ENTRY)),
        json.dumps({"log": f"2026-11-22T02:00:30.000Z ERROR   UNWRITTEN ROW {ENTRY['row']}\n"}),
        f'level=error msg="2026-11-22T02:00:30.000Z ERROR   UNWRITTEN ROW {ENTRY["row"]}"',
        json.dumps(ENTRY, indent=1),
    ],
)
def test_a_row_in_a_log_that_another_tool_has_wrapped_is_not_overlooked(
    volume: Path, recover: Recover, line: str
) -> None:
    leave(volume)
    result = recover("--log", "-", given=line.encode() + b"\n")
    assert result.code == 76
    assert len(result.events("unreadable_row")) == 1


@pytest.mark.parametrize("separators", [(",", ":"), (",", " :  ")])
def test_a_row_in_a_log_in_json_may_have_any_white_space(
    volume: Path, recover: Recover, separators: tuple[str, str]
) -> None:
    leave(volume)
    assert recover("--log", "-", given=json.dumps(ENTRY, separators=separators).encode() + b"\n").code == 0
    assert (volume / f"{STEM}_from_log.csv").exists()


def test_a_log_without_unwritten_rows_is_said_to_have_none(volume: Path, recover: Recover) -> None:
    leave(volume)
    result = recover("--log", "-", given=b"2026-11-22T02:00:30.000Z INFO    Expiring overdue exams\n")
    assert (result.code, result.message) == (0, "Nothing to recover: the log has no unwritten row.")


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["key", "id", exam(3)[2], "900100"], "it has 4 instead of 5 cells"),
        (["key", "id", exam(3)[2], "900100", "expired", ""], "it has 6 instead of 5 cells"),
        (["", "", "", "", ""], "its third cell is not the id of an exam"),
        (["key", "id", "900100", exam(3)[2], "expired"], "its third cell is not the id of an exam"),
        (["key", "id", exam(3)[2], "900100.0", "expired"], "its fourth cell is not the id of a student"),
        (["key", "id", exam(3)[2], "7", "900100"], "its fifth cell is not expired or completed"),
        (["asked window", "900100", END, "UTC", "soon"], "a time or the time zone in the row 'asked window' cannot be"),
    ],
)
def test_a_malformed_row_of_a_list_is_reported_by_its_line_without_its_content(
    volume: Path, recover: Recover, cells: list[str], problem: str, separator: str
) -> None:
    leave(volume)
    good = ['"key\n\nof three lines"' if separator != "\t" else r"key\n", *exam(4)[1:]]
    lines = ["", separator.join(exam(5)), " ", separator.join(good), separator.join(cells), ""]
    result = recover("--found", "-", given="\n".join(lines).encode())
    assert result.code == 76
    number = 5 if separator == "\t" else 7
    assert f"Line {number} of stdin is not a row that the query returns: {problem}" in result.message
    assert b"900100" not in result.stderr
    assert resolved(volume) == [None]


def test_by_hand_the_time_zone_must_be_verified_by_an_exam_or_confirmed_too(jobs: Jobs, tmp_path: Path) -> None:
    found = tmp_path / "found.tsv"
    found.write_bytes(listed(1, 2, end=ASKED))
    result = jobs.run(JSON, "recover", "--found", str(found))
    assert (result.code, result.stdout) == (76, b"")
    assert "--trust-zone" in result.message
    for confirmed in "--trust-zone", "--unverified":
        assert len(jobs.run(JSON, "recover", "--found", str(found), confirmed).rows) == 2
    query = jobs.run(JSON, "recover", "--window", START, END)
    assert query.message.endswith("--found - --csv YOUR.csv --trust-zone")


def test_by_hand_the_exams_of_a_list_or_a_log_go_to_stdout(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_bytes(csv_bytes([HEADER, exam(1)]))
    (tmp_path / "found.tsv").write_bytes(listed(1, 2))
    (tmp_path / "log").write_text(f"2026-11-22T02:00:30.000Z ERROR   UNWRITTEN ROW {','.join(exam(3))}\n")
    own = ("--csv", str(tmp_path / "own.csv"))
    found = jobs.run(JSON, "recover", "--found", str(tmp_path / "found.tsv"), *own)
    log = jobs.run(JSON, "recover", "--log", str(tmp_path / "log"), *own)
    assert (found.code, log.code) == (0, 0)
    assert [row["studentId"] for row in found.rows + log.rows] == ["2", "3"]
    window = jobs.run(JSON, "recover", "--window", START, END, "--window", START, "2026-11-22T03:00:00Z")
    assert window.stdout.count(b"BETWEEN") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("missing",),
        (".", "--window", START, END),
        ("--window", END, START),
        ("--window", "2026-11-22T02:00:00", END),
        ("--window", "yesterday", END),
        ("--acknowledge", "x"),
        (".", "--acknowledge", " "),
        (".", "--unverified"),
        (".", "--trust-zone"),
        (".", "--log", "-", "--trust-zone"),
        (".", "--found", "missing"),
        (".", "--found", "-", "--log", "-"),
        (".", "--found", "-", "--csv", "missing"),
        (".", "--database-zone", "Mars/Olympus"),
        (".", "--database-zone", "../etc/passwd"),
        (".", "--database-zone=-99:00"),
    ],
)
def test_wrong_usage_is_reported_in_one_line(jobs: Jobs, arguments: tuple[str, ...]) -> None:
    result = jobs.run({}, "recover", *arguments)
    assert result.code == 64
    assert b"python -m app recover" in result.stderr.splitlines()[-1]


def test_without_time_zone_data_offsets_are_left(jobs: Jobs, volume: Path) -> None:
    leave(volume)
    nowhere = {"PYTHONTZPATH": ""}
    result = jobs.run(nowhere, "recover", str(volume), "--database-zone", "America/Los_Angeles")
    assert (result.code, b"pip install tzdata" in result.stderr) == (64, True)
    for zone in "-08:00", "UTC-8", "UTC":
        assert jobs.run(nowhere, "recover", str(volume), f"--database-zone={zone}").code == 0


def test_what_a_server_said_does_not_get_into_the_query(volume: Path, recover: Recover) -> None:
    leave(volume, lost=[{**WINDOW, "reason": "\n; DROP TABLE exam.exam; --"}])
    (volume / f"{STEM}.csv").write_bytes(csv_bytes([HEADER, ["k", "a", "' OR 1 --", "1", "expired"]]))
    result = recover()
    assert result.code == 0
    assert b"DROP" not in result.stdout
    assert b"OR 1" not in result.stdout


def test_the_time_zone_is_verified_by_no_malformed_record_and_by_no_run_in_which_the_clock_was_set_back(
    volume: Path, recover: Recover
) -> None:
    csv = leave(volume, "expired_exams_SBAC_PT_20261122T000000Z", started="2026-11-22T00:00:00.000Z")
    malformed = [["", "", exam(7)[2], "", ""], ["key", "id", exam(8)[2], "1" * 30, "paused"]]
    csv.write_bytes(csv_bytes([HEADER, *malformed, exam(9)]))
    leave(volume, numbers=(3,), started="2026-11-22T02:30:00.000Z")
    assert re.findall("WHERE exam_id = '(.*?)'", recover().stdout.decode()) == [exam(9)[2]]


LONG = "2026-11-22T02:00:00.000Z", "2026-11-22T04:00:00.000Z"


def test_in_a_long_run_the_time_zone_must_fit_its_first_and_its_last_exam(volume: Path, recover: Recover) -> None:
    leave(volume, numbers=(1, 2, 3), started=LONG[0], ended=LONG[1])
    known = [exam(1)[2], exam(3)[2]]
    assert re.findall("WHERE exam_id = '(.*?)'", recover().stdout.decode()) == known
    times = "2026-11-22 03:00:05", "2026-11-22 04:59:55"  # UTC+1
    rows = [
        f"known exam\t{LONG[0]}\t{exam_id}\t{LONG[1]}\t{time}\n" for exam_id, time in zip(known, times, strict=True)
    ]
    result = recover("--found", "-", given=listed(end="".join(rows) + ASKED))
    assert (result.code, resolved(volume)) == (76, [None])
    assert "--database-zone=+01:00" in result.message
    again = listed(end="".join(rows) + ASKED.replace("UTC", "+01:00"))
    assert recover("--found", "-", given=again).code == 0


AHEAD = (  # of a run of ten minutes: of the first exam, and of the last one
    (90, 0, 10, "02:01:40", "02:11:20"),
    (-90, 0, 10, "01:58:40", "02:08:20"),
    (45 * 60, 0, 10, "02:45:10", "02:54:50"),
    (17 * 60, 3, 13, "02:20:10", "02:29:50"),
)


@pytest.mark.parametrize(("seconds", "start", "end", "first", "last"), AHEAD)
def test_the_offset_that_is_advised_fits_all_exams_where_the_clock_of_the_database_is_wrong(
    volume: Path, recover: Recover, seconds: int, start: int, end: int, first: str, last: str
) -> None:
    leave(volume)
    run = f"2026-11-22T02:{start:02}:00.000Z", f"2026-11-22T02:{end:02}:00.000Z"
    known = "".join(
        f"known exam\t{run[0]}\t{exam(number)[2]}\t{run[1]}\t2026-11-22 {time}\n"
        for number, time in enumerate((first, last), 1)
    )
    zones = ["UTC"]
    while (result := recover("--found", "-", given=listed(3, end=known + ASKED.replace("UTC", zones[-1])))).code == 76:
        (advised,) = re.findall(r"--database-zone=(\S+?),", result.message)
        assert advised not in zones
        zones.append(advised)
    assert (result.code, len(zones)) == (0, 2)
    hours, minutes = map(int, zones[1][1:].split(":"))
    offset = (hours * 60 + minutes) * (-60 if zones[1].startswith("-") else 60)
    assert abs(offset - seconds) <= 60  # as a query is wider than its windows


def test_the_rows_of_a_killed_run_are_not_taken_for_newer_when_a_truncated_one_is_removed(
    volume: Path, simulate: Simulate, run: Run, recover: Recover
) -> None:
    partial = volume / "expired_exams_SBAC_PT_20251122T030000Z.csv.partial"
    partial.write_bytes(csv_bytes([HEADER, exam(3), exam(4)])[:-7])
    written = datetime(2025, 11, 22, 3, 2, tzinfo=UTC).timestamp()
    os.utime(partial, (written, written))
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume), READ_TIMEOUT="1", CONNECT_TIMEOUT="1")
    assert (result.code, len(result.events("truncated_row"))) == (65, 1)
    assert f"'{exam(3)[2]}', '2025-11-22T03:02:00.000Z'" in recover().stdout.decode()


def test_a_killed_run_is_taken_to_have_changed_its_exams_by_when_its_csv_was_written(
    volume: Path, recover: Recover
) -> None:
    csv = leave(volume, ended=None, lost=[{**WINDOW, "end": "2026-11-23T02:00:00.000Z"}])
    written = datetime(2026, 11, 22, 2, 3, tzinfo=UTC).timestamp()
    os.utime(csv, (written, written))
    assert f"'{exam(1)[2]}', '2026-11-22T02:03:00.000Z'" in recover().stdout.decode()


def test_readings_hold_both_offsets_of_a_day_on_which_the_clocks_change() -> None:
    zone = parse_zone("America/Los_Angeles")
    back = datetime(2026, 11, 1, 9, tzinfo=UTC)
    earliest, latest = readings(back - timedelta(minutes=10), back + timedelta(minutes=10), zone)
    assert earliest <= datetime(2026, 11, 1, 1, 0) <= datetime(2026, 11, 1, 1, 59, 59) <= latest


def test_windows_of_any_time_become_a_query() -> None:
    window = Period(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    assert "1970-12-31" in query([Period(window.start, datetime(1980, 1, 1, tzinfo=UTC))], [], parse_zone("UTC"))
    known = KnownExam(exam(1)[2], Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)))
    assert exam(1)[2] in query([known.period], [known], parse_zone("+05:30"))


def test_a_run_after_a_recovery_goes_on_as_ever(simulate: Simulate, run: Run, volume: Path, recover: Recover) -> None:
    leave(volume)
    recover("--found", "-", given=listed(3))
    simulator = simulate(exams=20)
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0
    ids = [row["examId"] for csv in volume.glob("*.csv") for row in rows_of(csv.read_bytes())]
    assert sorted(ids) == sorted([*expired(simulator), *(exam(number)[2] for number in (1, 2, 3))])
