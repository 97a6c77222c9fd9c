"""Verifies settings, output, token and endpoint, one line each, without expiring anything or leaving a file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.exceptions import CredentialsRejected, ExitCode, Failure, Transient, Unavailable
from app.output.volume import verify_writable
from app.proctor.endpoint import Endpoint, TokenRejected
from app.proctor.tokens import Tokens
from app.proctor.transport import Transport
from app.settings import NAMES, Configuration, schedule_problem
from app.signals import Stop
from app.streams import print_line


def check(configuration: Configuration, stop: Stop) -> int:
    """Print a checklist on stdout; return the exit code of the first check that failed."""
    for name in NAMES:
        print_line(f"        {name:<20} {configuration.shown(name)}  [{configuration[name].source}]")
    for warning in configuration.warnings:
        print_line(f"WARNING {warning}")
    problems = [*configuration.problems]
    if configuration.schedule and (problem := schedule_problem(configuration.schedule)):
        problems.append(problem)
    for problem in problems:
        print_line(f"FAILED  {problem}")
    if problems:
        return ExitCode.CONFIGURATION

    settings = replace(configuration.settings(), max_attempts=1)
    transport = Transport.from_settings(settings, stop)
    tokens = Tokens(settings, transport, stop.sleep)
    endpoint = Endpoint(settings, transport)
    print_line("ok      settings")
    output = _step("output", lambda: _verify_output(settings.output_dir))
    if token := _step("token", lambda: _verify_token(tokens, settings.auth_url)):
        return output or token
    endpoint_code = _step("endpoint", lambda: _verify_endpoint(endpoint, tokens.get()))
    return output or endpoint_code


def _step(what: str, verify: Callable[[], str]) -> int:
    try:
        print_line(f"ok      {what}: {verify()}")
    except Failure as failure:
        print_line(f"FAILED  {what}: {failure}")
        return failure.code
    return ExitCode.OK


def _verify_output(directory: Path | None) -> str:
    if not directory:
        return "the CSV goes to stdout"
    verify_writable(directory)
    return f"{directory} can be written"


def _verify_token(tokens: Tokens, url: str) -> str:
    tokens.get()
    return f"issued by {url}"


def _verify_endpoint(endpoint: Endpoint, token: str) -> str:
    try:
        endpoint.verify(token)
    except TokenRejected as rejected:
        raise CredentialsRejected(
            f"{rejected}. Check that AUTH_URL (with its realm) and the credentials belong to this Proctor, and that"
            " Proctor can reach its token info service."
        ) from None
    except Transient as reason:
        raise Unavailable(f"{reason}. Check that Proctor is up and reachable from this host.") from None
    return f"{endpoint.url} exists and accepts the token (only a run can verify CLIENT_NAME)"
