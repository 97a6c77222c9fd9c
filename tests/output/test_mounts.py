"""Which directories outlive a container, by mount tables as real engines write them."""

from pathlib import Path

import pytest

from app.exceptions import OutputFailed
from app.output.mounts import IN_IMAGE, Mount, is_ephemeral, mount_of, refuse_ephemeral

ROOT = "523 411 0:64 / / rw,relatime master:215 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/d,workdir=/w"
PROC = "524 523 0:66 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw"
VOLUME = "540 523 254:1 /lib/docker/volumes/output/_data /output rw,relatime master:1 - ext4 /dev/vda1 rw"
BIND = "541 523 254:1 /home/operator/my\\040output /output rw,relatime - ext4 /dev/vda1 rw"
NFS = "542 523 0:71 / /output rw,relatime - nfs4 server:/export rw,vers=4.2"
TMPFS = "543 523 0:72 / /output rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=65536k"
TMP_OF_THE_HOST = "544 523 0:36 /output /output rw,nosuid,nodev - tmpfs tmpfs rw"
NESTED = "545 523 0:64 /srv /output rw,relatime - overlay overlay rw,lowerdir=/l/C,upperdir=/e,workdir=/x"


def table(*lines: str) -> str:
    return "".join(f"{line}\n" for line in (ROOT, PROC, *lines))


@pytest.mark.parametrize("line", [VOLUME, BIND, NFS, TMP_OF_THE_HOST, NESTED])
@pytest.mark.parametrize("directory", ["/output", "/output/site/a"])
def test_what_is_mounted_from_elsewhere_outlives_the_container(line: str, directory: str) -> None:
    assert not is_ephemeral(mount_of(Path(directory), table(line)))


@pytest.mark.parametrize("directory", ["/output", "/", "/outputs", "/out"])
def test_a_directory_of_the_root_file_system_does_not(directory: str) -> None:
    mount = mount_of(Path(directory), table(VOLUME.replace("/output", "/output/site")))
    assert mount == Mount("/", "/", "overlay")
    assert is_ephemeral(mount)


def test_memory_made_for_the_container_does_not() -> None:
    assert is_ephemeral(mount_of(Path("/output"), table(TMPFS)))


def test_of_two_mounts_at_one_point_the_later_one_counts() -> None:
    assert is_ephemeral(mount_of(Path("/output"), table(VOLUME, TMPFS)))
    assert not is_ephemeral(mount_of(Path("/output"), table(TMPFS, VOLUME)))


def test_names_with_spaces_are_understood() -> None:
    mount = mount_of(Path("/my output/site"), table(BIND.replace(" /output", " /my\\040output")))
    assert mount == Mount("/home/operator/my output", "/my output", "ext4")


def test_outside_the_image_every_directory_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IN_IMAGE, raising=False)
    refuse_ephemeral(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="the image is a Linux one")
def test_the_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IN_IMAGE, "true")
    with pytest.raises(OutputFailed, match=r"Mount a volume .* redirect stdout\."):
        refuse_ephemeral(Path("/"))
