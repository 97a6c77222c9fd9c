"""What the tests of settings share."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.settings.places import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port of this machine that nobody listens on, and that nobody else is given."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]
