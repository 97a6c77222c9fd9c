"""The compose stack, run by the real docker compose from the file as it is: what a user asks of it."""

import json

import pytest

from tests.containers.secrets import secrets_in
from tests.containers.stack import Stack
from tests.embedded import EmbeddedProctor
from tests.support import expired


def test_up_checks_the_configuration_and_expires_nothing(stack: Stack, proctor: EmbeddedProctor) -> None:
    stack.up()
    assert proctor.record == []
    assert stack.log("check", "^ok      endpoint")
    assert stack.log("standby", "Waiting for the scheduler")
    assert stack.log("ofelia", 'New job registered "force-submit"')


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"CLIENT_NAME": ""}, 78),
        ({"AUTH_CLIENT_ID": "nobody"}, 77),
        ({"SCHEDULE": "0 2 * * *"}, 78),  # of five fields, which ofelia would take for another schedule
    ],
)
def test_a_wrong_configuration_fails_up_at_once(stack: Stack, wrong: dict[str, str], code: int) -> None:
    stack.configure(**wrong)
    result = stack.compose("up", "-d")
    assert result.returncode != 0
    assert f"exit {code}".encode() in result.stderr
    assert stack.log("check", "^FAILED")
    assert (stack.state("standby"), stack.state("ofelia")) == ("created", "created")


def test_a_changed_configuration_can_be_checked_before_containers_are_replaced(stack: Stack) -> None:
    stack.up()
    stack.configure(AUTH_CLIENT_ID="nobody")
    assert stack.compose("run", "--rm", "check").returncode == 77
    assert (stack.state("standby"), stack.state("ofelia")) == ("running", "running")
    # `up` itself replaces them first: it fails, and nothing is scheduled until it succeeds.
    assert stack.compose("up", "-d", "--force-recreate").returncode != 0
    assert (stack.state("standby"), stack.state("ofelia")) == ("created", "created")
    stack.up()
    assert (stack.state("standby"), stack.state("ofelia")) == ("running", "running")


def test_run_now_and_check_are_one_command_each(stack: Stack, proctor: EmbeddedProctor) -> None:
    assert stack.compose("run", "--rm", "force-submit", "check").returncode == 0
    assert proctor.record == []
    result = stack.compose("run", "--rm", "force-submit")
    assert result.returncode == 0, result.stderr
    assert stack.exam_ids() == sorted(expired(proctor))
    assert len(expired(proctor)) == 250


def test_a_stopped_run_gets_the_time_that_a_call_may_take(stack: Stack, proctor: EmbeddedProctor) -> None:
    proctor.scenario.faults = ["hold"]
    container = stack.compose("run", "-d", "force-submit").stdout.decode().strip()
    assert proctor.held.wait(60)
    assert stack.engine.inspect(container)["Config"]["StopTimeout"] > 300
    proctor.release.set()
    assert stack.engine.docker("wait", container).stdout == b"0\n"


def test_no_secret_is_in_any_configuration_container_or_label(stack: Stack, proctor: EmbeddedProctor) -> None:
    stack.up()
    text = stack.compose("config").stdout
    for service in ("check", "standby", "ofelia", "docker-api"):
        text += json.dumps(stack.engine.inspect(stack.container(service))).encode()
    assert secrets_in(text, proctor) == []
