"""The Kubernetes manifests: rendered by kustomize, valid, and their pod's container run with the same restrictions."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.simulator import Scenario, Simulator
from tests.containers.engine import IMAGE, Engine
from tests.containers.test_docker import plain, write_secrets
from tests.support import ROOT, expired, rows_of

MANIFESTS = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.31", "1.37"
Manifest = dict[str, Any]


@pytest.fixture
def rendered(tmp_path: Path, engine: Engine) -> Iterator[tuple[Simulator, dict[str, Manifest]]]:
    """A Proctor, and the manifests as `kubectl apply -k` makes them for it, by kind."""
    with Simulator(Scenario(), host=engine.host) as proctor:
        directory = tmp_path / "kubernetes"
        shutil.copytree(MANIFESTS, directory, ignore=shutil.ignore_patterns("secrets"))
        settings = [f"{name}={value}\n" for name, value in plain(proctor.settings()).items()]
        (directory / "settings.env").write_text("".join(settings))
        write_secrets(directory / "secrets", proctor)
        text = subprocess.run(["kustomize", "build", directory], check=True, capture_output=True).stdout
        yield proctor, {manifest["kind"]: manifest for manifest in yaml.safe_load_all(text)}


def pod_of(manifests: dict[str, Manifest]) -> Manifest:
    spec = manifests["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_manifests_are_valid(rendered: tuple[Simulator, dict[str, Manifest]], version: str) -> None:
    _, manifests = rendered
    assert set(manifests) == {"ConfigMap", "Secret", "PersistentVolumeClaim", "CronJob"}
    for manifest in [*manifests.values(), yaml.safe_load((MANIFESTS / "fetch.yaml").read_text())]:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_secrets_are_in_the_secret_alone(rendered: tuple[Simulator, dict[str, Manifest]]) -> None:
    proctor, manifests = rendered
    assert set(manifests["Secret"]["data"]) == {"auth_client_secret", "auth_password"}
    assert dict(manifests["ConfigMap"]["data"]) == plain(proctor.settings())


@pytest.mark.parametrize("kind", ["CronJob", "Pod"])
def test_the_pods_keep_to_the_restricted_pod_security_level(
    rendered: tuple[Simulator, dict[str, Manifest]], kind: str
) -> None:
    _, manifests = rendered
    pod = pod_of(manifests) if kind == "CronJob" else yaml.safe_load((MANIFESTS / "fetch.yaml").read_text())["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all(set(volume) & {"persistentVolumeClaim", "secret"} for volume in pod["volumes"])
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_a_retry_never_buries_a_finding(rendered: tuple[Simulator, dict[str, Manifest]]) -> None:
    _, manifests = rendered
    spec = manifests["CronJob"]["spec"]
    assert (spec["concurrencyPolicy"], pod_of(manifests)["restartPolicy"]) == ("Forbid", "Never")
    fail, ignore = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert fail["onExitCodes"] == {"operator": "In", "values": [64, 65, 70, 74, 76, 77, 78]}
    assert ignore["onPodConditions"][0]["type"] == "DisruptionTarget"


def test_the_container_of_the_pod_does_the_job(
    rendered: tuple[Simulator, dict[str, Manifest]], engine: Engine, tmp_path: Path
) -> None:
    proctor, manifests = rendered
    pod = pod_of(manifests)
    (container,) = pod["containers"]
    security = pod["securityContext"]
    output = tmp_path / "output"
    output.mkdir()
    output.chmod(0o2770)
    shutil.chown(output, 0, security["fsGroup"])
    secrets = tmp_path / "kubernetes" / "secrets"
    for file in secrets.iterdir():
        file.chmod(next(volume["secret"]["defaultMode"] for volume in pod["volumes"] if "secret" in volume))
        shutil.chown(file, 0, security["fsGroup"])
    directories = {"output": output, "secrets": secrets}
    mounts = [
        f"-v={directories[mount['name']]}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"
        for mount in container["volumeMounts"]
    ]
    variables = manifests["ConfigMap"]["data"] | {entry["name"]: entry["value"] for entry in container["env"]}
    restrictions = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"]
    user = [f"--user={security['runAsUser']}:{security['runAsGroup']}", f"--group-add={security['fsGroup']}"]
    memory = f"--memory={container['resources']['limits']['memory'].removesuffix('i').lower()}"
    environment = [f"-e={name}={value}" for name, value in variables.items()]
    result = engine.docker("run", "--rm", *restrictions, *user, memory, *mounts, *environment, IMAGE)
    assert result.returncode == 0, result.stderr
    (csv_path,) = output.glob("*.csv")
    assert sorted(row["examId"] for row in rows_of(csv_path.read_bytes())) == sorted(expired(proctor))
    assert len(expired(proctor)) == 250
