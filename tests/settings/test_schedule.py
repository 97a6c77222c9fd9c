"""A SCHEDULE is accepted if ofelia 0.3.22 runs the job when it says, and refused otherwise."""

import pytest

from app.settings import schedule_problem


@pytest.mark.parametrize(
    "schedule",
    [
        "0 0 2 * * *",
        "0 0 2 * * ?",
        "59 59 23 31 12 6",
        "00 05 02 * * *",
        "*/10 * * * * *",
        "0 0/15 * * * *",
        "0 10-50/20 * * * *",
        "0 0 2,14 * * *",
        "0 0 2 * * MON-FRI",
        "0 0 2 * jan,Jul sun",
        "0 0 2 1,15 * mon",
        "0 30 1-3,5 ? * 1-5",
        "0 0 2 29 feb *",
        "0 0 2 31 1,2 *",
        "0 0 2 31 2 mon",
        "  0 0  2 * * * ",
        "0\t0\t2\t*\t*\t*",
    ],
)
def test_six_fields_are_accepted(schedule: str) -> None:
    assert schedule_problem(schedule) is None


@pytest.mark.parametrize(
    "schedule",
    [
        *"@yearly @annually @monthly @weekly @daily @midnight @hourly".split(),
        *(f"@every {duration}" for duration in "1h30m 24h 1.5h 90s 1m500ms +1h 1000000us".split()),
    ],
)
def test_descriptors_are_accepted(schedule: str) -> None:
    assert schedule_problem(schedule) is None


@pytest.mark.parametrize(
    ("schedule", "meant"),
    [
        ("0 2 * * *", "0 0 2 * * *"),
        ("30 1 * * mon-fri", "0 30 1 * * mon-fri"),
        ("*/5 * * * *", "0 */5 * * * *"),
        (" 0  2 * * * ", "0 0 2 * * *"),
    ],
)
def test_five_fields_are_refused_with_the_six_that_are_meant(schedule: str, meant: str) -> None:
    problem = schedule_problem(schedule)
    assert problem is not None
    assert problem.startswith(f"SCHEDULE={schedule!r} has five fields, as in crontab")
    assert problem.endswith(f"; write {meant}.")


def test_no_six_fields_are_suggested_that_ofelia_would_refuse() -> None:
    assert str(schedule_problem("0 2 * * 7")).endswith("; put one for the seconds first.")


@pytest.mark.parametrize(
    ("schedule", "hint"),
    [
        ("2", "but 1"),
        ("2 * * *", "but 4"),
        ("0 0 2 * * * 2026", "but 7"),
        ("60 0 2 * * *", "'60' in the field for the second"),
        ("0 60 2 * * *", "'60' in the field for the minute"),
        ("0 0 24 * * *", "'24' in the field for the hour"),
        ("0 0 2 0 * *", "'0' in the field for the day of the month"),
        ("0 0 2 32 * *", "'32' in the field for the day of the month"),
        ("0 0 2 * 13 *", "'13' in the field for the month is not 1 to 12 or jan to dec"),
        ("0 0 2 * * 7", "'7' in the field for the day of the week is not 0 to 6 or sun to sat"),
        ("0 0 2 * * monday", "'monday'"),
        ("0 0 jan * * *", "'jan' in the field for the hour"),
        ("0 0 2-1 * * *", "ends before it begins"),
        ("0 0 1-2-3 * * *", "'1-2-3'"),
        ("0 0 */0 * * *", "step"),
        ("0 0 */x * * *", "step"),
        ("0 0 1/2/3 * * *", "step"),
        ("0 0 2, * * *", "''"),
        ("0 0 -2 * * *", "'-2'"),
        ("0 0 +2 * * *", "'+2'"),
        ("0 0 ٢ * * *", "'٢'"),
        ("0 0 2 L * *", "'L'"),
        ("0 0 2 31 feb *", "would never run"),
        ("0 0 2 31 4,6,9,11 ?", "would never run"),
        ("TZ=UTC 0 0 2 * * *", "but 7"),
        ("@reboot", "not known to ofelia"),
        ("@Daily", "not known to ofelia"),
        ("@daily ", "not known to ofelia"),
        ("@every", "not known to ofelia"),
        ("@every 1d", "no duration"),
        ("@every 1h 30m", "no duration"),
        ("@every 90", "no duration"),
        ("@every .h", "no duration"),
        ("@every -1h", "shorter than a second"),
        ("@every 0", "shorter than a second"),
        ("@every 10ms", "shorter than a second"),
        ("@every 9999999h", "far too long"),
        ("", "but 0"),
    ],
)
def test_what_ofelia_refuses_or_would_run_at_another_time_is_a_problem(schedule: str, hint: str) -> None:
    problem = schedule_problem(schedule)
    assert problem is not None
    assert problem.startswith(f"SCHEDULE={schedule!r} ")
    assert hint in problem
