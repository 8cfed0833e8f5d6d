"""Surroundings in which the suite must give one answer: processors, allocators, Python's options, folders, users.

``python -m ao.sparsity.testing.play --conditions`` runs the root runner in each of them, in a process of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from ao.sparsity.testing.child import TO_BE_READ
from ao.sparsity.testing.tried import parse

ROOT = pathlib.Path(__file__).resolve().parents[3]
RUNNER = "test_ao_sparsity.py"
_CUSTOMIZED = ROOT / "ao/sparsity/testing/customized"
PLAYER = ("-m", "ao.sparsity.testing.play")
# In a mount namespace, so that nobody else is touched; the program follows as arguments.
_WITHOUT_SHARED_MEMORY = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && exec "$@"', "sh")

# Packages that torch, its test tools or the suite use where they find them; NumPy and expecttest are required.
EXTRAS = ("coverage", "hypothesis", "lightning", "optree", "psutil", "pytest", "pytorch_lightning", "scipy", "triton", "xmlrunner")

_MAY_READ = "+dac_read_search"  # an interpreter that is closed to others


def _as_user(number: int) -> tuple[str, ...]:
    """A command that runs the command after it as that user, who may read everything and writes where anybody may."""
    return ("setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups", f"--inh-caps={_MAY_READ}", f"--ambient-caps={_MAY_READ}")


# What root may do nevertheless does not count.
_IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
_WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if _IS_ROOT else ()


class CannotPlay(Exception):
    """This machine or user cannot be put into that state; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Surrounding:
    """What is different: environment variables, Python's options, a program in front, the checkout, the working directory.

    Attributes:
        environment: variables that are set.
        python: options of the interpreter.
        front: a command that runs the command after it.
        play: options of the player, which then runs the runner.
        checkout: a context manager that yields the project's root, a copy for one.
        folder: a context manager that yields the working directory; it is given the project's root.
        prepare: called in the child process before the interpreter starts.
        bare: the environment holds nothing but ``environment``, the default PATH and where this interpreter finds its packages.
    """

    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    python: tuple[str, ...] = ()
    front: tuple[str, ...] = ()
    play: tuple[str, ...] = ()
    checkout: Callable[[], contextlib.AbstractContextManager[pathlib.Path]] | None = None
    folder: Callable[[pathlib.Path], contextlib.AbstractContextManager[pathlib.Path]] | None = None
    prepare: Callable[[], None] | None = None
    bare: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended; the numbers are unittest's, ``wrong`` are failures, errors and unexpected successes."""

    status: int
    ran: int
    known: int
    skipped: int
    wrong: int
    seconds: float
    output: str

    def __str__(self) -> str:
        return f"{self.status:6} {self.ran:6} {self.known:6} {self.skipped:8} {self.wrong:6} {self.seconds:8.1f}"


@contextlib.contextmanager
def _copy(*names: str) -> Iterator[pathlib.Path]:
    """A copy of the suite in a folder below ``names``."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = pathlib.Path(folder, *names)
        shutil.copytree(ROOT / "ao", root / "ao", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / RUNNER, root)
        yield root


@contextlib.contextmanager
def _read_only_copy() -> Iterator[pathlib.Path]:
    with _copy("checkout") as root:
        paths = [root, *root.rglob("*")]
        for path in paths:
            path.chmod(path.stat().st_mode & ~0o222)
        try:
            yield root
        finally:
            for path in paths:
                path.chmod(path.stat().st_mode | 0o200)


@contextlib.contextmanager
def _elsewhere(root: pathlib.Path) -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield pathlib.Path(folder)


@contextlib.contextmanager
def _busy(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder in which another program makes and removes files all the time."""
    stop = threading.Event()

    def write(folder: pathlib.Path) -> None:
        for number in itertools.count():
            path = folder / f"foreign{number % 7}.txt"
            path.unlink() if path.exists() else path.write_text("x", encoding="utf-8")
            if stop.wait(0.002):
                return

    with _elsewhere(root) as folder:
        writer = threading.Thread(target=write, args=(folder,))
        writer.start()
        try:
            yield folder
        finally:
            stop.set()
            writer.join()


def _few_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _ends_untold() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _on_path(folder: str | pathlib.Path, path: str | None) -> str:
    """A value of PYTHONPATH: the folder, then those of ``path``, if any; an empty part would be the folder in which a run starts."""
    return os.pathsep.join([str(folder), *filter(None, [path])])


def _variables(**environment: str) -> Surrounding:
    return Surrounding(environment=environment)


SURROUNDINGS: dict[str, Surrounding] = {
    "as it is": Surrounding(),
    "kernels of torch: default": _variables(ATEN_CPU_CAPABILITY="default"),
    "kernels of torch: avx2": _variables(ATEN_CPU_CAPABILITY="avx2"),
    "kernels of FBGEMM: AVX2": _variables(FBGEMM_ENABLE_INSTRUCTIONS="AVX2"),
    "oneDNN off": Surrounding(play=("--without-onednn",)),
    "allocator: freed memory is filled": _variables(MALLOC_PERTURB_="165"),
    "allocator: every block is mapped": _variables(MALLOC_MMAP_THRESHOLD_="64"),
    "allocator: no cache for threads": _variables(GLIBC_TUNABLES="glibc.malloc.tcache_count=0"),
    "1 thread": _variables(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"),
    "4 threads": _variables(OMP_NUM_THREADS="4", MKL_NUM_THREADS="4"),
    "1 core": Surrounding(prepare=_one_core),
    "python -O": Surrounding(python=("-O",)),
    "python -OO": Surrounding(python=("-OO",)),
    "python -W error": Surrounding(python=("-W", "error")),
    "python -I": Surrounding(python=("-I",)),
    "python -X dev": Surrounding(python=("-X", "dev")),
    "requirements alone": Surrounding(play=("--without", ",".join(EXTRAS))),
    "optional packages that cannot be imported": Surrounding(play=("--broken", ",".join(EXTRAS))),
    "packages on PYTHONPATH alone": Surrounding(python=("-S",), environment={"PYTHONPATH": os.pathsep.join(sys.path[1:])}),
    "PYTHONHASHSEED=0": _variables(PYTHONHASHSEED="0"),
    "PYTHONHASHSEED=4242": _variables(PYTHONHASHSEED="4242"),
    "CI=1": Surrounding(environment={"CI": "1"}, folder=_elsewhere),
    "TorchScript off": _variables(PYTORCH_JIT="0"),
    "the compiler off": _variables(TORCHDYNAMO_DISABLE="1"),
    "torch is set otherwise for all programs": _variables(PYTHONPATH=_on_path(_CUSTOMIZED, os.environ.get("PYTHONPATH"))),
    "compiled code is kept in a folder that cannot be made": _variables(TORCHINDUCTOR_CACHE_DIR=os.path.join(os.devnull, "cache")),
    "loads of weights only": _variables(TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"),
    "slow tests alone": _variables(PYTORCH_TEST_WITH_SLOW="1", PYTORCH_TEST_SKIP_FAST="1"),
    "loads of anything": _variables(TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1"),
    "torch tells much": _variables(
        TORCH_SHOW_CPP_STACKTRACES="1", TORCH_CPP_LOG_LEVEL="INFO", TORCH_DISTRIBUTED_DEBUG="DETAIL", ONEDNN_VERBOSE="1"
    ),
    "LANG=C": _variables(LANG="C", LC_ALL="C"),
    "TZ=Pacific/Kiritimati": _variables(TZ="Pacific/Kiritimati"),
    "empty environment": Surrounding(bare=True),
    "another working directory": Surrounding(folder=_elsewhere),
    "a busy working directory": Surrounding(folder=_busy),
    "ends of children are not told": Surrounding(prepare=_ends_untold),
    "a path with spaces and umlauts": Surrounding(checkout=functools.partial(_copy, "ein Ördner für Tests")),
    "a folder named test": Surrounding(checkout=functools.partial(_copy, "test")),
    "a checkout that is read-only": Surrounding(checkout=_read_only_copy, front=_WITHOUT_PRIVILEGES),
    "an unprivileged user": Surrounding(front=_as_user(65534), checkout=functools.partial(_copy, "checkout"), folder=_elsewhere),
    "a user without a name": Surrounding(bare=True, front=_as_user(54321), folder=_elsewhere),
    "no network": Surrounding(front=("unshare", "--net")),
    "no /dev/shm": Surrounding(front=_WITHOUT_SHARED_MEMORY),
    "no standard input or output": Surrounding(front=("sh", "-c", 'exec "$@" <&- >&-', "sh")),
    "ulimit -n 64": Surrounding(prepare=_few_files, environment={"CUDA_VISIBLE_DEVICES": ""}),  # CUDA opens more files than that
}


def together(names: Iterable[str]) -> Surrounding:
    """Several of SURROUNDINGS at once; of what only one can be (the checkout, the folder), the last one counts."""
    environment: dict[str, str] = {}
    changes: dict[str, object] = {"python": (), "front": (), "play": ()}
    for name in names:
        chosen = SURROUNDINGS[name]
        environment |= chosen.environment
        for field in dataclasses.fields(chosen):
            value = getattr(chosen, field.name)
            if field.name in ("python", "front", "play"):
                changes[field.name] += value  # type: ignore[operator]
            elif field.name != "environment" and value:
                changes[field.name] = value
    return Surrounding(environment=environment, **changes)  # type: ignore[arg-type]


def run(surrounding: Surrounding, arguments: Iterable[str] = (), timeout: float = 1200) -> Outcome:
    """Run the root runner there, in a process of its own.

    Args:
        surrounding: what is different.
        arguments: arguments of the root runner.
        timeout: seconds after which the process is killed.

    Raises:
        CannotPlay: where this machine or user cannot be put into that state.
    """
    _check(surrounding)
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(surrounding.checkout()) if surrounding.checkout else ROOT
        folder = stack.enter_context(surrounding.folder(root)) if surrounding.folder else root
        start = (*PLAYER, *surrounding.play, "--") if surrounding.play else (str(root / RUNNER),)
        command = [*surrounding.front, sys.executable, *surrounding.python, *start, *arguments]
        environment = _bare() if surrounding.bare else {**os.environ, **TO_BE_READ}
        environment |= surrounding.environment
        if surrounding.play:
            environment["PYTHONPATH"] = _on_path(root, environment.get("PYTHONPATH"))
        started = time.monotonic()
        process = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            preexec_fn=surrounding.prepare,
        )
        seconds = time.monotonic() - started
    return _outcome(process.returncode, process.stdout.decode(errors="replace"), seconds)


def _bare() -> dict[str, str]:
    return {"PATH": os.defpath} | {name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}


def _check(surrounding: Surrounding) -> None:
    if sys.platform == "win32" and surrounding.prepare:
        raise CannotPlay("not on Windows")
    if surrounding.prepare is _one_core and not hasattr(os, "sched_setaffinity"):
        raise CannotPlay("cores cannot be chosen here")
    if surrounding.front:
        probe = [*surrounding.front, "true"]
        if shutil.which(surrounding.front[0]) is None or subprocess.run(probe, capture_output=True).returncode:
            raise CannotPlay(f"{surrounding.front[0]} is not there or not allowed")


def _outcome(status: int, output: str, seconds: float) -> Outcome:
    try:
        numbers = parse(output)
    except ValueError:
        numbers = dict.fromkeys(("ran", "known", "skipped", "wrong"), 0)
    return Outcome(status=status, seconds=seconds, output=output, **numbers)


def table(names: Iterable[str], arguments: Iterable[str] = ()) -> Iterator[tuple[str, int]]:
    """Play these SURROUNDINGS in turn; yields a line of the table and the exit status of each, the head of the table first."""
    chosen = list(names)
    width = max(map(len, chosen), default=0)
    yield f"{'':{width}}  status    ran  known  skipped  wrong  seconds", 0
    for name in chosen:
        try:
            outcome = run(SURROUNDINGS[name], arguments)
        except CannotPlay as reason:
            yield f"{name:{width}}  not played: {reason}", 0
            continue
        yield f"{name:{width}}  {outcome}", outcome.status
        if outcome.status:
            yield outcome.output, 0
