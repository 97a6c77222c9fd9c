"""Retries of transient errors, by tenacity: how often, and how long to wait before each, as the settings have it."""

import logging
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from app.exceptions import Transient
from app.logs import log_event
from app.settings import Settings


def retrying(
    settings: Settings,
    what: Callable[[], str],
    sleep: Callable[[float], None],
    on_retry: Callable[[], None] = lambda: None,
) -> Retrying:
    """Call it with a function to have that tried up to MAX_ATTEMPTS times while it raises `Transient`.

    The waits double from about a second up to MAX_WAIT, with jitter; a longer one that the error asks for is honoured
    up to MAX_WAIT, both in seconds. `what` names what failed in the log; `on_retry` is called before each wait. The
    last attempt's `Transient` is raised, as is at once whatever else the function or `sleep` raises.
    """
    back_off = wait_exponential_jitter(max=settings.max_wait)

    def wait(state: RetryCallState) -> float:
        return max(back_off(state), min(_error(state).wait, settings.max_wait))

    def log_retry(state: RetryCallState) -> None:
        on_retry()
        error, seconds = _error(state), state.upcoming_sleep
        log_event(
            logging.WARNING,
            "retry",
            f"{what()}: {error}. Attempt {state.attempt_number} of {settings.max_attempts} failed; retrying in"
            f" {seconds:.1f} s.",
            attempt=state.attempt_number,
            reason=str(error),
            wait_seconds=round(seconds, 3),
        )

    return Retrying(
        stop=stop_after_attempt(settings.max_attempts),
        wait=wait,
        retry=retry_if_exception_type(Transient),
        before_sleep=log_retry,
        sleep=sleep,
        reraise=True,
    )


def _error(state: RetryCallState) -> Transient:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Transient)
    return error
