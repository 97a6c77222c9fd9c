"""Proctor's response body as a batch of exams: a malformed record is a row like any other, and an anomaly."""

import json
from functools import partial
from operator import itemgetter
from typing import Any

from app.model import Batch, Exam


class _Number(str):
    """A JSON number as it was sent: no digit of an id is lost."""

    __slots__ = ()


_LIST = "expiredExams"
_FLAG = "additionalExamsToExpire"
_VALUES = itemgetter(*Exam._fields)
_KINDS: list[set[type]] = [{str}, {str}, {str}, {_Number}, {str}]  # the types of an exam's fields
_MOST_ANOMALIES = 100
_decoder = partial(json.JSONDecoder, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
_DECODER = _decoder()


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
            content = _decoder(object_pairs_hook=_joined).decode(text)
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
    return Batch(_exams(records, anomalies), more, frozenset(anomalies))


def _joined(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which a list of exams that stands there twice is one list; of other keys the last one counts."""
    content = dict(pairs)
    lists = [value for key, value in pairs if key == _LIST and isinstance(value, list)]
    if lists:
        content[_LIST] = [record for records in lists for record in records]
    return content


def _exams(records: list[Any], anomalies: set[str]) -> list[Exam]:
    """The records as rows, each written as well as it can be, whatever it is."""
    try:
        exams = [Exam._make(_VALUES(record)) for record in records]
    except (TypeError, KeyError, IndexError):  # no object, or one that lacks a field
        exams = []
    kinds = [set(map(type, column)) for column in zip(*exams, strict=True)]
    if kinds == _KINDS and set(map(len, records)) == {len(_KINDS)}:
        return exams
    return [_exam(record, anomalies) for record in records]


def _exam(record: Any, anomalies: set[str]) -> Exam:
    """A record as a row, with what is unexpected about it."""
    if not isinstance(record, dict):
        _note(anomalies, "a record that is not an object (written as its examId)")
        return Exam("", "", _cell(record), "", "")
    values = [record.get(name) for name in Exam._fields]
    for name, value, kinds in zip(Exam._fields, values, _KINDS, strict=True):
        if value is None:
            _note(anomalies, f"a record without {name}")
        elif type(value) not in kinds:
            _note(anomalies, f"a record whose {name} is not {'a number' if _Number in kinds else 'text'}")
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
