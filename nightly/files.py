"""Files that are whole or not there: written beside their place, then moved to it."""

import os
import stat
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, a full disk or a kill at any moment finds the former one or the new one, never a part. Who could
    read the former one can read the new one.

    What is no ordinary file, such as ``/dev/stdout``, is written to directly; so is a file in a folder that cannot be written.

    Raises:
        OSError: it could not be written; the former file is as it was.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    place = Path(os.path.realpath(path))
    beside = place.with_name(f".{place.name[:200]}.{os.getpid()}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except PermissionError:
        if not (place.exists() and os.access(place, os.W_OK)):
            raise
        place.write_bytes(data)
        return
    try:
        with open(descriptor, "wb") as file:
            if place.exists():
                os.fchmod(descriptor, stat.S_IMODE(place.stat().st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
