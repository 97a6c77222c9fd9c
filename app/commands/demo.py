"""The job against an embedded Proctor, for a first look."""

import logging
import os

from app import settings
from app.commands.run import run
from app.logs import log_event
from app.signals import Stop
from app.simulator import Scenario, Simulator


def demo(exams: int, faults: bool, stop: Stop) -> int:
    """Expire `exams` made-up exams over real HTTP on loopback, CSV to stdout; return the exit code."""
    script = ["503", "ok", "token-expired", "reset-after"] if faults else []
    with Simulator(Scenario(exams=exams, faults=script)) as simulator:
        configuration = settings.read_variables({**simulator.settings(), "MAX_WAIT": "1"})
        configuration.apply()
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
        log_event(
            logging.WARNING,
            "demo",
            f"This is a demo: the {exams:,} exams are made up, and Proctor is embedded in this program, at"
            f" {simulator.url}.",
        )
        return run(configuration.settings(), stop)
