"""The cluster, and deployments of the job on it."""

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.simulator import Scenario
from tests.cluster.deployment import IMAGE, Deploy, Deployment
from tests.embedded import EmbeddedProctor


def available() -> str:
    """Why there is no cluster to test with, or nothing. A cluster that is not for tests is left alone."""
    if not os.environ.get("CLUSTER_HOST"):
        return 'no cluster for tests: eval "$(.ci/cluster start)"'
    try:
        subprocess.run(["kubectl", "get", "--raw", "/readyz"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"the cluster does not respond: {error}"
    return ""


@pytest.fixture(scope="session")
def cluster_host() -> str:
    """This machine's address for pods. Without a cluster the test is skipped, in CI it fails."""
    if missing := available():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return os.environ["CLUSTER_HOST"]


@pytest.fixture(scope="session")
def cluster(cluster_host: str, image: str) -> Iterator[str]:
    """The cluster, for this process alone, with the image in it; returns this machine's address for pods."""
    with open(Path(os.environ["CLUSTER_HOME"]) / "tests.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail("another process tests with this cluster, and may disturb it")
        load_image(image)
        yield cluster_host


def load_image(image: str) -> None:
    subprocess.run(["docker", "tag", image, IMAGE], check=True)
    with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as save:
        subprocess.run(["ctr", "images", "import", "-"], stdin=save.stdout, check=True, capture_output=True)
    assert save.returncode == 0


@pytest.fixture
def prepare(cluster: str, tmp_path: Path) -> Iterator[Deploy]:
    """Prepare a namespace without volume, settings or secrets: `prepare(exams=250)`, with the fields of `Scenario`."""
    with ExitStack() as stack:

        def prepare(certificate: tuple[str, str] | None = None, **scenario: Any) -> Deployment:
            proctor = stack.enter_context(EmbeddedProctor(Scenario(**scenario), cluster, certificate))
            deployment = Deployment(tmp_path, proctor)
            stack.callback(deployment.close)
            return deployment

        yield prepare


@pytest.fixture
def deploy(prepare: Deploy) -> Callable[..., Deployment]:
    """Deploy the job with a volume: `deploy(exams=250, settings={"MAX_ATTEMPTS": "1"})`."""

    def deploy(settings: dict[str, str] | None = None, **scenario: Any) -> Deployment:
        deployment = prepare(**scenario)
        deployment.create_volume()
        deployment.fill_in(**(settings or {}))
        deployment.write_secrets()
        deployment.apply()
        return deployment

    return deploy
