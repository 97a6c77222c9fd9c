"""How often something transient is tried again, and how long to wait before."""

import logging
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from app.logs import event
from app.settings import Settings
from app.transport import Transient


def retrying(what: str, settings: Settings, sleep: Callable[[float], None], on_retry: Callable[[], None]) -> Retrying:
    """Calls a function up to MAX_ATTEMPTS times while it raises `Transient`, then lets the last one pass.

    The waits double from about a second up to MAX_WAIT, with jitter; a longer one that the server asks for is honoured
    up to MAX_WAIT. `what` names the thing in the log; `on_retry` is called before each wait.
    """
    doubling = wait_exponential_jitter(max=settings.max_wait)

    def wait(state: RetryCallState) -> float:
        return max(doubling(state), min(_error(state).wait, settings.max_wait))

    def announce(state: RetryCallState) -> None:
        on_retry()
        seconds = state.upcoming_sleep
        event(
            logging.WARNING,
            "retry",
            f"{what}: {_error(state)}. Attempt {state.attempt_number} of {settings.max_attempts}, the next one in"
            f" {seconds:.1f} s.",
            attempt=state.attempt_number,
            reason=str(_error(state)),
            wait_seconds=round(seconds, 3),
        )

    return Retrying(
        stop=stop_after_attempt(settings.max_attempts),
        wait=wait,
        retry=retry_if_exception_type(Transient),
        before_sleep=announce,
        sleep=sleep,
        reraise=True,
    )


def _error(state: RetryCallState) -> Transient:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Transient)
    return error
