"""What the command `recover` is to do."""

from pathlib import Path
from typing import NamedTuple

from app.model import Period
from app.recovery.zones import Zone


class Options(NamedTuple):
    """What is to be done. A path `-` is stdin; without a directory, the CSV goes to stdout."""

    directory: Path | None
    windows: list[Period]
    zone: Zone
    found: Path | None
    trust_zone: bool
    unverified: bool
    log: Path | None
    acknowledge: str | None
    csvs: list[Path]
