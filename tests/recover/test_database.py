"""Responses are lost, and the two commands find their exams in a real MariaDB: none is missing, none is there twice."""

import json
import os
import resource
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.output.volumes import kill_in_a_call
from tests.recover.database import Database
from tests.recover.runs import ZONES, fill
from tests.recover.shell import Shell
from tests.support import QUICK, Jobs, Result, Run, Simulate, expired, ids, ids_in

QUERY = "python -m app recover {volume} --database-zone={zone} > query.sql"
RECOVER = "mysql -N exam < query.sql | python -m app recover {volume} --found -"


def recovered(result: Result, volume: Path) -> list[str]:
    """The ids of the exams that a recovery found, which its log and its CSV must agree on."""
    assert result.code == 0, result.stderr
    (event, *_) = result.events("resolved")
    return ids((volume / event["csv"]).read_bytes()) if event["csv"] else []


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("fault", ["reset-after", "504-after", "cut-body", "500-half"])
def test_the_exams_of_a_lost_response_are_found(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell, fault: str, zone: str
) -> None:
    simulator = simulate(exams=350, faults=["ok", fault])
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 65
    assert shell(f"python -m app history {volume}").code == 1
    fill(database, [simulator], zone, whole_seconds=fault != "cut-body")
    assert shell(QUERY.format(volume=volume, zone=zone)).code == 0
    result = shell(RECOVER.format(volume=volume))
    assert sorted(recovered(result, volume)) == sorted(simulator.record[1]["expired"])
    assert ids_in(volume) == sorted(expired(simulator))
    history = shell(f"python -m app history {volume}")
    assert (history.code, b"recovered: " in history.stdout) == (0, True)


def test_several_runs_and_clients_are_recovered_at_once(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell
) -> None:
    first = simulate(exams=250, faults=["ok", "reset-after"], seed=1)
    second = simulate(exams=250, faults=["504-after", "ok", "cut-chunk"], seed=2, client_name="SBAC")
    for simulator in first, second:
        assert run(simulator, OUTPUT_DIR=str(volume)).code == 65
    fill(database, [first, second])
    shell(QUERY.format(volume=volume, zone="UTC"))
    assert len(recovered(shell(RECOVER.format(volume=volume)), volume)) == 250
    assert ids_in(volume) == sorted(expired(first) + expired(second))
    assert shell(f"python -m app history {volume}").code == 0


def test_the_exams_of_a_killed_run_are_found_once_and_its_window_is_resolved_in_both_summaries(
    simulate: Simulate, run: Run, jobs: Jobs, volume: Path, database: Database, shell: Shell
) -> None:
    simulator = simulate(exams=250, faults=["ok", "hold"])
    kill_in_a_call(simulator, jobs, volume)
    assert b"killed" in shell(f"python -m app recover {volume}").stderr
    assert run(simulator, OUTPUT_DIR=str(volume), READ_TIMEOUT="3", CONNECT_TIMEOUT="1").code == 65
    fill(database, [simulator])
    shell(QUERY.format(volume=volume, zone="UTC"))
    assert len(recovered(shell(RECOVER.format(volume=volume)), volume)) == 100
    assert ids_in(volume) == sorted(expired(simulator))
    lost = [window for path in volume.glob("*.json") for window in json.loads(path.read_bytes())["lost"]]
    assert [window["resolved"]["exams"] for window in lost] == [100, 100]
    assert shell(f"python -m app history {volume}").code == 0


@pytest.mark.parametrize("form", ["text", "json"])
def test_rows_that_a_full_disk_did_not_take_are_recovered_from_the_log(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell, form: str
) -> None:
    simulator = simulate(exams=250)
    full = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))}
    settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "LOG_FORMAT": form}
    jobs = Jobs(volume.parent)
    result = jobs.run(settings, **full)
    assert result.code == 74
    (volume.parent / "run.log").write_bytes(result.stderr)
    for expected in (100, None):
        taken = shell(f"python -m app recover {volume} --log ../run.log")
        assert taken.code == 0
        assert [event.get("exams") for event in taken.events("recovered")] == [expected]
        assert ids_in(volume) == sorted(expired(simulator))
    fill(database, [simulator])
    shell(QUERY.format(volume=volume, zone="UTC"))
    assert recovered(shell(RECOVER.format(volume=volume)), volume) == []
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0
    assert ids_in(volume) == sorted(expired(simulator))
    assert shell(f"python -m app history {volume}").code == 0


def test_a_wrong_time_zone_changes_nothing_and_the_right_one_is_named(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell
) -> None:
    simulator = simulate(exams=150, faults=["ok", "reset-after"])
    run(simulator, OUTPUT_DIR=str(volume))
    fill(database, [simulator], "Asia/Kolkata")
    before = sorted(volume.iterdir())
    shell(QUERY.format(volume=volume, zone="America/Los_Angeles"))
    result = shell(RECOVER.format(volume=volume))
    assert (result.code, sorted(volume.iterdir())) == (76, before)
    assert "--database-zone=+05:30" in result.message
    shell(QUERY.format(volume=volume, zone="+05:30"))
    recovered(shell(RECOVER.format(volume=volume)), volume)
    assert ids_in(volume) == sorted(expired(simulator))


def test_another_database_changes_nothing(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell
) -> None:
    simulator = simulate(exams=150, faults=["ok", "reset-after"])
    run(simulator, OUTPUT_DIR=str(volume))
    fill(database, [simulate(exams=150, seed=2)])
    shell(QUERY.format(volume=volume, zone="UTC"))
    result = shell(RECOVER.format(volume=volume))
    assert (result.code, len(ids_in(volume))) == (76, 100)
    assert "another Proctor" in result.message


@pytest.mark.parametrize(
    ("client", "change"),
    [
        ("mysql --batch exam", "cat"),
        ("mysql -N exam", "sed 's/$/\\r/'"),
        ("mysql --batch exam", 'sed \'s/\\t/","/g; s/^/"/; s/$/"/\''),
        ("mysql -N exam", "tr '\\t' ','"),
        ("mysql -N exam", "tr '\\t' ';'"),
        ("mysql -N exam", "iconv -t UTF-16"),
    ],
)
def test_whatever_client_ran_the_query(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell, client: str, change: str
) -> None:
    simulator = simulate(exams=150, faults=["ok", "reset-after"])
    run(simulator, OUTPUT_DIR=str(volume))
    fill(database, [simulator])
    shell(QUERY.format(volume=volume, zone="UTC"))
    shell(f"{client} < query.sql | {change} > found.txt")
    recovered(shell(f"python -m app recover {volume} --found found.txt"), volume)
    assert ids_in(volume) == sorted(expired(simulator))


@pytest.mark.parametrize(
    "command",
    [
        "mysql -N exam < missing.sql",
        "mysql -N exam < query.sql | head -n 5",
        "mysql -N exam < query.sql | grep -v asked",
        "mysql -N nowhere < query.sql 2>&1",
        "mysql -t exam < query.sql",
        "mysql -N exam < query.sql | cut -f 1-4",
        "mysql -N exam < query.sql | sed 's/-4000-/-/'",
        "mysql -N exam < query.sql | sort -r",
    ],
)
def test_a_list_that_is_not_the_complete_result_changes_nothing(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell, command: str
) -> None:
    simulator = simulate(exams=150, faults=["ok", "reset-after"])
    run(simulator, OUTPUT_DIR=str(volume))
    fill(database, [simulator])
    shell(QUERY.format(volume=volume, zone="UTC"))
    before = sorted(volume.iterdir())
    result = shell(f"({command}) 2>/dev/null | python -m app recover {volume} --found -")
    assert (result.code, sorted(volume.iterdir())) == (76, before)
    assert "Nothing was written" in result.message
    recovered(shell(RECOVER.format(volume=volume)), volume)
    assert ids_in(volume) == sorted(expired(simulator))


def test_a_query_that_was_run_before_the_end_of_a_window_is_to_be_run_again(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell
) -> None:
    simulator = simulate(exams=150, faults=["ok", "reset-after"])
    run(simulator, OUTPUT_DIR=str(volume), READ_TIMEOUT="600")
    fill(database, [simulator])
    shell(QUERY.format(volume=volume, zone="UTC"))
    result = shell(RECOVER.format(volume=volume), ahead=0)
    assert (result.code, len(ids_in(volume))) == (75, 100)
    (window,) = json.loads(next(volume.glob("*.json")).read_bytes())["lost"]
    assert window["end"] in result.message


def test_a_window_that_the_query_did_not_ask_for_stays_unresolved(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell
) -> None:
    first = simulate(exams=150, faults=["ok", "reset-after"], seed=1)
    run(first, OUTPUT_DIR=str(volume))
    shell(QUERY.format(volume=volume, zone="UTC"))
    second = simulate(exams=150, faults=["ok", "reset-after"], seed=2)
    run(second, OUTPUT_DIR=str(volume))
    fill(database, [first, second])
    assert shell(RECOVER.format(volume=volume)).code == 65
    assert b"Unresolved" in shell(f"python -m app history {volume}").stdout
    shell(QUERY.format(volume=volume, zone="UTC"))
    recovered_now = shell(RECOVER.format(volume=volume))
    assert recovered_now.code == 0
    assert ids_in(volume) == sorted(expired(first) + expired(second))


def test_a_second_recovery_changes_nothing(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell
) -> None:
    simulator = simulate(exams=150, faults=["ok", "reset-after"])
    run(simulator, OUTPUT_DIR=str(volume))
    fill(database, [simulator])
    shell(QUERY.format(volume=volume, zone="UTC"))
    recovered(shell(RECOVER.format(volume=volume)), volume)
    before = {path: path.read_bytes() for path in volume.iterdir()}
    for command in RECOVER, QUERY, RECOVER:
        result = shell(command.format(volume=volume, zone="UTC"))
        assert (result.code, result.message) == (0, "No window is unresolved: there is nothing to recover.")
    assert {path: path.read_bytes() for path in volume.iterdir()} == before


def test_windows_are_given_by_hand_for_a_run_without_a_directory(
    simulate: Simulate, run: Run, database: Database, shell: Shell
) -> None:
    simulator = simulate(exams=250, faults=["ok", "reset-after"])
    result = run(simulator)
    (lost,) = result.events("response_lost")
    fill(database, [simulator])
    window = f"--window {lost['start']} {lost['end']}"
    assert shell(f"cat > expired.csv && python -m app recover {window} > query.sql", STDIN="").code == 0
    Path(shell("pwd").stdout.decode().strip(), "expired.csv").write_bytes(result.stdout)
    again = shell("mysql -N exam < query.sql | python -m app recover --found - --trust-zone --csv expired.csv")
    assert again.code == 0
    assert sorted(result.exam_ids + again.exam_ids) == sorted(expired(simulator))


@pytest.mark.parametrize(("put", "moment"), [("back", "2026-11-01T09:00:00Z"), ("forward", "2026-03-08T10:00:00Z")])
@pytest.mark.parametrize("minutes", [-61, -30, 0, 30, 61])
def test_a_window_about_a_change_of_the_clocks_is_right(
    volume: Path, database: Database, shell: Shell, put: str, moment: str, minutes: int
) -> None:
    """In the repeated hour of autumn the column does not say which of two times it is: both are found."""
    start = datetime.fromisoformat(moment) + timedelta(minutes=minutes, seconds=-90)
    exam = {"studentId": 1, "assessmentKey": "k", "assessmentId": "a", "clientName": "SBAC"}
    exam |= {"status": "expired", "reason": "Expiring exam via the force submittal process"}
    known, *lost = [
        exam | {"examId": f"00000000-0000-4000-8000-{number:012}", "changedAt": at.isoformat()}
        for number, at in enumerate((start, *(start + timedelta(seconds=seconds) for seconds in range(0, 181, 20))))
    ]
    csv = volume / "expired_exams_SBAC_20260101T000000Z.csv"
    csv.write_text(
        f"assessmentKey,assessmentId,examId,studentId,updatedExamStatus\r\nk,a,{known['examId']},1,expired\r\n"
    )
    window = {"start": start.isoformat(), "end": (start + timedelta(seconds=180)).isoformat(), "reason": put}
    summary: dict[str, object] = {
        "client_name": "SBAC",
        "started": window["start"],
        "ended": window["end"],
        "outcome": "drained",
    }
    summary |= {"exit_code": 65, "message": "", "calls": 1, "lost": [window]}
    counts = {"exams": {"expired": 1, "completed": 0, "unknown": 0}}
    csv.with_suffix(".json").write_text(json.dumps(summary | counts))
    database.fill([known, *lost], ZONES["America/Los_Angeles"], whole_seconds=True)
    ahead = 400 * 86_400  # the windows may lie in the future of whoever runs this
    shell(QUERY.format(volume=volume, zone="America/Los_Angeles"))
    found = recovered(shell(RECOVER.format(volume=volume), ahead=ahead), volume)
    assert sorted(found) == [event["examId"] for event in lost]


KILLER = """
import os, signal, sys
from itertools import count
steps, last = count(1), int(sys.argv[1])
def watched(step):
    def act(*arguments, **options):
        if arguments[0] != 2 and next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments, **options)
    return act
for name in "open", "write", "fsync", "rename", "replace", "unlink":
    setattr(os, name, watched(getattr(os, name)))
from app.cli import main
from app.signals import Stop
sys.exit(main(sys.argv[2:], Stop()))
"""


def test_a_recovery_that_is_killed_at_any_step_leaves_either_state(
    simulate: Simulate, run: Run, jobs: Jobs, volume: Path, database: Database, shell: Shell
) -> None:
    simulator = simulate(exams=250, faults=["ok", "hold"])
    kill_in_a_call(simulator, jobs, volume)
    run(simulator, OUTPUT_DIR=str(volume), READ_TIMEOUT="3", CONNECT_TIMEOUT="1")
    fill(database, [simulator])
    shell(QUERY.format(volume=volume, zone="UTC"))
    shell("mysql -N exam < query.sql > found.tsv")
    before = {path.name: path.read_bytes() for path in volume.iterdir()}
    (volume.parent / "shell" / "killer.py").write_text(KILLER)
    for step in range(1, 100):
        for path in volume.iterdir():
            path.unlink()
        for name, content in before.items():
            (volume / name).write_bytes(content)
        ended = shell(f"python killer.py {step} recover {volume} --found found.tsv").code
        if ended == 0:
            break
        assert ended in (137, -9)
        history = shell(f"python -m app history {volume}")
        assert (history.code == 0) == (b"Unresolved" not in history.stdout)
        assert shell(f"python -m app recover {volume} --found found.tsv").code == 0
        assert ids_in(volume) == sorted(expired(simulator))
        lost = [window for path in volume.glob("*.json") for window in json.loads(path.read_bytes())["lost"]]
        (csv,) = volume.glob("*_recovered.csv")
        assert {(window["resolved"]["csv"], window["resolved"]["exams"]) for window in lost} == {(csv.name, 100)}
        assert shell(f"python -m app history {volume}").code == 0
        left = {path.name for path in volume.iterdir()} - {csv.name}
        assert left == set(before)
    assert 10 < step < 99


def test_files_are_for_user_and_group_alone(
    simulate: Simulate, run: Run, volume: Path, database: Database, shell: Shell
) -> None:
    simulator = simulate(exams=150, faults=["ok", "reset-after"])
    run(simulator, OUTPUT_DIR=str(volume))
    fill(database, [simulator])
    if os.geteuid() == 0:
        (volume / ".lock").unlink()
        subprocess.run(["chown", "-R", "10001:10002", str(volume)], check=True)
    shell(QUERY.format(volume=volume, zone="UTC"))
    recovered(shell(RECOVER.format(volume=volume)), volume)
    states = [path.stat() for path in volume.iterdir()]
    assert not any(state.st_mode & 0o7 for state in states)
    assert len({(state.st_uid, state.st_gid) for state in states}) == 1
