"""Proves settings, output, token and endpoint, one line each, without expiring anything and without leaving a file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.auth import Tokens
from app.exits import ExitCode, Failure, Unavailable
from app.job import still_waiting
from app.proctor import Proctor
from app.settings import NAMES, Configuration, schedule_problem
from app.signals import Interrupted, Stop
from app.streams import say
from app.transport import Transient, Transport
from app.volume import prove_writable


def check(configuration: Configuration, stop: Stop) -> int:
    """Print a checklist on stdout; return the exit code of the first thing that is wrong."""
    for name in NAMES:
        say(f"        {name:<20} {configuration.shown(name)}  [{configuration[name].source}]")
    for warning in configuration.warnings:
        say(f"WARNING {warning}")
    problems = [*configuration.problems]
    if configuration.schedule and (problem := schedule_problem(configuration.schedule)):
        problems.append(problem)
    for problem in problems:
        say(f"FAILED  {problem}")
    if problems:
        return ExitCode.CONFIGURATION

    settings = replace(configuration.settings(), max_attempts=1)
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
