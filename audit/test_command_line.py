"""The command line: what it says when it cannot run, and the finder it puts before the tests."""

import contextlib
import functools
import io
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path
from unittest import mock

from audit import __main__ as command_line
from audit import project, toy


def run(*arguments):
    """Exit status, standard output and standard error of a command."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = command_line.main(list(arguments))
        except SystemExit as exit:
            status = exit.code
    return status, out.getvalue(), err.getvalue()


class TestCommandLine(unittest.TestCase):
    def test_missing_tool_is_one_line(self):
        """Without mutmut or coverage: its name, how to get it, status 2, no traceback."""
        for command, module in (("mutate", "mutmut"), ("coverage", "coverage")):
            with self.subTest(command), mock.patch.object(project.importlib.util, "find_spec", return_value=None):
                status, out, err = run(command)
                self.assertEqual((status, out), (2, ""))
                self.assertRegex(err, rf"^audit: python -m audit {command} needs {module}, .*requirements-dev\.txt\n$")

    def test_wrong_arguments_are_refused(self):
        """A shard outside 1..N, an unknown set of operators, no command."""
        for arguments in (["mutate", "--shard", "3/2"], ["mutate", "--shard", "x"], ["mutate", "--operators", "x"], []):
            with self.subTest(arguments):
                self.assertEqual(run(*arguments)[0], 2)

    def test_report_without_results_is_one_line(self):
        """It says which command comes first."""
        with tempfile.TemporaryDirectory() as folder:
            status, _, err = run("report", "--work", folder)
        self.assertEqual(status, 2)
        self.assertRegex(err, r"^audit: no results in .*python -m audit mutate first\n$")

    def test_diff_of_one_cause_is_for_git(self):
        """Paths as git has them, from the folder that holds torch."""
        status, out, _ = run("mends", "--diff", "scheduler-epoch-changes-only-the-message")
        self.assertEqual(status, 0)
        self.assertRegex(
            out, r"\A--- a/torch/ao/pruning/scheduler/base_scheduler\.py\n\+\+\+ b/torch/ao/pruning/scheduler/base_scheduler\.py\n@@"
        )

    def test_interruption_says_how_to_go_on(self):
        """Ctrl-C: status 130 and one line."""
        with mock.patch.object(project.importlib.util, "find_spec", side_effect=KeyboardInterrupt):
            status, _, err = run("mutate")
        self.assertEqual(status, 130)
        self.assertIn("the same command goes on", err)

    def test_signals_that_ask_it_to_end_interrupt_it(self):
        """SIGTERM and SIGHUP: one line, status 128 and the signal's number, and what it has started ends, too."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number), tempfile.TemporaryDirectory() as folder:
                said, end, python = (Path(folder, name) for name in ("said", "end", "python"))
                for path in (said, end):
                    os.mkfifo(path)
                python.write_text(f"#!/bin/sh\necho $$ > {said}\nexec cat {end}\n")
                python.chmod(0o700)
                command = [sys.executable, "-m", "audit", "cost", "--python", str(python)]
                with subprocess.Popen(
                    command,
                    cwd=project.AUDIT.parent,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    preexec_fn=functools.partial(signal.signal, number, signal.SIG_DFL),  # under nohup it is ignored
                ) as process:
                    started = int(said.read_text())
                    process.send_signal(number)
                    out, err = process.communicate()
                self.assertEqual((process.returncode, out), (128 + number, ""), err)
                self.assertRegex(err, "^audit: interrupted.*\n$")
                with self.assertRaises(ProcessLookupError, msg="what it has started"):
                    os.kill(started, 0)


class TestMendsAndProbes(unittest.TestCase):
    """The commands that put mistakes into the packages, or mend them."""

    def test_mends_of_an_unknown_cause_are_refused(self):
        """The diff of a cause without a mend is one line, status 2; a pattern that no mistake matches proves nothing, status 0."""
        status, out, err = run("mends", "--diff", "no-such-cause")
        self.assertEqual((status, out, err), (2, "", "audit: no mend for no-such-cause\n"))
        status, out, _ = run("probes", "--only", "no-such-mistake")
        self.assertEqual((status, out), (0, "0 mistakes, 0 without proof\n"))


class TestOverlayFinder(unittest.TestCase):
    CODE = "import toykit, toykit.sums as s, json; print(toykit.__file__, s.__file__, s.clamp(1, 0))"

    def test_finder_redirects_the_named_packages_alone(self):
        """Package and submodules come from the overlay, in this process and in its children; without it nothing changes."""
        with tempfile.TemporaryDirectory() as folder, toy.installed(Path(folder)):
            toy.write(Path(folder))
            overlay = Path(folder, "overlay")
            project.copy_packages(("toykit",), overlay)
            with (overlay / "toykit" / "sums.py").open("a") as file:
                file.write("\n\ndef clamp(x, low):\n    return 'overlay'\n")
            for env, root, said in (
                (project.environment(), Path(folder, "site"), "1"),
                (project.environment(overlay, ("toykit",)), overlay, "overlay"),
                (project.environment(overlay, ("another",)), Path(folder, "site"), "1"),
            ):
                nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {self.CODE!r}], check=True)"
                for code in (self.CODE, nested):
                    with self.subTest(root=root, code=code):
                        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
                        expected = [str(root / "toykit" / "__init__.py"), str(root / "toykit" / "sums.py"), said]
                        self.assertEqual(out.stdout.split(), expected)

    def test_overlay_keeps_the_rules_of_torch_compile(self):
        """A package that torch.compile skips where it is installed is skipped in the overlay too; another is not."""
        rules = """
            import types
            added = []
            def check_file(name, is_inlined_call):
                return types.SimpleNamespace(skipped=name.endswith("/site/torch/pruning/__init__.py"))
            def add(name):
                added.append(name)
        """
        with tempfile.TemporaryDirectory() as folder:
            for name in ("pruning", "sparse", "_dynamo"):
                Path(folder, "site", "torch", name).mkdir(parents=True)
                Path(folder, "site", "torch", name, "__init__.py").touch()
            Path(folder, "site", "torch", "__init__.py").touch()
            Path(folder, "site", "torch", "_dynamo", "trace_rules.py").write_text(textwrap.dedent(rules))
            with toy.installed(Path(folder)):
                env = project.environment(Path(folder), ("torch.pruning", "torch.sparse"))
                code = "from torch._dynamo import trace_rules; print(trace_rules.added)"
                out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        self.assertEqual(out.stdout, "['torch.pruning']\n")


if __name__ == "__main__":
    unittest.main()
