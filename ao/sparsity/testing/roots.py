"""Debian's builds of PyTorch: make a root of a suite and an architecture, and run this project's suite in it.

    python -m ao.sparsity.testing.roots trixie amd64
    python -m ao.sparsity.testing.roots trixie s390x -- -v -k TestFPGMPruner
    python -m ao.sparsity.testing.roots sid ppc64el --record
    python -m ao.sparsity.testing.roots sid amd64 --conditions
    python -m ao.sparsity.testing.roots sid amd64 --make='--aptopt=Acquire::Check-Valid-Until "false"'  # from a mirror that stands still

It needs mmdebstrap, and for another processor than this one qemu-user-static. Packages are unpacked and not configured, so that
nothing is emulated before the suite is. It works with and without binfmt_misc: the emulator is named, and processes that Python
starts in the root get it, too. A root stays in ``--folder`` and is used again.

It stands beside the record of tried builds, of which it makes rows; the nightly job takes interpreters, and a root has one only in
its own terms.
"""

import argparse
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import typing

from ao.sparsity.testing import tried
from ao.sparsity.testing.preflight import CANNOT_VALIDATE

PROJECT = pathlib.Path(__file__).resolve().parents[3]
FOLDER = pathlib.Path("/var/tmp/ao-sparsity-roots")
MIRROR = "http://deb.debian.org/debian"
PACKAGES = "python3-torch,python3-setuptools,python3-expecttest"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le", "riscv64": "riscv64", "s390x": "s390x"}  # Debian's name: uname's

PYTHON = "/usr/bin/python3"
PROCESSORS = {"arm64": "neoverse-n1"}  # qemu's own choice has vectors and signed pointers that take it minutes to import torch

# Libraries that Debian links by update-alternatives, when a package is configured.
ALTERNATIVES = ("blas/libblas.so.3", "lapack/liblapack.so.3")

# In a namespace of mounts, so that nothing stays mounted: what a process expects to find, then the root.
ENTER = 'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && mount --rbind /sys "$0/sys" && cd / && exec chroot "$0" "$@"'


class CannotMake(RuntimeError):
    """A root cannot be made or used here; the message says what to do."""


def emulator(architecture: str) -> str | None:
    """Path of the emulator for Debian's ``architecture``, or None where the processor runs it by itself.

    Raises:
        CannotMake: if the emulator is not installed.
    """
    machine = MACHINES[architecture]
    if platform.machine() in (machine, {"aarch64": "arm64"}.get(machine)):
        return None
    path = shutil.which(f"qemu-{machine}-static")
    if path is None:
        raise CannotMake(f"qemu-{machine}-static is not installed: apt-get install qemu-user-static, then run again")
    return path


def make(suite: str, architecture: str, folder: pathlib.Path, options: typing.Sequence[str] = ()) -> pathlib.Path:
    """A root of Debian's ``suite`` with its torch, in ``folder``; made once.

    Args:
        suite: ``"trixie"`` or ``"sid"``, for two.
        architecture: a key of MACHINES.
        folder: where roots are kept.
        options: further arguments of mmdebstrap.

    Raises:
        CannotMake: if a program is missing, or mmdebstrap fails.
    """
    root = folder / f"{suite}-{architecture}"
    if root.exists():
        return root
    if shutil.which("mmdebstrap") is None:
        raise CannotMake("mmdebstrap is not installed: apt-get install mmdebstrap, then run again")
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{root.name}-{os.getpid()}"
    command = ["mmdebstrap", "--variant=extract", f"--architectures={architecture}", f"--include={PACKAGES}", *options]
    try:
        if subprocess.run([*command, suite, str(partial), MIRROR]).returncode != 0:
            raise CannotMake(f"mmdebstrap could not make {root.name}; its last lines say why")
        finish(partial, emulator(architecture))
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def finish(root: pathlib.Path, program: str | None) -> None:
    """What the packages' scripts would do, and the emulator."""
    for name in ("bin", "sbin", "lib", "lib64"):
        if not (root / name).exists() and (root / "usr" / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("proc", "dev", "sys", "tmp"):
        (root / name).mkdir(exist_ok=True)
    for name, line in (("passwd", "root:x:0:0:root:/tmp:/bin/sh"), ("group", "root:x:0:")):
        if not (root / "etc" / name).exists():
            (root / "etc" / name).write_text(line + "\n")
    for path in (path for name in ALTERNATIVES for path in root.glob(f"usr/lib/*/{name}")):
        link = path.parent.parent / path.name
        if not link.exists():
            link.symlink_to(path.relative_to(link.parent))
    if program is not None:
        shutil.copy(program, root / "usr/bin")
        packages = root / "usr/lib/python3/dist-packages"
        shutil.copy(pathlib.Path(__file__).with_name("emulated.py"), packages / "ao_emulated.py")
        (packages / "ao_emulated.pth").write_text(f"import ao_emulated; ao_emulated.start('/usr/bin/{pathlib.Path(program).name}')\n")


def run(root: pathlib.Path, architecture: str, arguments: typing.Sequence[str], **variables: str) -> int:
    """Run Python with these arguments in the root, where a fresh copy of this project is ``/suite``.

    Args:
        root: what make returns.
        architecture: a key of MACHINES.
        arguments: arguments of Python.
        variables: its environment, beside those of this process that begin with ``AO_SPARSITY_``.

    Returns:
        int: the exit status.
    """
    shutil.rmtree(root / "suite", ignore_errors=True)
    shutil.copytree(PROJECT / "ao", root / "suite" / "ao", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "test_ao_sparsity.py", root / "suite")
    program = emulator(architecture)
    front = [] if program is None else [f"/usr/bin/{pathlib.Path(program).name}", "-0", PYTHON]
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    # Emulated, a test of the compiler takes minutes; in one process nobody waits for it with a limit.
    patient = {} if program is None else {"AO_SPARSITY_ONE_PROCESS": "1"}
    if program is not None and architecture in PROCESSORS:
        patient["QEMU_CPU"] = PROCESSORS[architecture]
    ours = {name: value for name, value in os.environ.items() if name.startswith("AO_SPARSITY_")}
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", **patient, **ours, **variables}
    return subprocess.call([*namespace, "sh", "-c", ENTER, str(root), *front, PYTHON, *arguments], env=environment)


def main(argv: list | None = None) -> int:
    """Command line; returns the exit status of the suite, or 3 where there is no root to run it in."""
    parser = argparse.ArgumentParser(
        prog="python -m ao.sparsity.testing.roots",
        description="The suite on Debian's builds of PyTorch; what follows -- goes to the root runner",
    )
    parser.add_argument("suite", help="trixie, sid, ...")
    parser.add_argument("architecture", choices=sorted(MACHINES))
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER, help=f"where roots are kept ({FOLDER})")
    parser.add_argument("--make", metavar="OPTION", action="append", default=[], help="a further option of mmdebstrap; may be repeated")
    parser.add_argument("--record", action="store_true", help="record the run of the whole suite, see ao.sparsity.testing.tried")
    parser.add_argument("--conditions", action="store_true", help="a table of runs in other surroundings, see ao.sparsity.testing.play")
    argv = sys.argv[1:] if argv is None else argv
    end = argv.index("--") if "--" in argv else len(argv)
    options, arguments = parser.parse_args(argv[:end]), argv[end + 1 :]
    try:
        root = make(options.suite, options.architecture, options.folder, options.make)
        if options.conditions:
            command = ["-m", "ao.sparsity.testing.play", "--conditions", "--", *arguments]
            return run(root, options.architecture, command, PYTHONPATH="/suite")
        if not options.record:
            return run(root, options.architecture, ["/suite/test_ao_sparsity.py", *arguments])
        note = f"Debian {options.suite}" + (", emulated" if emulator(options.architecture) else "")
        record = ["-m", "ao.sparsity.testing.tried", "--record", "--to", "/suite/run.json", "--note", note, "--suite", tried.commit()]
        status = run(root, options.architecture, record, PYTHONPATH="/suite")
        tried.save([*tried.load(), *tried.load(root / "suite" / "run.json")])
        return status
    except CannotMake as error:
        print(error, file=sys.stderr)
        return CANNOT_VALIDATE


if __name__ == "__main__":
    sys.exit(main())
