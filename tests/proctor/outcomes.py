"""How a run ended that reached no Proctor."""

from app.simulator import Simulator
from tests.support import Result


def was_not_sent(simulator: Simulator, result: Result, attempts: int) -> bool:
    """Whether every attempt ended before the request, as the program reports it and by the record."""
    retries = [event["attempt"] for event in result.events("retry")]
    outcome = (result.code, result.summary["lost"])
    return outcome == (69, []) and retries == list(range(1, attempts)) and not simulator.record
