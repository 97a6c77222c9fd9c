"""How often something transient is tried again, and how long to wait before."""

import logging
from collections.abc import Callable
from typing import TypeVar

from app.logs import event
from app.settings import Settings
from app.proctor.transport import Transient

_T = TypeVar("_T")


def with_retries(
    attempt: Callable[[], _T],
    what: str,
    settings: Settings,
    sleep: Callable[[float], None],
    on_retry: Callable[[], None],
) -> _T:
    """Call `attempt` up to MAX_ATTEMPTS times while it raises `Transient`, then let the last one pass.

    The waits double from about a second up to MAX_WAIT, with jitter; a longer one that the server asks for is honoured
    up to MAX_WAIT, both in seconds. `what` names the thing in the log; `on_retry` is called before each wait.

    Raises:
        Transient: that of the last attempt.
        Whatever else `attempt` and `sleep` raise.
    """
    try:
        return attempt()
    except Transient as error:
        failed = [error]

    # Not before it is needed, which it seldom is: this import is a tenth of the start of a run.
    from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

    def from_the_first() -> _T:
        if failed:
            raise failed.pop()
        return attempt()

    def error_of(state: RetryCallState) -> Transient:
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, Transient)
        return error

    doubling = wait_exponential_jitter(max=settings.max_wait)

    def wait(state: RetryCallState) -> float:
        return max(doubling(state), min(error_of(state).wait, settings.max_wait))

    def announce(state: RetryCallState) -> None:
        on_retry()
        error, seconds = error_of(state), state.upcoming_sleep
        event(
            logging.WARNING,
            "retry",
            f"{what}: {error}. Attempt {state.attempt_number} of {settings.max_attempts}, the next one in"
            f" {seconds:.1f} s.",
            attempt=state.attempt_number,
            reason=str(error),
            wait_seconds=round(seconds, 3),
        )

    retrying = Retrying(
        stop=stop_after_attempt(settings.max_attempts),
        wait=wait,
        retry=retry_if_exception_type(Transient),
        before_sleep=announce,
        sleep=sleep,
        reraise=True,
    )
    return retrying(from_the_first)
