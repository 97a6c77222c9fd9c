"""The query that finds the exams of lost responses in the database of the exam service.

Its result has the CSV's columns: the exams first, then rows of its own, by which the reader of the result can tell
that it is complete, for which windows, and that the time zone was right.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

from app.model import Period, timestamp
from app.recovery.zones import Zone, readings

KNOWN_EXAM = "known exam"
ASKED_WINDOW = "asked window"

_REASONS = "'Completing exam via the force submit process', 'Expiring exam via the force submittal process'"

_QUERY = """\
-- The exams that Proctor changed while responses were lost, for MySQL and MariaDB. The last rows of the result are
-- for the program that reads it: they show that it is complete, and whether the time zone is right.
--
-- {advice}
SELECT DISTINCT e.assessment_key, e.assessment_id, e.id, e.student_id, v.status
FROM exam.exam_event v
JOIN exam.exam e ON e.id = v.exam_id
WHERE v.status_change_reason IN ({reasons})
  AND (v.status_changed_at BETWEEN {ranges})
{known}{asked};
"""

_KNOWN = """\
UNION ALL
SELECT '{kind}', '{start}', '{id}', '{end}',
       (SELECT GROUP_CONCAT(status_changed_at) FROM exam.exam_event
        WHERE exam_id = '{id}' AND status_change_reason IN ({reasons}))
"""

_ASKED = """\
UNION ALL
SELECT '{kind}', '{start}', '{end}', '{zone}', UTC_TIMESTAMP()
"""


class KnownExam(NamedTuple):
    """An exam that Proctor reported, and so certainly changed, within a period. `id` is a UUID."""

    id: str
    period: Period


def query(windows: Collection[Period], known: Iterable[KnownExam], zone: Zone) -> str:
    """One statement for all windows. `zone` is that of the exam service's JVM, in which the database has its times.

    It does not restrict the client name: a call takes the exams of every client.
    """
    latest = max(window.end for window in windows)
    return _QUERY.format(
        advice=f"Do not run this before {timestamp(latest)}: until then Proctor may still be working.",
        reasons=_REASONS,
        ranges="\n       OR v.status_changed_at BETWEEN ".join(
            f"'{start}' AND '{end}'" for start, end in _joined(readings(*window, zone) for window in windows)
        ),
        known="".join(
            _KNOWN.format(kind=KNOWN_EXAM, id=exam.id, reasons=_REASONS, **exam.period.bounds()) for exam in known
        ),
        asked="".join(
            _ASKED.format(kind=ASKED_WINDOW, zone=zone.name, **window.bounds()) for window in windows
        ).rstrip(),
    )


def _joined(ranges: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The ranges in order, those that overlap as one."""
    joined: list[tuple[datetime, datetime]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined
