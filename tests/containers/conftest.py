"""An embedded Proctor that containers reach, and the compose stack that runs against it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.simulator import Scenario, Simulator
from tests.containers.engine import Engine
from tests.containers.stack import Stack


@pytest.fixture
def proctor(engine: Engine) -> Iterator[Simulator]:
    with Simulator(Scenario(), host=engine.host) as simulator:
        yield simulator
        simulator.release.set()


@pytest.fixture
def stack(engine: Engine, proctor: Simulator, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(engine, tmp_path, proctor)
    yield stack
    proctor.release.set()
    stack.close()
