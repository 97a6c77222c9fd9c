"""Proves settings, output, token and endpoint, one line each, without expiring anything and without leaving a file."""

from collections.abc import Callable
from pathlib import Path

from app.proctor.tokens import Tokens
from app.exceptions import ExitCode, Failure, Unavailable
from app.commands.run import still_waiting
from app.proctor.endpoint import Proctor
from app.settings import NAMES, Configuration
from app.signals import Interrupted, Stop
from app.streams import say
from app.proctor.transport import Transient, Transport
from app.output.volume import prove_writable


def check(configuration: Configuration, stop: Stop) -> int:
    """Print a checklist on stdout; return the exit code of the first thing that is wrong."""
    for name in NAMES:
        say(f"        {name:<20} {configuration.shown(name)}  [{configuration.sources[name]}]")
    for warning in configuration.warnings:
        say(f"WARNING {warning}")
    for problem in configuration.problems:
        say(f"FAILED  {problem}")
    if configuration.problems:
        return ExitCode.CONFIGURATION

    settings = configuration.settings()._replace(max_attempts=1)
    transport = Transport.of(settings, stop, still_waiting)
    tokens = Tokens(settings, transport, stop.wait)
    proctor = Proctor(settings, transport)
    try:
        with stop.interruptible(after=1):
            say("ok      settings")
            output = _step("output", lambda: _prove_output(settings.output_dir))
            token = _step("token", lambda: _prove_token(tokens, settings.auth_url))
            if token:
                return output or token
            endpoint = _step("endpoint", lambda: _prove_endpoint(proctor, tokens.get(), settings.expire_url))
            return output or endpoint
    except Interrupted:
        return 128 + (stop.signum or 0)


def _step(what: str, prove: Callable[[], str]) -> int:
    try:
        say(f"ok      {what}: {prove()}")
    except Failure as failure:
        say(f"FAILED  {what}: {failure}")
        return failure.code
    return ExitCode.OK


def _prove_output(directory: Path | None) -> str:
    if not directory:
        return "the CSV goes to stdout"
    prove_writable(directory)
    return f"{directory} can be written"


def _prove_token(tokens: Tokens, url: str) -> str:
    tokens.get()
    return f"given out by {url}"


def _prove_endpoint(proctor: Proctor, token: str, url: str) -> str:
    try:
        proctor.probe(token)
    except Transient as reason:
        raise Unavailable(f"{reason}. Check that Proctor is up and reached from here.") from None
    return f"{url} is there and takes the token (CLIENT_NAME itself is only proven by a run)"
