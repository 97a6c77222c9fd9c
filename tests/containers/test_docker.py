"""The image, run by a real engine: `docker run` as its users do it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import __version__
from tests.containers.engine import IMAGE, UID, Engine
from tests.containers.secrets import plain, write_secrets
from tests.embedded import EmbeddedProctor
from tests.promise import holds
from tests.support import ROOT, expired, ids, ids_in

HARDENED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]


@pytest.fixture
def env_file(tmp_path: Path, proctor: EmbeddedProctor) -> list[str]:
    """The settings that are not secret, as `--env-file`."""
    path = tmp_path / ".env"
    path.write_text("".join(f"{name}={value}\n" for name, value in plain(proctor.settings()).items()))
    return ["--env-file", str(path)]


@pytest.fixture
def secrets(tmp_path: Path, proctor: EmbeddedProctor) -> list[str]:
    """The secrets as files in /run/secrets."""
    return ["-v", f"{write_secrets(tmp_path / 'secrets', proctor)}:/run/secrets:ro"]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    directory = tmp_path / "output"
    directory.mkdir(mode=0o700)
    subprocess.run(["chown", f"{UID}:{UID}", directory], check=True)
    return directory


@pytest.fixture
def named_volume(engine: Engine, tmp_path: Path) -> Iterator[str]:
    name = f"force-submit-{os.getpid()}-{tmp_path.name}"
    yield name
    engine.docker("volume", "rm", "-f", name)


def test_stdout_redirected_to_a_file_is_the_csv(
    engine: Engine, proctor: EmbeddedProctor, env_file: list[str], secrets: list[str]
) -> None:
    result = engine.docker("run", "--rm", *HARDENED, *env_file, *secrets, IMAGE)
    assert result.returncode == 0, result.stderr
    assert sorted(ids(result.stdout)) == sorted(expired(proctor))
    assert len(expired(proctor)) == 250


def test_a_volume_gets_the_csv_and_its_summary(
    engine: Engine, proctor: EmbeddedProctor, env_file: list[str], secrets: list[str], output: Path
) -> None:
    volume = ["-v", f"{output}:/output", "-e", "OUTPUT_DIR=/output"]
    result = engine.docker("run", "--rm", *HARDENED, *env_file, *secrets, *volume, IMAGE)
    assert result.returncode == 0, result.stderr
    assert result.stdout == b""
    (csv_path,) = output.glob("*.csv")
    assert sorted(ids(csv_path.read_bytes())) == sorted(expired(proctor))
    assert json.loads(csv_path.with_suffix(".json").read_text())["outcome"] == "drained"
    assert (csv_path.stat().st_uid, csv_path.stat().st_mode & 0o007) == (UID, 0)


def test_the_container_may_run_as_the_operator(
    engine: Engine, proctor: EmbeddedProctor, env_file: list[str], secrets: list[str], output: Path, tmp_path: Path
) -> None:
    operator = UID + 1
    for name in "secrets", "output":
        subprocess.run(["chown", "-R", f"{operator}:{operator}", tmp_path / name], check=True)
        (tmp_path / name).chmod(0o700)
    job = ["--user", f"{operator}:{operator}", *HARDENED, *env_file, *secrets, "-v", f"{output}:/output"]
    result = engine.docker("run", "--rm", *job, "-e", "OUTPUT_DIR=/output", IMAGE)
    assert result.returncode == 0, result.stderr
    (csv_path,) = output.glob("*.csv")
    assert sorted(ids(csv_path.read_bytes())) == sorted(expired(proctor))
    assert csv_path.stat().st_uid == operator


def test_a_volume_that_may_not_be_written_is_reported_before_anything_is_expired(
    engine: Engine, proctor: EmbeddedProctor, env_file: list[str], secrets: list[str], tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir(mode=0o755)
    volume = ["-v", f"{foreign}:/output", "-e", "OUTPUT_DIR=/output"]
    result = engine.docker("run", "--rm", *HARDENED, *env_file, *secrets, *volume, IMAGE)
    assert result.returncode == 74
    assert f"user {UID}".encode() in result.stderr
    assert b"Traceback" not in result.stderr
    assert proctor.token_requests == 0
    assert proctor.record == []


@pytest.mark.parametrize("command", [[], ["check"], ["standby"]])
@pytest.mark.parametrize(
    "mount", [[], ["--read-only"], ["--tmpfs", f"/output:uid={UID}"]], ids=lambda m: "".join(m[:1])
)
def test_an_output_that_would_be_deleted_with_the_container_is_refused_before_anything_is_expired(
    engine: Engine,
    proctor: EmbeddedProctor,
    env_file: list[str],
    secrets: list[str],
    mount: list[str],
    command: list[str],
) -> None:
    job = [*env_file, *secrets, "-e", "OUTPUT_DIR=/output", *mount, IMAGE, *command]
    result = engine.docker("run", "--rm", *job)
    assert result.returncode == 74
    assert b"would be deleted with this container" in result.stdout + result.stderr
    assert proctor.record == []


def test_a_named_volume_keeps_the_csv_after_the_container(
    engine: Engine, proctor: EmbeddedProctor, env_file: list[str], secrets: list[str], named_volume: str
) -> None:
    volume = ["-v", f"{named_volume}:/output", "-e", "OUTPUT_DIR=/output"]
    result = engine.docker("run", "--rm", *HARDENED, *env_file, *secrets, *volume, IMAGE)
    assert result.returncode == 0, result.stderr
    shown = engine.docker("run", "--rm", "--entrypoint=sh", *volume, IMAGE, "-c", "cat /output/*.csv").stdout
    assert sorted(ids(shown)) == sorted(expired(proctor))


def test_docker_stop_lets_the_call_under_way_finish(
    engine: Engine, proctor: EmbeddedProctor, env_file: list[str], secrets: list[str], output: Path
) -> None:
    proctor.scenario.faults = ["ok", "hold"]
    volume = ["-v", f"{output}:/output", "-e", "OUTPUT_DIR=/output"]
    container = engine.start(*HARDENED, *env_file, *secrets, *volume, IMAGE)
    assert proctor.held.wait(60)
    with engine.signals(container) as signals:
        stopping = subprocess.Popen(["docker", "stop", "-t", "300", container], stdout=subprocess.DEVNULL)
        assert "15" in next(signals)
        proctor.release.set()
        assert stopping.wait(60) == 0
    assert engine.inspect(container)["State"]["ExitCode"] == 128 + 15
    (csv_path,) = output.glob("*.csv")
    assert sorted(ids(csv_path.read_bytes())) == sorted(expired(proctor))
    assert len(proctor.record) == 2
    assert json.loads(csv_path.with_suffix(".json").read_text())["outcome"] == "interrupted"


def test_a_killed_container_is_recovered_by_the_next_one(
    engine: Engine, proctor: EmbeddedProctor, env_file: list[str], secrets: list[str], output: Path
) -> None:
    proctor.scenario.faults = ["ok", "hold"]
    volume = ["-v", f"{output}:/output", "-e", "OUTPUT_DIR=/output"]
    timeouts = ["-e", "READ_TIMEOUT=20", "-e", "CONNECT_TIMEOUT=2"]  # the next one waits as long as both
    job = [*HARDENED, *env_file, *secrets, *volume, *timeouts, IMAGE]
    container = engine.start(*job)
    assert proctor.held.wait(60)
    engine.docker("kill", container)
    proctor.release.set()
    assert engine.docker("run", "--rm", *job).returncode == 65  # what the killed one lost must not go unseen
    killed, following = sorted(output.glob("*.csv"))
    first, lost, last = proctor.record
    assert sorted(ids(killed.read_bytes())) == sorted(first["expired"])
    assert sorted(ids(following.read_bytes())) == sorted(last["expired"])
    summary = json.loads(killed.with_suffix(".json").read_text())
    assert summary["outcome"] == "killed"
    (window,) = summary["lost"]
    assert holds(window, lost["changed"])


def test_the_exams_of_a_lost_response_are_recovered_by_docker_run(
    engine: Engine, proctor: EmbeddedProctor, env_file: list[str], secrets: list[str], output: Path
) -> None:
    proctor.scenario.faults = ["reset-after"]
    volume = ["-v", f"{output}:/output"]
    limits = ["-e", "READ_TIMEOUT=1", "-e", "MAX_WAIT=0"]
    job = [*HARDENED, *env_file, *secrets, *volume, *limits, "-e", "OUTPUT_DIR=/output", IMAGE]
    assert engine.docker("run", "--rm", *job).returncode == 65
    assert engine.docker("run", "--rm", *volume, IMAGE, "history", "/output").returncode == 1
    query = engine.docker("run", "--rm", "-i", *volume, IMAGE, "recover", "/output")
    assert b"FROM exam.exam_event" in query.stdout

    (output / "found.tsv").write_text(proctor.found(proctor.record[0]))
    found = ["recover", "/output", "--found", "/output/found.tsv", "--unverified"]
    while engine.docker("run", "--rm", "-i", *volume, IMAGE, *found).returncode == 75:
        pass  # the window ends READ_TIMEOUT after the loss
    assert ids_in(output) == sorted(expired(proctor))
    assert engine.docker("run", "--rm", *volume, IMAGE, "history", "/output").returncode == 0


def test_check_reads_well_in_a_container(
    engine: Engine, proctor: EmbeddedProctor, env_file: list[str], secrets: list[str]
) -> None:
    result = engine.docker("run", "--rm", *HARDENED, *env_file, *secrets, IMAGE, "check")
    assert result.returncode == 0, result.stdout
    assert result.stdout.decode().count("\nok ") == 4
    assert b"[/run/secrets/auth_password]" in result.stdout
    assert proctor.record == []


def test_an_image_built_from_a_clone_with_a_strict_umask_works(engine: Engine, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "app", clone / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Dockerfile", ".dockerignore", "requirements.txt"):
        shutil.copy(ROOT / name, clone)
    subprocess.run(["chmod", "-R", "go=", clone], check=True)
    tag = f"{IMAGE}-strict-{os.getpid()}"
    built = engine.docker("build", "-q", "-t", tag, str(clone))
    assert built.returncode == 0, built.stderr
    result = engine.docker("run", "--rm", tag, "--version")
    engine.docker("image", "rm", tag)
    assert (result.returncode, result.stdout.decode().strip()) == (0, __version__), result.stderr


def test_the_image_holds_no_secret_and_no_more_than_the_program(engine: Engine, image: str) -> None:
    config = engine.inspect(image)["Config"]
    assert config["User"] == f"{UID}:{UID}"
    assert config["Entrypoint"] == ["python", "-m", "app"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    listing = engine.docker("run", "--rm", "--entrypoint", "find", image, "/opt/force-submit", "-maxdepth", "2")
    names = {Path(line).name for line in listing.stdout.decode().splitlines()}
    assert {"app", "packages", "requests", "tenacity", "dotenv"} <= names
    assert not names & {"tests", ".git", ".env", "pip", "secrets", "bin"}


def test_the_image_adds_twelve_megabytes_at_most(engine: Engine, image: str) -> None:
    layers = engine.docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image)
    own = [line.split(" ", 1) for line in layers.stdout.decode().splitlines() if "buildkit" in line]
    assert 0 < sum(int(size) for size, _ in own) <= 12_000_000


def test_the_bytecode_in_the_image_is_used(engine: Engine, image: str) -> None:
    script = (
        "import sys, pathlib, app.simulator, app.commands.standby, requests, tenacity, dotenv;"
        "print([m.__name__ for m in sys.modules.values() if (getattr(m, '__file__', None) or '').startswith('/opt')"
        " and m.__file__.endswith('.py') and not pathlib.Path(m.__cached__).exists()])"
    )
    result = engine.docker("run", "--rm", "--entrypoint", "python", image, "-c", script)
    assert result.stdout == b"[]\n", result.stderr
