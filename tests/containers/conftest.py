"""An embedded Proctor that containers reach, and the compose stack that runs against it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.simulator import Scenario
from tests.containers.engine import Engine
from tests.containers.stack import Stack
from tests.embedded import EmbeddedProctor


@pytest.fixture
def proctor(engine: Engine) -> Iterator[EmbeddedProctor]:
    with EmbeddedProctor(Scenario(), host=engine.host) as simulator:
        yield simulator


@pytest.fixture
def stack(engine: Engine, proctor: EmbeddedProctor, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(engine, tmp_path, proctor)
    yield stack
    proctor.release.set()
    stack.close()
