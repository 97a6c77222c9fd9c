"""README, "Settings" and "Output and exit codes", and deploy/messages.md: samples and tables are those of the code."""

import ast
import json
import re
from collections.abc import Iterator
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM

from app.exceptions import ExitCode, Outcome
from tests.documents import commands
from tests.documents.text import table
from tests.support import ROOT, Run, Simulate


def test_the_sample_of_the_csv_is_what_a_run_prints(simulate: Simulate, run: Run) -> None:
    (sample,) = commands("README.md", "Output and exit codes")
    header, row = sample.encode().splitlines()
    printed = run(simulate(exams=250, seed=1)).stdout.split(b"\r\n")
    assert printed[0] == header
    assert printed.count(row) == 1


def test_each_exit_code_of_a_run_is_in_one_row() -> None:
    documented = [int(code) for row in table("README.md", "code") for code in row[0].split(", ")]
    of_a_run = {*ExitCode} - {ExitCode.PROBLEMS_FOUND}
    assert sorted(documented) == sorted(of_a_run | {128 + number for number in (SIGHUP, SIGINT, SIGTERM, SIGKILL)})


def text_of(heading: str) -> str:
    """The part of deploy/messages.md under a heading."""
    return (ROOT / "deploy" / "messages.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2]


def test_a_summary_is_as_documented(simulate: Simulate, run: Run) -> None:
    summary = run(simulate(exams=250, faults=["ok", "reset-after"])).summary
    (sample,) = commands("deploy/messages.md", "For machines")
    sentence = text_of("For machines").partition(" has ")[2].partition(":\n")[0]
    documented = set(re.findall(r"`(\w+)`", sentence))
    assert documented == {*summary, *Outcome, *summary["exams"]}
    (window,) = summary["lost"]
    assert window.keys() == json.loads(sample).keys()
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for lost in window, json.loads(sample):
        assert all(re.fullmatch(form, lost[name]) for name in ("start", "end"))
    assert window["reason"] == json.loads(sample)["reason"]


def logged() -> Iterator[str]:
    """The names of the events that the code logs."""
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log_event":
                name = node.args[1]
                assert isinstance(name, ast.Constant)
                yield str(name.value)


def test_each_event_is_documented() -> None:
    documented = set(re.findall(r"`(\w+)`", " ".join(row[1] for row in table("deploy/messages.md", ""))))
    assert documented - {"log"} == set(logged())  # `log` is what has no name of its own: see app/logs.py


OF_OTHERS = {"Name or service not known", "Connection refused"}
"""Texts of the operating system."""
COMPOSED = {"Proctor sent a record": ("Proctor sent ", "a record ")}
"""Texts that the code puts together."""


def test_each_documented_message_is_one_that_the_code_has() -> None:
    nodes = [
        node for path in (ROOT / "app").rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    messages = re.findall(r"`([^`]+)`", " ".join(row[0] for row in table("deploy/messages.md", "the log says")))
    fixed_parts = {part.strip() for message in messages for part in re.split(r"…|: |\b\d{3}\b", message)} - {""}
    for part in fixed_parts - OF_OTHERS:
        for wording in COMPOSED.get(part, (part,)):
            assert any(wording in text for text in texts), part
