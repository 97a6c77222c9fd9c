"""The secrets among the settings that lead to an embedded Proctor: as files, and where they must not be."""

import json
from pathlib import Path

from app.simulator import Simulator


def plain(settings: dict[str, str]) -> dict[str, str]:
    """The settings that are not secret."""
    return {name: value for name, value in settings.items() if not is_secret(name)}


def is_secret(name: str) -> bool:
    return name in ("AUTH_CLIENT_SECRET", "AUTH_PASSWORD")


def write_secrets(directory: Path, proctor: Simulator) -> Path:
    """The secrets of a Proctor as files, readable in a container, in a directory that is closed on the host."""
    directory.mkdir()
    for name, value in proctor.settings().items():
        if is_secret(name):
            (directory / name.lower()).write_text(value + "\n")
    return directory


def secrets_in(text: bytes, proctor: Simulator) -> list[str]:
    """The names of the secrets that a text holds."""
    secrets = {name: value for name, value in proctor.settings().items() if is_secret(name)}
    return [
        name
        for name, value in secrets.items()
        if value.encode() in text or json.dumps(value).strip('"').encode() in text
    ]
