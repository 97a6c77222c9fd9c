"""What killed runs leave on a volume is cleaned up by the next run: complete rows only, and every loss reported."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.output.summary import Summary
from tests.output.volumes import (
    PLAIN,
    QUOTED,
    clean_up,
    instant,
    kill_after,
    kill_in_a_call,
    leave,
    monitoring,
    nothing_is_expired,
    only,
)
from tests.promise import holds
from tests.support import HEADER_LINE, PATIENCE, QUICK, Jobs, Run, Simulate, expired, files_in, ids, ids_in, rows_of

SHORT = {"READ_TIMEOUT": "1", "CONNECT_TIMEOUT": "1"}  # so long does a run wait for the call of a killed one
FAR_OFF = b'{"lost": [{"start": "0001-01-01T00:00:00+10:00", "end": "2026-04-01T02:00:00Z", "reason": "?"}]}'


def test_a_run_that_was_killed_in_a_call_is_cleaned_up_by_the_next_one(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    kill_in_a_call(simulator, jobs, volume)
    partial = only(volume, ".partial")
    result = run(simulator, OUTPUT_DIR=str(volume))

    assert result.code == 65
    csv = partial.with_suffix("")
    held = next(call for call in simulator.record if call["fault"] == "hold")
    others = [exam for call in simulator.record if call is not held for exam in call["expired"]]
    assert sorted(ids(csv.read_bytes())) == sorted(simulator.record[0]["expired"])
    assert ids_in(volume) == sorted(others)
    (event,) = result.events("killed_run")
    summary = json.loads(csv.with_suffix(".json").read_bytes())
    assert summary["outcome"] == "killed"
    assert (summary["client_name"], summary["message"]) == ("SBAC_PT", event["message"])
    assert (summary["calls"], summary["retries"], summary["version"]) == (None, None, None)
    assert summary["exams"]["expired"] + summary["exams"]["completed"] == 100
    (window,) = summary["lost"]
    assert instant(simulator.record[0]["changed"]) <= instant(window["start"]) <= instant(held["start"])
    assert holds(window, held["changed"])
    assert not list(volume.glob("*.partial"))
    assert event["csv"] == csv.name


def test_the_window_of_a_killed_run_holds_the_responses_that_it_had_lost(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(exams=450, faults=["ok", "cut-body", "ok", "hold"])
    kill_in_a_call(simulator, jobs, volume, TZ="Asia/Kolkata")
    result = run(simulator, OUTPUT_DIR=str(volume))
    first, lost, _, held, *_ = simulator.record
    (window,) = result.summary["lost"]
    assert instant(first["changed"]) <= instant(window["start"]) <= instant(lost["start"])
    assert holds(window, held["changed"])


def test_files_that_no_run_has_left_stay_as_they_are(simulate: Simulate, jobs: Jobs, volume: Path) -> None:
    others = {f"expired_exams_{name}.csv.partial": b"?" for name in ("", "0", "SBAC_PT_20260231T000000Z", "zzz")}
    for name, text in others.items():
        (volume / name).write_bytes(text)
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    assert clean_up(simulate(), jobs, volume).code == 65
    assert others.items() <= files_in(volume).items()
    assert (volume / f"{stem}.csv").exists()


def test_what_killed_runs_lost_leaves_the_next_one_its_own_max_lost_responses(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    for number in range(3):
        leave(volume, number, HEADER_LINE)
    result = run(simulate(faults=["500-after"]), OUTPUT_DIR=str(volume), MAX_LOST_RESPONSES="1", **SHORT)
    assert (result.code, result.summary["outcome"]) == (65, "drained")
    assert len(result.summary["lost"]) == 4


@pytest.mark.parametrize(
    ("complete", "last"),
    [
        pytest.param(b"", HEADER_LINE, id="header"),
        pytest.param(HEADER_LINE, PLAIN, id="first"),
        pytest.param(HEADER_LINE, QUOTED, id="first-quoted"),
        pytest.param(HEADER_LINE + PLAIN + QUOTED, PLAIN, id="plain"),
        pytest.param(HEADER_LINE + QUOTED + PLAIN, QUOTED, id="quoted"),
    ],
)
def test_of_a_row_that_was_truncated_at_any_byte_nothing_stays(
    simulate: Simulate, jobs: Jobs, volume: Path, complete: bytes, last: bytes
) -> None:
    stems = [leave(volume, end, complete + last[:end]) for end in range(len(last))]
    result = clean_up(simulate(), jobs, volume)
    assert result.code == 65
    assert [event["message"] for event in result.events("truncated_row")] == [
        f"TRUNCATED ROW {last[:end]!r} removed from the end of {stem}.csv.partial."
        for end, stem in enumerate(stems[1:], 1)
    ]
    for stem in stems:
        assert (volume / f"{stem}.csv").read_bytes() == (complete or HEADER_LINE)
        summary = json.loads((volume / f"{stem}.json").read_bytes())
        assert summary["outcome"] == "killed"
        assert sum(summary["exams"].values()) == len(rows_of(complete or HEADER_LINE))
        assert summary["lost"][0]["start"].startswith("2026-04-01T")
    assert not list(volume.glob("*.partial"))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(QUOTED, id="quoted"),
        pytest.param(PLAIN.replace(b"expired", b"\xff"), id="not-utf8"),
        pytest.param(b"x" * 200_000 + PLAIN, id="long"),
        pytest.param(b'"' + b'""\r\n' * 50_000 + b'",,,,\r\n', id="many-lines"),
    ],
)
def test_a_complete_row_of_a_killed_run_stays_whatever_is_in_it(
    simulate: Simulate, jobs: Jobs, volume: Path, row: bytes
) -> None:
    stem = leave(volume, 0, HEADER_LINE + row)
    result = clean_up(simulate(), jobs, volume)
    assert (result.code, result.events("truncated_row")) == (65, [])
    assert (volume / f"{stem}.csv").read_bytes() == HEADER_LINE + row


@pytest.mark.parametrize(("faults", "code"), [([], 0), (["cut-body"], 65)])
def test_a_run_that_was_killed_in_the_ping_of_its_end_gets_its_final_name_and_a_loss_is_reported_again(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path, faults: list[str], code: int
) -> None:
    simulator = simulate(faults=faults)
    settings = {**simulator.settings(), **QUICK, "OUTPUT_DIR": str(volume), "READ_TIMEOUT": "2", "CONNECT_TIMEOUT": "1"}
    with monitoring() as monitor:
        monitor.holds_end = True
        killed = jobs.start({**settings, "HEARTBEAT_URL": monitor.url})
        assert monitor.held.wait(PATIENCE)
        killed.kill()
        jobs.finish(killed)
    assert monitor.received == ["start", str(code)]
    partial, summary = only(volume, ".partial"), json.loads(only(volume, ".json").read_bytes())
    rows = partial.read_bytes()
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert result.code == code
    assert result.summary["lost"] == summary["lost"]
    assert len(summary["lost"]) == len(faults)
    assert result.events("killed_run") == []
    assert partial.with_suffix("").read_bytes() == rows
    kept = json.loads(partial.with_suffix("").with_suffix(".json").read_bytes())
    assert kept == {**summary, **({"reported": False} if faults else {})}
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0


def test_a_window_that_was_resolved_before_the_next_run_is_not_reported_again(
    simulate: Simulate, run: Run, volume: Path
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    window = {"start": "2026-04-01T02:00:00.000Z", "end": "2026-04-01T02:05:00.000Z", "reason": "?"}
    summary = json.dumps({"lost": [window | {"resolved": {"how": "recovered"}}]})
    (volume / f"{stem}.json").write_text(summary)
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert (result.code, result.summary["lost"]) == (0, [])
    assert (volume / f"{stem}.json").read_text() == summary


@pytest.mark.parametrize("summary", [b"", b"[]", b"{}", b'{"lost": [{"start": "soon"}]}', FAR_OFF, b"[" * 100_000])
def test_a_summary_that_cannot_be_read_is_written_anew(
    simulate: Simulate, jobs: Jobs, volume: Path, summary: bytes
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    (volume / f"{stem}.json").write_bytes(summary)
    result = clean_up(simulate(), jobs, volume)
    assert result.code == 65
    assert json.loads((volume / f"{stem}.json").read_bytes())["lost"] == result.summary["lost"] != []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_on_the_volume_is_left_alone(simulate: Simulate, run: Run, volume: Path) -> None:
    os.mkfifo(volume / "expired_exams_SBAC_PT_20260401T020000Z.csv.partial")
    assert run(simulate(exams=0), OUTPUT_DIR=str(volume)).code == 0


def test_the_draft_of_a_summary_is_replaced(simulate: Simulate, jobs: Jobs, volume: Path) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    for name in (stem, stem.replace("2026", "2025")):
        (volume / f"{name}.json.tmp").write_bytes(b'{"vers')
    assert clean_up(simulate(), jobs, volume).code == 65
    assert json.loads((volume / f"{stem}.json").read_bytes())["outcome"] == "killed"
    assert not list(volume.glob("*.tmp"))


def test_a_loss_found_by_a_run_that_then_cannot_begin_stays_unresolved_in_the_history(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    first = leave(volume, 0, HEADER_LINE + PLAIN)
    second = leave(volume, 1, HEADER_LINE + PLAIN)
    (volume / f"{second}.csv").write_bytes(HEADER_LINE)
    simulator = simulate()
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert nothing_is_expired(simulator, result)
    (window,) = json.loads((volume / f"{first}.json").read_bytes())["lost"]
    (event,) = result.events("killed_run")
    assert (event["start"], event["end"]) == (window["start"], window["end"])
    (volume / f"{second}.csv.partial").unlink()
    history = jobs.run({}, "history", str(volume))
    assert history.code == 1
    assert f"from {window['start']} to {window['end']} may be in no CSV" in history.stdout.decode()
    following = run(simulator, OUTPUT_DIR=str(volume))
    assert (following.code, following.summary["lost"]) == (65, [window])
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0


def test_the_loss_of_a_killed_run_is_reported_even_if_the_next_run_is_killed_while_it_waits(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    simulator = simulate(faults=["ok", "hold"])
    timeouts = {"READ_TIMEOUT": "3", "CONNECT_TIMEOUT": "1"}
    kill_in_a_call(simulator, jobs, volume, **timeouts)
    kill_after("earlier_call", simulator, jobs, volume, **timeouts)
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert result.code == 65
    (window,) = result.summary["lost"]
    assert holds(window, next(call for call in simulator.record if call["fault"] == "hold")["changed"])
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0


def test_a_loss_whose_exit_code_was_not_received_is_reported_even_if_the_next_run_is_killed(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    stem = ended(volume, 0, 65, WINDOW)
    (volume / f"{stem}.csv.partial").write_bytes(HEADER_LINE)  # it was killed in the ping of its end
    simulator = simulate(token_faults=["503:3600"])
    kill_after("retry", simulator, jobs, volume, MAX_WAIT="3600")
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert (result.code, result.summary["lost"]) == (65, [WINDOW])
    assert WINDOW.items() >= {name: result.events("unresolved")[-1][name] for name in ("start", "end")}.items()


def test_a_run_that_lost_responses_and_could_not_rename_its_csv_counts_as_ended_once_they_are_resolved(
    simulate: Simulate, jobs: Jobs, run: Run, volume: Path
) -> None:
    stem = ended(volume, 0, 65, WINDOW, client="SBAC")
    (volume / f"{stem}.csv.partial").write_bytes(HEADER_LINE)
    assert run(simulate(exams=0), OUTPUT_DIR=str(volume)).code == 65
    assert jobs.run({}, "recover", str(volume), "--acknowledge", "ticket 4711").code == 0
    assert jobs.run({}, "history", str(volume)).code == 0


WINDOW = {"start": "2026-04-01T02:00:00.000Z", "end": "2026-04-01T02:05:00.000Z", "reason": "?"}
RESOLVED: dict[str, Any] = {**WINDOW, "resolved": {"how": "recovered"}}


def ended(volume: Path, number: int, code: int | None, *lost: dict[str, Any], client: str = "SBAC_PT") -> str:
    """Leave the summary of a run with that exit code; return the name without suffix."""
    summary = Summary(client, None).as_object() | {"exit_code": code, "lost": lost, "calls": None}
    stem = f"expired_exams_{client}_20260401T{number:02}0000Z"
    (volume / f"{stem}.json").write_text(json.dumps(summary))
    return stem


@pytest.mark.parametrize("code", [None, 0, 69, 75, 129, 143])
@pytest.mark.parametrize("client", ["SBAC_PT", "SBAC"])
def test_a_window_that_only_a_run_with_a_code_that_hides_it_lists_is_reported_once(
    simulate: Simulate, run: Run, volume: Path, code: int | None, client: str
) -> None:
    ended(volume, 0, code, WINDOW, client=client)
    ended(volume, 1, None, WINDOW)
    ended(volume, 2, 0)
    simulator = simulate(exams=0)
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert (result.code, result.summary["lost"]) == (65, [WINDOW])
    assert run(simulator, OUTPUT_DIR=str(volume)).code == 0


@pytest.mark.parametrize("settled", [*((code, WINDOW) for code in (64, 65, 70, 74, 76, 77, 78)), (None, RESOLVED)])
def test_a_window_that_was_reported_or_resolved_is_not_reported_again(
    simulate: Simulate, run: Run, volume: Path, settled: tuple[int | None, dict[str, Any]]
) -> None:
    ended(volume, 0, None, WINDOW)
    ended(volume, 1, *settled, client="SBAC")
    (volume / "expired_exams_SBAC_PT_20260401T030000Z.json").write_text("not a summary")
    result = run(simulate(exams=0), OUTPUT_DIR=str(volume))
    assert (result.code, result.summary["lost"]) == (0, [])


def test_where_both_names_of_a_csv_are_taken_a_person_has_to_choose(simulate: Simulate, run: Run, volume: Path) -> None:
    simulator = simulate()
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    (volume / f"{stem}.csv").write_bytes(HEADER_LINE)
    before = files_in(volume)
    result = run(simulator, OUTPUT_DIR=str(volume))
    assert nothing_is_expired(simulator, result)
    assert f"{stem}.csv.partial" in result.message
    assert files_in(volume) == before


def test_a_run_whose_record_is_gone_may_have_lost_all_since_it_began(
    simulate: Simulate, jobs: Jobs, volume: Path
) -> None:
    stem = leave(volume, 0, HEADER_LINE + PLAIN)
    began = datetime.strptime(stem[-16:], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    before = datetime.now(UTC)
    simulator = simulate()
    (window,) = clean_up(simulator, jobs, volume).summary["lost"]
    assert instant(window["start"]) == began
    assert instant(window["end"]) > before
    summary = json.loads((volume / f"{stem}.json").read_bytes())
    assert (summary["started"], summary["lost"]) == (window["start"], [window])
    assert expired(simulator) == []  # it still waited for a call that may have begun just before
