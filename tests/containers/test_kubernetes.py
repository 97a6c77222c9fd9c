"""The Kubernetes manifests: rendered by kustomize, valid, and their pod's container run with the same restrictions."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app import __version__
from app.exceptions import ExitCode
from app.settings.declarations import DECLARATIONS
from tests.containers.engine import IMAGE, Engine
from tests.containers.secrets import plain, write_secrets
from tests.embedded import EmbeddedProctor
from tests.support import ROOT, expired, ids

MANIFESTS = ROOT / "deploy" / "kubernetes"
OLDEST, NEWEST = "1.31", "1.37"
Manifest = dict[str, Any]
Rendered = dict[str, Manifest]
"""The manifests by kind."""


@pytest.fixture
def directory(tmp_path: Path, proctor: EmbeddedProctor) -> Path:
    """The kustomizations, with settings and secrets for a Proctor."""
    directory = tmp_path / "kubernetes"
    shutil.copytree(MANIFESTS, directory, ignore=shutil.ignore_patterns("secrets"))
    settings = [f"{name}={value}\n" for name, value in plain(proctor.settings()).items()]
    (directory / "job" / "settings.env").write_text("".join(settings))
    write_secrets(directory / "job" / "secrets", proctor)
    return directory


def render(directory: Path) -> Rendered:
    """What `kubectl apply -k` makes of a kustomization."""
    text = subprocess.run(["kustomize", "build", directory], check=True, capture_output=True).stdout
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(text)}


@pytest.fixture
def rendered(directory: Path) -> Rendered:
    return {kind: it for name in ("job", "volume", "fetch") for kind, it in render(directory / name).items()}


def pod_of(manifests: Rendered, kind: str = "CronJob") -> Manifest:
    spec = manifests[kind]["spec"]
    if kind == "CronJob":
        spec = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_manifests_are_valid(rendered: Rendered, version: str) -> None:
    assert set(rendered) == {"ConfigMap", "Secret", "PersistentVolumeClaim", "CronJob", "Pod"}
    for manifest in rendered.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_deleting_the_job_does_not_delete_the_volume(directory: Path) -> None:
    assert set(render(directory / "job")) == {"ConfigMap", "Secret", "CronJob"}
    assert set(render(directory / "fetch")) == {"Pod"}


def test_the_image_is_set_in_one_place(directory: Path) -> None:
    kustomization = directory / "image" / "kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("registry.example.org/", "mirror.example.org/our-"))
    (job,) = pod_of(render(directory / "job"))["containers"]
    (fetch,) = pod_of(render(directory / "fetch"), "Pod")["containers"]
    assert job["image"] == fetch["image"] == f"mirror.example.org/our-force-submit-proctor:{__version__}"


def test_secrets_are_in_the_secret_alone(rendered: Rendered, proctor: EmbeddedProctor) -> None:
    assert set(rendered["Secret"]["data"]) == {"auth_client_secret", "auth_password"}
    assert dict(rendered["ConfigMap"]["data"]) == plain(proctor.settings())


def test_a_changed_secret_replaces_the_former_one(directory: Path, rendered: Rendered) -> None:
    (directory / "job" / "secrets" / "auth_password").write_text("another one")
    changed = render(directory / "job")["Secret"]
    assert changed["data"] != rendered["Secret"]["data"]
    assert changed["metadata"] == rendered["Secret"]["metadata"]


@pytest.mark.parametrize("kind", ["CronJob", "Pod"])
def test_the_pods_keep_to_the_restricted_pod_security_level(rendered: Rendered, kind: str) -> None:
    pod = pod_of(rendered, kind)
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


def test_pods_that_use_the_volume_share_a_node(rendered: Rendered) -> None:
    (term,) = pod_of(rendered)["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert pod_of(rendered, "Pod")["affinity"]["podAffinity"] == {
        "requiredDuringSchedulingIgnoredDuringExecution": [term]
    }
    (expression,) = term["labelSelector"]["matchExpressions"]
    template = rendered["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    for labels in (template["metadata"]["labels"], rendered["Pod"]["metadata"]["labels"]):
        assert labels[expression["key"]] in expression["values"]  # one that matches no other pod may go anywhere


def test_a_retry_never_hides_what_went_wrong(rendered: Rendered) -> None:
    spec = rendered["CronJob"]["spec"]
    assert (spec["concurrencyPolicy"], pod_of(rendered)["restartPolicy"]) == ("Forbid", "Never")
    fail, ignore = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    permanent = set(ExitCode) - {ExitCode.OK, ExitCode.PROBLEMS_FOUND, ExitCode.UNAVAILABLE, ExitCode.TRY_LATER}
    assert fail["onExitCodes"] == {"operator": "In", "values": sorted(permanent)}
    assert ignore["onPodConditions"][0]["type"] == "DisruptionTarget"


def test_a_stopped_pod_has_time_for_the_call_under_way(rendered: Rendered) -> None:
    assert pod_of(rendered)["terminationGracePeriodSeconds"] >= float(DECLARATIONS["READ_TIMEOUT"].default or 0) + 30


def test_the_container_of_the_pod_does_the_job(
    rendered: Rendered, proctor: EmbeddedProctor, engine: Engine, directory: Path, tmp_path: Path
) -> None:
    pod = pod_of(rendered)
    (container,) = pod["containers"]
    security = pod["securityContext"]
    output = tmp_path / "output"
    output.mkdir()
    output.chmod(0o2770)
    shutil.chown(output, 0, security["fsGroup"])
    secrets = directory / "job" / "secrets"
    for file in secrets.iterdir():
        file.chmod(next(volume["secret"]["defaultMode"] for volume in pod["volumes"] if "secret" in volume))
        shutil.chown(file, 0, security["fsGroup"])
    directories = {"output": output, "secrets": secrets}
    mounts = [
        f"-v={directories[mount['name']]}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"
        for mount in container["volumeMounts"]
    ]
    variables = rendered["ConfigMap"]["data"] | {entry["name"]: entry["value"] for entry in container["env"]}
    restrictions = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"]
    user = [f"--user={security['runAsUser']}:{security['runAsGroup']}", f"--group-add={security['fsGroup']}"]
    memory = f"--memory={container['resources']['limits']['memory'].removesuffix('i').lower()}"
    environment = [f"-e={name}={value}" for name, value in variables.items()]
    result = engine.docker("run", "--rm", *restrictions, *user, memory, *mounts, *environment, IMAGE)
    assert result.returncode == 0, result.stderr
    (csv_path,) = output.glob("*.csv")
    assert sorted(ids(csv_path.read_bytes())) == sorted(expired(proctor))
    assert len(expired(proctor)) == 250
