"""Embedded Proctors whose record can be waited for."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from app.simulator import Scenario
from tests.simulator.client import Watch, Watched


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Start embedded Proctors: `watch(exams=250)`, with the fields of `Scenario`."""
    with ExitStack() as stack:
        yield lambda **scenario: stack.enter_context(Watched(Scenario(**scenario)))
