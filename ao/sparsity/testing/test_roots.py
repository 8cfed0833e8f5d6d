"""Tests of the roots of Debian, and of the emulation of what starts in them."""

import contextlib
import io
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from ao.sparsity.testing import roots

# A process that starts others after ao.sparsity.testing.emulated, with a shell script in place of the emulator.
STARTS = """
import importlib.util, pathlib, sys

folder = pathlib.Path(sys.argv[2])
spec = importlib.util.spec_from_file_location("ao_emulated", sys.argv[1])
emulated = importlib.util.module_from_spec(spec)
spec.loader.exec_module(emulated)
emulated.start(str(folder / "emulator"))
import multiprocessing, subprocess

print(subprocess.check_output([sys.executable, "-c", "print('python')"], text=True).strip())
print(subprocess.check_output(["cat"], input="found on the path", text=True).strip())
print(subprocess.check_output([str(folder / "script"), "a b"], text=True).strip())
print(multiprocessing.get_context("spawn").Pool(1).apply(abs, (-3,)))
try:
    subprocess.run(["no-such-program"])
except FileNotFoundError:
    print("missing")
"""


@unittest.skipUnless(sys.platform == "linux", "emulated processes (not on Linux)")
class TestEmulated(unittest.TestCase):
    """Processes that Python starts get the emulator in front, under the name and with the arguments that they would have had."""

    def test_children_are_emulated(self):
        """Python itself, a program on the path, a script and a spawned process run by the emulator; what is not there stays so."""
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder, "emulator")
            program.write_text(f'#!/bin/sh\necho "$3" >> {folder}/log\n[ "$1" = -0 ] && shift 2 && exec "$@"\n')
            script = pathlib.Path(folder, "script")
            script.write_text('#!/bin/sh -e\necho "$1!"\n')
            for path in (program, script):
                path.chmod(0o700)
            source = pathlib.Path(roots.__file__).with_name("emulated.py")
            process = subprocess.run([sys.executable, "-c", STARTS, str(source), folder], capture_output=True, text=True)
            log = pathlib.Path(folder, "log").read_text().splitlines()
        self.assertEqual(process.stdout.splitlines(), ["python", "found on the path", "a b!", "3", "missing"], process.stderr)
        self.assertEqual([os.path.basename(path) for path in log[1:3]], ["cat", "sh"])
        self.assertGreaterEqual(log.count(sys.executable), 2, log)


class TestRoots(unittest.TestCase):
    """What is missing is said in one line; a root gets what its packages' scripts would have done."""

    def test_what_is_missing_is_said(self):
        """Without mmdebstrap or the emulator: one line with the command that brings it, and exit status 3."""
        foreign = "s390x" if platform.machine() != "s390x" else "amd64"
        native = {machine: name for name, machine in roots.MACHINES.items()}.get(platform.machine(), "amd64")
        for architecture, missing in ((native, "mmdebstrap"), (foreign, "mmdebstrap")):
            with self.subTest(architecture), tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PATH=folder):
                with contextlib.redirect_stderr(io.StringIO()) as said:
                    self.assertEqual(roots.main(["trixie", architecture, "--folder", folder, "--", "-k", "x"]), 3)
                self.assertRegex(said.getvalue(), rf"^{missing} is not installed: apt-get install {missing}, then run again\n$")
        with mock.patch.dict(os.environ, PATH=""), self.assertRaisesRegex(roots.CannotMake, "apt-get install qemu-user-static"):
            roots.emulator(foreign)

    def test_what_is_run_in_the_root(self):
        """The root runner with what follows ``--``, or with --conditions the player; the status is that of the run."""
        runner, player = ["/suite/test_ao_sparsity.py"], ["-m", "ao.sparsity.testing.play", "--conditions", "--"]
        with mock.patch.object(roots, "make", return_value="root"), mock.patch.object(roots, "run", return_value=1) as run:
            for options, command in (([], runner), (["--conditions"], player)):
                self.assertEqual(roots.main(["sid", "amd64", *options, "--", "-k", "x"]), 1)
                self.assertEqual(run.call_args.args, ("root", "amd64", [*command, "-k", "x"]))

    def test_root_is_finished(self):
        """Links to /usr, the chosen BLAS, users and the start of the emulation are there, and what is there already stays."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path in ("usr/bin", "usr/lib/s390x-linux-gnu/blas", "usr/lib/python3/dist-packages", "etc", "lib"):
                (root / path).mkdir(parents=True)
            (root / "usr/lib/s390x-linux-gnu/blas/libblas.so.3").touch()
            (root / "etc/passwd").write_text("a:x:1:1::/:/bin/sh\n")
            (root / "qemu").touch()
            for _ in range(2):
                roots.finish(root, str(root / "qemu"))
            self.assertTrue((root / "usr/lib/s390x-linux-gnu/libblas.so.3").samefile(root / "usr/lib/s390x-linux-gnu/blas/libblas.so.3"))
            self.assertEqual((os.readlink(root / "bin"), (root / "lib").is_symlink()), ("usr/bin", False))
            self.assertEqual((root / "etc/passwd").read_text(), "a:x:1:1::/:/bin/sh\n")
            self.assertEqual((root / "etc/group").read_text(), "root:x:0:\n")
            packages = root / "usr/lib/python3/dist-packages"
            self.assertEqual((packages / "ao_emulated.pth").read_text(), "import ao_emulated; ao_emulated.start('/usr/bin/qemu')\n")
            self.assertTrue((packages / "ao_emulated.py").exists() and (root / "usr/bin/qemu").exists())


if __name__ == "__main__":
    unittest.main()
