"""Files that are whole or not there, written beside their place, then moved to it; and folders that are gone when nobody uses them."""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nightly.outcomes import NightlyError

#: The file in a scratch folder that the process which uses it holds locked.
IN_USE = ".nightly-in-use"


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
                former = place.stat()
                with contextlib.suppress(PermissionError):  # root alone gives files away
                    os.fchown(descriptor, former.st_uid, former.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(former.st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, place)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def scratch_folder(parent: str | Path, prefix: str) -> Iterator[Path]:
    """A folder for temporary files; it is gone afterwards, and so are those of this kind whose process was killed.

    Raises:
        NightlyError: it cannot be made.
    """
    sweep(parent, prefix)
    with contextlib.ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)))
            mark = stack.enter_context(open(folder / "new", "wb"))
            with contextlib.suppress(OSError):  # where nothing can be locked, nothing is swept either
                fcntl.flock(mark, fcntl.LOCK_EX)
            os.rename(folder / "new", folder / IN_USE)  # it is locked by the time that it can be seen
        except OSError as error:
            raise NightlyError(f"no folder for temporary files can be made in {parent}: {error.strerror}") from None
        yield folder


def sweep(parent: str | Path, prefix: str) -> None:
    """Remove the scratch folders of processes of this user that are gone: the system has freed their locks."""
    for folder in Path(parent).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.geteuid():
                with open(folder / IN_USE, "r+b") as mark:
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
