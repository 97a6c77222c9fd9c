"""The job against an embedded Proctor, for a first look."""

import logging
import os
from pathlib import Path

from app import logs, settings
from app.commands.run import run
from app.logs import log_event
from app.signals import Stop
from app.simulator import Scenario, Simulator


def demo(exams: int, faults: bool, stop: Stop) -> int:
    """Expire `exams` made-up exams over real HTTP on loopback, CSV to stdout; return the exit code."""
    nowhere = Path(os.devnull)
    script = ["503", "ok", "token-expired", "reset-after"] if faults else []
    with Simulator(Scenario(exams=exams, faults=script)) as simulator:
        log_settings = {name: os.environ[name] for name in ("LOG_LEVEL", "LOG_FORMAT") if name in os.environ}
        configuration = settings.read(
            simulator.settings() | {"MAX_WAIT": "1"} | log_settings, secrets_dir=nowhere, dotenv=nowhere / "none"
        )
        logs.configure(configuration["LOG_LEVEL"].value, configuration["LOG_FORMAT"].value)
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
        log_event(
            logging.WARNING,
            "demo",
            f"This is a demo: the {exams:,} exams are made up, and Proctor is embedded in this program, at"
            f" {simulator.url}.",
        )
        return run(configuration.settings(), stop)
