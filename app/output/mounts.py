"""Whether a directory outlives the container that the job runs in.

In the image, OUTPUT_DIR is only useful where a volume is mounted: the container's own root file system is
deleted with the container, and the CSVs of exams that can never be expired again with it.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from app.exceptions import OutputFailed

IN_IMAGE = "FORCE_SUBMIT_IN_CONTAINER"
"""The environment variable that the image sets. Without it every directory is assumed to last."""

_MOUNTS = Path("/proc/self/mountinfo")
_IN_MEMORY = ("tmpfs", "ramfs")


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo, as far as it matters here."""

    root: str
    """The directory of the mounted file system that is seen at `point`; `/` for the whole of it."""
    point: str
    kind: str
    """The type of the file system, such as `ext4`, `overlay` or `tmpfs`."""


def refuse_ephemeral(directory: Path) -> None:
    """Refuse an output directory that is deleted with its container. Outside the image nothing is refused.

    Raises:
        OutputFailed: nothing is mounted there, or only memory; or the mounts cannot be read.
    """
    if not os.environ.get(IN_IMAGE):
        return
    try:
        mount = mount_of(directory.resolve(), _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError as error:
        raise OutputFailed(f"Cannot determine what is mounted at OUTPUT_DIR: {error}") from None
    if is_ephemeral(mount):
        what = "it is in memory" if mount.kind in _IN_MEMORY else "no volume is mounted there"
        raise OutputFailed(
            f"OUTPUT_DIR {str(directory)!r} would be deleted with this container: {what}. Mount a volume or a directory"
            f" of the host, such as -v force-submit:{directory}, or leave OUTPUT_DIR empty and redirect stdout."
        )


def is_ephemeral(mount: Mount) -> bool:
    """Whether a mount lasts only as long as its container.

    Memory that is mounted as a whole (`--tmpfs`, an emptyDir of medium Memory) was made for the container or pod. A
    directory within one, such as a bind mount from a host whose /tmp is in memory, belongs to the host.
    """
    return mount.point == "/" or (mount.kind in _IN_MEMORY and mount.root == "/")


def mount_of(path: Path, mountinfo: str) -> Mount:
    """The mount that holds an absolute path without symbolic links (proc_pid_mountinfo(5) describes the format)."""
    found = Mount("/", "/", "")
    for line in mountinfo.splitlines():
        mount = _parse(line)
        # Of two mounts at one point, the later one hides the earlier one.
        if path.is_relative_to(mount.point) and len(mount.point) >= len(found.point):
            found = mount
    return found


def _parse(line: str) -> Mount:
    fields, _, rest = line.partition(" - ")
    root, point = (_unescape(field) for field in fields.split(" ")[3:5])
    return Mount(root, point, rest.split(" ")[0])


def _unescape(field: str) -> str:
    """Spaces, tabs, line breaks and backslashes are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
