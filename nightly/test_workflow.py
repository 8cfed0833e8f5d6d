"""Tests of the GitHub Actions workflow that runs the matrix."""

import re
import subprocess
import sys
import unittest
from pathlib import Path

from nightly.cli import make_parser
from nightly.extras import needs

CHECKOUT = Path(__file__).resolve().parent.parent
WORKFLOW = CHECKOUT / ".github" / "workflows" / "conformance.yml"


class TestWorkflow(unittest.TestCase):
    """The workflow file."""

    @needs("check_jsonschema", "the workflow's schema")
    def test_workflow_is_valid(self):
        """Each workflow fits the schema of GitHub's workflows, which check-jsonschema carries."""
        files = [str(path) for path in sorted(WORKFLOW.parent.glob("*.yml"))]
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *files]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_workflow_calls_nightly_as_it_is(self):
        """Every call of nightly in the workflow is one that its command line takes."""
        text = re.sub(r"\\\n\s*", "", WORKFLOW.read_text())
        calls = re.findall(r"python -m nightly (.*?)(?: \|\| .*)?$", text, re.MULTILINE)
        self.assertEqual([call.split()[0] for call in calls], ["run", "import", "report", "watch"])
        for call in calls:
            with self.subTest(call=call):
                words = re.sub(r'"[^"]*"', "x", call).split()
                self.assertEqual(make_parser().parse_args(words).command, words[0])


if __name__ == "__main__":
    unittest.main()
