"""The versions in deploy/tested-with.md are those that the tests run with."""

import os
import platform
import re
import shutil
import subprocess

import pytest

from tests.support import ROOT

TABLE = ROOT / "deploy" / "tested-with.md"
Versions = dict[str, tuple[int, list[str]]]
"""For each program the number of its line in the file, and its versions, mostly as major.minor."""

PATH = os.pathsep.join([os.environ["PATH"], "/usr/local/sbin", "/usr/sbin"])  # where Debian puts servers
INSTALLED = {
    "Apache": "apache2 -v",
    "Docker engine": "docker version --format {{.Server.Version}}",
    "MariaDB": "mariadbd --version",
    "Varnish": "varnishd -V",
    "docker compose": "docker compose version",
    "haproxy": "haproxy -v",
    "nginx": "nginx -v",
    "squid": "squid -v",
    "stunnel": "stunnel4 -version",
    "tinyproxy": "tinyproxy -v",
}
"""The commands that print versions."""

PINNED = {
    "Kubernetes": (".ci/cluster", r"KUBERNETES_VERSION:-(\d+\.\d+)"),
    "Python in the image": ("Dockerfile", r"python:(\d+\.\d+)"),
    "haproxy as Docker API proxy": ("docker-compose.yml", r"haproxy:(\d+\.\d+)"),
    "ofelia": ("docker-compose.yml", r"mcuadros/ofelia:(\d+\.\d+\.\d+)"),
}
"""The files that pin versions, and where in them."""


@pytest.fixture(scope="module")
def in_ci() -> Versions:
    """The table of what CI runs, which ends with the first empty line."""
    versions: Versions = {}
    for number, line in enumerate(TABLE.read_text().splitlines(), 1):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3:
            versions[cells[0]] = number, cells[1].split(", ")
        elif versions:
            break
    del versions["in CI"], versions["---"]
    return versions


def difference(in_ci: Versions, program: str, version: str) -> str:
    """What to update for this version, or nothing if it is in the table."""
    line, versions = in_ci[program]
    if version in versions:
        return ""
    return f"{program} is {version} here: update line {line} of {TABLE.relative_to(ROOT)}, which has {versions}"


def report(difference: str) -> None:
    """In CI a difference is a failure; on other machines other versions may be installed."""
    if difference:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(difference)


def installed(command: str) -> str:
    """The version that a command prints, as major.minor; empty if the program is not there or does not work."""
    program, *arguments = command.split()
    if not (found := shutil.which(program, path=PATH)):
        return ""
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False, timeout=60)
    version = re.search(r"\d+\.\d+", done.stdout + done.stderr)
    return version[0] if version and not done.returncode else ""


def test_each_program_in_the_table_is_compared(in_ci: Versions) -> None:
    assert set(in_ci) == {"Python", *INSTALLED, *PINNED}


@pytest.mark.parametrize("program", PINNED)
def test_a_pinned_version_is_in_the_table(in_ci: Versions, program: str) -> None:
    file, pattern = PINNED[program]
    pinned = set(re.findall(pattern, (ROOT / file).read_text()))
    assert len(pinned) == 1, f"{file} has no version, or several, of {program}: {pinned}"
    if wrong := difference(in_ci, program, pinned.pop()):
        pytest.fail(wrong)


def test_the_python_of_the_tests_is_in_the_table(in_ci: Versions) -> None:
    report(difference(in_ci, "Python", ".".join(platform.python_version_tuple()[:2])))


@pytest.mark.parametrize("program", INSTALLED)
def test_an_installed_version_is_in_the_table(in_ci: Versions, program: str) -> None:
    if version := installed(INSTALLED[program]):
        report(difference(in_ci, program, version))
    else:
        report(f"{program}, which is in {TABLE.name}, is not installed")
