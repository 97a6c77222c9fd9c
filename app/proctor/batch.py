"""Proctor's response body as a batch of exams: a malformed record is a row like any other, and an anomaly."""

import json
from typing import Any

from app.model import Batch, Exam


class _Number(str):
    """A JSON number as it was sent: no digit of an id gets lost."""

    __slots__ = ()


_LIST = "expiredExams"
_FLAG = "additionalExamsToExpire"
_KINDS = (str, str, str, _Number, str)  # of an exam's fields
_MOST_ANOMALIES = 100
_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_Number)


def parse_batch(body: bytes) -> Batch | None:
    """The batch in a response's body, or None where it is not the JSON that Proctor sends.

    Proctor sends null as the list of exams when a call changed none; a list that is missing means the same.
    """
    anomalies: set[str] = set()
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = body.decode("utf-8-sig", "replace")
        anomalies.add("a response that is not UTF-8")
    try:
        if text.count(f'"{_LIST}"') > 1:
            anomalies.add(f"a response with {_LIST} more than once (all of them are written)")
            content = json.JSONDecoder(
                object_pairs_hook=_joined, parse_int=_Number, parse_float=_Number, parse_constant=_Number
            ).decode(text)
        else:
            content = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    more, records = content.get(_FLAG), content.get(_LIST)
    if not isinstance(records, list):
        return Batch([], more, frozenset()) if records is None and isinstance(more, bool) else None
    if not isinstance(more, bool):
        # Going on is safe: the run ends when a response brings nothing new.
        anomalies.add(f"a response without {_FLAG}")
        more = True
    return Batch([_exam(record, anomalies) for record in records], more, frozenset(anomalies))


def _joined(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which a list of exams that stands there twice is one list; of other keys the last one counts."""
    content = dict(pairs)
    lists = [value for key, value in pairs if key == _LIST and isinstance(value, list)]
    if lists:
        content[_LIST] = [record for records in lists for record in records]
    return content


def _exam(record: Any, anomalies: set[str]) -> Exam:
    """A record as a row: written as well as it can be, whatever it is."""
    if not isinstance(record, dict):
        _note(anomalies, "a record that is no object (written as its examId)")
        return Exam("", "", _cell(record), "", "")
    values = tuple(map(record.get, Exam._fields))
    if tuple(map(type, values)) == _KINDS and len(record) == len(values):
        return Exam._make(values)
    for name, value, kind in zip(Exam._fields, values, _KINDS, strict=True):
        if value is None:
            _note(anomalies, f"a record without {name}")
        elif type(value) is not kind:
            _note(anomalies, f"a record whose {name} is not {'a number' if kind is _Number else 'text'}")
    for name in record.keys() - set(Exam._fields):
        _note(anomalies, f"a record with the unknown field {name[:50]!r} (left out)")
    return Exam(*map(_cell, values))


def _note(anomalies: set[str], what: str) -> None:
    if len(anomalies) < _MOST_ANOMALIES:
        anomalies.add(what)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return "(nested too deeply)"
