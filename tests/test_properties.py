"""What holds for every exam text, every response and every scenario, however calls fail."""

import csv
import gc
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.commands.run import run
from app.model import Batch, Exam
from app.output.csv_report import csv_bytes
from app.output.volume import Volume, VolumeReport
from app.proctor.batch import parse_batch
from app.signals import Stop
from app.simulator import RANDOM_FAULTS, Scenario, Simulator
from tests.promise import holds
from tests.support import HEADER, configured, rows_of

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # a process of its own would end after a run

# The faults with which a response still carries its exams.
CARRIERS = {"ok", "close", "early-hints", "no-flag"}
STEM = "expired_exams_SBAC_PT_20260401T020000Z"

moderately = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(st.characters(codec="utf-8")) | st.text('",\r\n =+x\0\u00e9')
exams = st.builds(Exam, texts, texts, texts, texts, texts)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)
records = st.fixed_dictionaries({}, optional=dict.fromkeys([*HEADER, "segments"], anything)) | anything


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Has what a run leaves open closed before the next test is watched for it."""
    yield
    gc.collect()


@contextmanager
def report_on(directory: Path) -> Iterator[VolumeReport]:
    """A report of a run on a volume, from its header to its final name."""
    with closing(Volume(directory, 300)) as volume:
        volume.clean_up()
        report = volume.report("SBAC_PT", Stop())
        report.open()
        yield report
        report.close()
        report.save({})
        report.publish()


def rows_in(path: Path) -> list[Exam]:
    return [Exam(**row) for row in rows_of(path.read_bytes())]


@moderately
@given(batches=st.lists(st.lists(exams, max_size=5), max_size=5))
def test_every_exam_text_is_read_back_from_the_csv(batches: list[list[Exam]]) -> None:
    with TemporaryDirectory() as name:
        with report_on(Path(name)) as report:
            for batch in batches:
                report.write(batch)
        (path,) = Path(name).glob("*.csv")
        assert rows_in(path) == [exam for batch in batches for exam in batch]


@moderately
@given(rows=st.lists(exams, max_size=5))
@example(rows=[Exam("", ",", "", "", "")])
@example(rows=[Exam("", '"', "", "", "")])
@example(rows=[Exam("", "\r", "", "", "")])
@example(rows=[Exam("", "\n", "", "", "")])
def test_cells_are_quoted_exactly_where_they_must_be(rows: list[Exam]) -> None:
    expected = io.StringIO(newline="")
    csv.writer(expected).writerows(rows)
    assert csv_bytes(rows) == expected.getvalue().encode()


@moderately
@given(written=st.lists(exams, min_size=1, max_size=5), data=st.data())
def test_of_the_csv_of_a_killed_run_every_complete_row_is_kept_and_nothing_else(
    written: list[Exam], data: st.DataObject
) -> None:
    with TemporaryDirectory() as name, TemporaryDirectory() as other:
        ends = []
        with report_on(Path(name)) as report:
            (partial,) = Path(name).glob("*.partial")
            for exam in written:
                report.write([exam])
                ends.append(partial.stat().st_size)
            cut = data.draw(st.integers(0, ends[-1]))
            (Path(other) / f"{STEM}.csv.partial").write_bytes(partial.read_bytes()[:cut])
        with report_on(Path(other)):
            pass
        assert rows_in(Path(other) / f"{STEM}.csv") == [
            exam for exam, end in zip(written, ends, strict=True) if end <= cut
        ]


@moderately
@given(records=st.lists(records, max_size=8), more=st.booleans(), rest=st.dictionaries(st.text(), anything, max_size=2))
def test_every_record_of_a_response_is_a_row(records: list[Any], more: bool, rest: dict[str, Any]) -> None:
    response = {**rest, "expiredExams": records, "additionalExamsToExpire": more}
    batch = parse_batch(json.dumps(response).encode())
    assert batch
    assert (len(batch.exams), batch.more) == (len(records), more)
    for record, exam in zip(records, batch.exams, strict=True):
        if isinstance(record, dict):
            texts = {name: value for name, value in record.items() if isinstance(value, str) and name in HEADER}
            assert texts.items() <= exam._asdict().items()


@moderately
@given(body=st.binary() | anything.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"expiredExams": [' + b"1" * 10_000 + b"]}")
def test_any_bytes_are_a_batch_or_none(body: bytes) -> None:
    assert isinstance(parse_batch(body), Batch | None)


def test_a_record_however_deep_does_not_cost_the_others_their_rows() -> None:
    for depth in range(900, 1000):  # about as deep as the interpreter goes
        nested = "[" * depth + "]" * depth
        batch = parse_batch(
            f'{{"expiredExams": [{{"examId": "a"}}, {nested}], "additionalExamsToExpire": false}}'.encode()
        )
        assert batch is None or len(batch.exams) == 2


@pytest.mark.parametrize(
    "where", ["app.proctor.endpoint.parse_batch", "app.expire._RecentExams.rows_of", "app.output.csv_report.csv_bytes"]
)
def test_a_bug_after_a_response_reports_that_response_as_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    def fail(*arguments: Any) -> bytes:
        if arguments == ([Exam._fields],):
            return csv_bytes(*arguments)  # the header
        raise MemoryError

    with Simulator(Scenario()) as simulator:
        monkeypatch.setattr(where, fail)
        assert run(configured(tmp_path, **simulator.settings()), Stop()) == 70
    (path,) = tmp_path.glob("*.json")
    (window,) = json.loads(path.read_bytes())["lost"]
    (call,) = simulator.record
    assert holds(window, call["changed"])


scenarios = st.fixed_dictionaries(
    {
        "exams": st.integers(0, 450),
        "limit": st.integers(1, 100),
        "not_due": st.integers(0, 120),
        "token_calls": st.integers(0, 5),
        "faults": st.lists(st.sampled_from(["ok", *RANDOM_FAULTS]), max_size=12),
        "fault_rate": st.sampled_from([0.0, 0.2]),
        "seed": st.integers(0, 99),
    }
)


@moderately
@given(scenario=scenarios)
def test_every_expired_exam_is_in_one_row_or_its_loss_is_reported(scenario: dict[str, Any]) -> None:
    with TemporaryDirectory() as name, Simulator(Scenario(**deepcopy(scenario))) as simulator:
        code = run(configured(Path(name), **simulator.settings(), MAX_LOST_RESPONSES="1000"), Stop())
        (csv,) = Path(name).glob("*.csv")
        summary = json.loads(csv.with_suffix(".json").read_bytes())
        rows = Counter(exam.examId for exam in rows_in(csv))

    received = [exam for call in simulator.record if call["fault"] in CARRIERS for exam in call["expired"]]
    assert set(rows.values()) <= {1}
    assert rows.keys() >= set(received)
    windows = [[datetime.fromisoformat(window[end]) for end in ("start", "end")] for window in summary["lost"]]
    for call in simulator.record:
        if set(call["expired"]) - rows.keys():
            changed = datetime.fromisoformat(call["changed"])
            assert any(start <= changed <= end for start, end in windows)
    assert summary["exit_code"] == code
    assert sum(summary["exams"].values()) == rows.total()
    assert code == 0 or windows or summary["outcome"] == "failed"
