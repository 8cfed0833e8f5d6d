"""An accelerator for machines that have none: tests that run on every device then run, with values, on a second device.

It is PyTorch's PrivateUse1 backend under the name ``stand_in``. Its memory is the host's and its kernels are the CPU's, but as on a
GPU a tensor of another device with dimensions is refused. The C++ source beside this file is built by torch.utils.cpp_extension the
first time (about half a minute) and kept in the user's cache for this torch, this Python and this source.

    python -m ao.sparsity.testing.play --device stand-in -- -k accelerator
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
import types
import typing

import torch

from ao.sparsity.testing.preflight import version_tuple

NAME = "stand_in"  # the device's type: torch.device("stand_in")
SOURCE = pathlib.Path(__file__).with_name("stand_in.cpp")
FLAGS = ["-O0"]  # it is built more often than it computes

_loaded = False


class CannotBuild(RuntimeError):
    """The stand-in cannot be built here; the message says what is missing."""


def missing() -> str | None:
    """What is missing to build the stand-in, ``"a C++ compiler"`` for one, or None."""
    if sys.platform == "win32":
        return "a platform other than Windows"
    if version_tuple(torch.__version__) < (2, 6):
        return "torch 2.6 or newer"
    try:
        from torch.utils import cpp_extension
    except ImportError as error:
        return f"setuptools ({error})"
    if not any(pathlib.Path(folder, "ATen", "ATen.h").exists() for folder in cpp_extension.include_paths()):
        return "torch's C++ headers"
    if shutil.which(cpp_extension.get_cxx_compiler()) is None:
        return "a C++ compiler"
    with _tools_beside_python():
        return None if cpp_extension.is_ninja_available() else "ninja"


@contextlib.contextmanager
def _tools_beside_python() -> typing.Iterator[None]:
    """What pip installed beside the interpreter, ninja for one, is found, whether or not its environment was activated."""
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join((path, str(pathlib.Path(sys.executable).parent)))
    try:
        yield
    finally:
        os.environ["PATH"] = path


def load() -> str:
    """Build the stand-in unless that was done, and register it in this process, which sees no GPU from then on.

    A GPU that torch has found could not be used by a fork of this process, not even by the threads that compute gradients.

    Returns:
        str: the type of the device, NAME.

    Raises:
        CannotBuild: if something is missing, or the compiler refuses.
    """
    global _loaded
    if not _loaded:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        torch.utils.rename_privateuse1_backend(NAME)
        library = _folder() / f"{NAME}.so"
        if library.exists():
            torch.ops.load_library(library)
        else:
            _build(library)
        torch._register_device_module(NAME, _device_module())
        _loaded = True
    return NAME


def _folder() -> pathlib.Path:
    """Where this build of the stand-in is kept: in the user's cache, or where that cannot be written to, among temporary files."""
    torch_build = f"{torch.__version__} {torch.version.git_version} {sys.implementation.cache_tag} {FLAGS}"
    key = hashlib.sha256(torch_build.encode() + SOURCE.read_bytes()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(cache, "ao-sparsity", f"stand-in-{key}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = pathlib.Path(tempfile.gettempdir(), f"ao-sparsity-{os.getuid()}", f"stand-in-{key}")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _build(library: pathlib.Path) -> None:
    """Build and load the library, then put it in its place at once; two processes that do so do not meet."""
    what = missing()
    if what is not None:
        raise CannotBuild(f"the stand-in accelerator cannot be built without {what}")
    from torch.utils import cpp_extension

    folder = tempfile.mkdtemp(dir=library.parent)
    try:
        with _tools_beside_python():
            cpp_extension.load(
                NAME,
                [str(SOURCE)],
                build_directory=folder,
                is_python_module=False,
                with_cuda=False,
                extra_cflags=FLAGS,
                extra_ldflags=["-s"],
            )
        os.replace(pathlib.Path(folder, f"{NAME}.so"), library)
    except (RuntimeError, OSError) as error:
        raise CannotBuild(f"the stand-in accelerator cannot be built: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _device_module() -> types.ModuleType:
    """What torch asks a device for: ``torch.stand_in``. Random numbers come from the CPU's generator."""
    module = types.ModuleType(f"torch.{NAME}")
    vars(module).update(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        set_device=lambda device: None,
        device=contextlib.nullcontext,
        synchronize=lambda device=None: None,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,
    )
    return module
