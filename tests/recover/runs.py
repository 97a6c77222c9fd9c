"""Runs whose exams are to be recovered, and what the exam service writes about them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from tests.embedded import EmbeddedProctor
from tests.recover.database import Database

ZONES = {
    "UTC": UTC,
    "America/Los_Angeles": ZoneInfo("America/Los_Angeles"),
    "Asia/Kolkata": ZoneInfo("Asia/Kolkata"),
    "-08:00": timezone(timedelta(hours=-8)),
}


def fill(
    database: Database, simulators: Iterable[EmbeddedProctor], zone: str = "UTC", *, whole_seconds: bool = True
) -> None:
    """Have in the database what the exam service writes, the same at other times, and what others do."""
    now = datetime.now(ZONES[zone])
    for simulator in simulators:
        simulator.wait_idle()
        database.fill(simulator.exam_events(), ZONES[zone], whole_seconds=whole_seconds)
    with_reason = {"status": "expired", "reason": "Expiring exam via the force submittal process", "studentId": 1}
    exam = {"assessmentKey": "k", "assessmentId": "a", "clientName": "SBAC"} | with_reason
    for hours in -13, -8, -1, 1, 5, 6, 8:
        at = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
        earlier = [exam | {"examId": f"00000000-0000-4000-8000-0000000000{hours + 50:02}", "changedAt": at}]
        database.fill(earlier, ZONES[zone])
    database.add_others(now)
