"""The job as the tests of this folder run it: whatever they do to it, certain things never stand in its log."""

import re
from collections.abc import Callable

import pytest

from app.simulator import Simulator
from tests.support import QUICK, Jobs, Result

_TOKEN = re.compile(r"demo-\d+-[0-9a-f]{16}")  # as the embedded Proctor issues them


@pytest.fixture
def run(jobs: Jobs) -> Callable[..., Result]:
    """Run the job against a simulator, without waits and with JSON logs: `run(simulator, MAX_ATTEMPTS="2")`.

    No sentence of its log ends in two full stops, and no token, password or client secret is in it.
    """

    def run(simulator: Simulator, *arguments: str, **changes: str) -> Result:
        settings = {**simulator.settings(), **QUICK, **changes}
        result = jobs.run(settings, *arguments)
        for event in result.log:
            text = f"{event}"
            assert not re.search(r"[^.]\.\.(?![./])", str(event["message"])), event["message"]
            assert not _TOKEN.search(text), text
            for name in ("AUTH_PASSWORD", "AUTH_CLIENT_SECRET"):
                assert len(settings[name]) < 4 or settings[name] not in text, text
        return result

    return run
