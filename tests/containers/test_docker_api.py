"""What a compromised ofelia could do with its access to Docker: next to nothing but its job."""

import json
from typing import Any

import pytest

from tests.containers.engine import IMAGE
from tests.containers.stack import Stack

CLIENT = """
import http.client, json, sys
for method, path, body in json.loads(sys.argv[1]):
    connection = http.client.HTTPConnection("docker-api", 2375)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    print(json.dumps([response.status, response.read().decode()]))
"""
JOB = {
    "Cmd": ["sh", "-c", 'echo "user $(id -u)" >&2'],
    "Container": "standby",
    "User": "10001:10001",
    "AttachStdout": True,
    "AttachStderr": True,
}


def body(**changes: Any) -> str:
    """The request for an exec as ofelia writes it, with these changes."""
    return json.dumps(JOB | changes, separators=(",", ":"))


def ask(stack: Stack, *requests: tuple[str, str, str | None]) -> list[tuple[int, str]]:
    """Status and body of each response to a method, path and body, sent from ofelia's network."""
    network = ["--network", f"{stack.project}_docker-api"]
    client = ["--entrypoint=python", IMAGE, "-c", CLIENT, json.dumps(requests)]
    result = stack.engine.docker("run", "--rm", *network, *client)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def foreign(stack: Stack) -> str:
    """The id of a container of the host that is not of the stack, but would take part in ofelia's jobs."""
    return stack.engine.start("--label=ofelia.enabled=true", IMAGE, "standby")


def test_nothing_but_the_list_and_execs_may_be_requested(stack: Stack, foreign: str) -> None:
    stack.up()
    standby = f"{stack.project}-standby-1"
    refused = [
        ("POST", "/containers/create", '{"Image": "force-submit-proctor"}'),
        ("POST", f"/containers/{standby}/start", None),
        ("POST", f"/v1.41/containers/{standby}/restart", None),
        ("DELETE", f"/containers/{standby}", None),
        ("GET", f"/containers/{standby}/json", None),
        ("GET", f"/containers/{standby}/archive?path=/run/secrets", None),
        ("PUT", f"/containers/{standby}/archive?path=/", None),
        ("GET", f"/containers/{standby}/logs?stdout=1", None),
        ("GET", f"/containers/{foreign}/json", None),
        ("GET", f"/v1.41/containers/{foreign}/json", None),
        ("GET", "/images/json", None),
        ("GET", "/info", None),
        ("GET", "/events?since=0&until=1", None),
        ("POST", "/build", None),
        ("POST", "/containers/json", None),
        ("PUT", f"/containers/{standby}/exec", body()),
    ]
    assert [status for status, _ in ask(stack, *refused)] == [403] * len(refused)
    network = f"{stack.project}_docker-api"
    assert stack.engine.inspect(network)["Internal"] is True
    assert list(stack.engine.inspect(stack.container("docker-api"))["NetworkSettings"]["Networks"]) == [network]


def test_commands_may_be_started_in_standby_alone(stack: Stack, foreign: str) -> None:
    stack.up()
    standby = f"{stack.project}-standby-1"
    names = [
        f"{stack.project}-docker-api-1",
        stack.container("docker-api"),
        stack.container("docker-api")[:12],
        f"{stack.project}-ofelia-1",
        stack.container("standby"),
        foreign,
        stack.engine.inspect(foreign)["Name"].strip("/"),
        f"x{standby}",
        f"{standby}x",
        f"{foreign}/json?/{standby}",
        f"{standby}/../{foreign}",
        f"{standby}%2f..%2f{foreign}",
    ]
    requests = [("POST", f"/containers/{name}/exec", body()) for name in names]
    requests += [("POST", f"/v1.41/containers/{foreign}/exec", body(Privileged=True))]
    assert [status for status, _ in ask(stack, *requests)] == [403] * len(requests)

    ((status, created),) = ask(stack, ("POST", f"/containers/{standby}/exec", body()))
    assert status == 201
    path = f"/exec/{json.loads(created)['Id']}"
    (started, output), (_, ended) = ask(stack, ("POST", f"{path}/start", "{}"), ("GET", f"{path}/json", None))
    assert started == 200
    assert output.endswith("user 10001\n")
    assert json.loads(ended)["ExitCode"] == 0


def test_commands_in_standby_run_neither_as_root_nor_with_privileges(stack: Stack) -> None:
    stack.up()
    bodies = [
        body(User="0:0"),
        body(User="root"),
        body(User=""),
        body(Privileged=True),
        body(Privileged=False),
        body(privileged=True),
        body(**{"Priv\\u0069leged": True}),
        body().replace("{", '{"Privileged":true,', 1),
        body().replace('"Container"', '"Privileged":true,"Container"'),
        body().replace('"standby"', '"\\",\\"","Privileged":true,"Container":"x"'),
        body().replace('],"C', '],"Privileged":true,"Cmd":["x"],"C'),
        body().replace("}", ',"User":"0:0"}'),
        body().replace("}", "," + " " * 20_000 + '"Privileged":true}'),
        body(Cmd=["x" * 20_000], Privileged=True),
        "{}",
        "",
    ]
    path = f"/containers/{stack.project}-standby-1/exec"
    assert [status for status, _ in ask(stack, *(("POST", path, text) for text in bodies))] == [403] * len(bodies)


def test_no_other_containers_are_listed_whatever_is_requested(stack: Stack, foreign: str) -> None:
    stack.up()
    queries = ("", "?all=1", '?all=1&filters={"label":["ofelia.enabled=true"]}')
    responses = ask(stack, *(("GET", f"/containers/json{query}", None) for query in queries))
    own = {stack.container("standby"), stack.container("ofelia")}
    assert foreign not in own
    assert [{container["Id"] for container in json.loads(text)} for _, text in responses] == [own] * 3


def test_ofelia_and_its_proxy_run_without_privileges(stack: Stack) -> None:
    stack.up()
    ofelia, proxy = (stack.engine.inspect(stack.container(name))["HostConfig"] for name in ("ofelia", "docker-api"))
    assert ofelia["CapDrop"] == proxy["CapDrop"] == ["ALL"]
    assert [name.removeprefix("CAP_") for name in ofelia["CapAdd"]] == ["DAC_OVERRIDE"]
    assert not proxy["CapAdd"]
    assert ofelia["SecurityOpt"] == proxy["SecurityOpt"] == ["no-new-privileges:true"]
    assert ofelia["ReadonlyRootfs"]
