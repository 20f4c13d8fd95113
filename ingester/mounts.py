"""Which file system a path lies on, by proc(5)'s mountinfo, and whether it is one of a network."""

from __future__ import annotations

from typing import Final

MOUNTINFO: Final = "/proc/self/mountinfo"
# fmt: off
NETWORK_FILE_SYSTEMS: Final = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "fhgfs", "gfs",
    "gfs2", "glusterfs", "gpfs", "lustre", "moosefs", "ncpfs", "nfs", "nfs4", "ocfs2",
    "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "wekafs",
    "fuse.beegfs", "fuse.ceph", "fuse.cephfs", "fuse.davfs2", "fuse.gcsfuse",
    "fuse.glusterfs", "fuse.goofys", "fuse.mount-s3", "fuse.rclone", "fuse.s3fs",
    "fuse.smbnetfs", "fuse.sshfs",
})
# fmt: on


def mount_type(mountinfo: str, path: str) -> str | None:
    """File system type of the mount that ``path`` (real, absolute) lies on, None if unknown.

    ``mountinfo`` is the text of proc(5)'s file of that name: the mount point is the fifth field,
    with space, tab, newline and backslash as octal escapes; the type follows a lone hyphen.
    """
    found: tuple[int, str] | None = None
    for line in mountinfo.split("\n"):  # a name may hold what else splitlines() takes for an end
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 6:
            continue
        point = _unescaped(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one is seen.
        if inside and (found is None or len(point) >= found[0]):
            found = (len(point), right.split(" ")[0])
    return found[1] if found else None


def _unescaped(field: str) -> str:
    head, *rest = field.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def read_mountinfo() -> str:
    """The mounts of this process; "" without /proc (macOS)."""
    try:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
