"""Tests of the project's rules: this project keeps each, and each speaks up where it is broken."""

import functools
import unittest

from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize

from ao.sparsity.testing import layout

# A project so small that it keeps all rules but the one of upstream's names.
RUNNER = (
    '# Owner(s): ["module: sparse"]\nimport logging\nfrom torch.testing._internal.common_utils import IS_ARM64, run_tests\n'
    + "".join(f"# {group}\n" for group in layout.GROUPS)
    + "from ao.sparsity.test_x import TestX  # noqa: F401\n"
    "if not IS_ARM64:\n    from ao.sparsity.test_composability import TestC  # noqa: F401\n"
    'if __name__ == "__main__":\n    logging.basicConfig()\n    run_tests()\n'
)
GUARD = "if __name__ == '__main__':\n    raise SystemExit('python test_ao_sparsity.py')\n"
TEST = GUARD + 'class TestX(TestCase):\n    def test_a(self):\n        """Contract."""\n'
SOUND = {
    "test_ao_sparsity.py": RUNNER,
    "README.md": "```sh\npython -m venv .venv\n```\n",
    ".ci/run": "set -e\npython -m venv .venv\n",
    "ao/sparsity/test_x.py": TEST.replace("class", "from ao.sparsity.x.part import Part\nclass"),
    "ao/sparsity/x/part.py": 'class Part:\n    def test_b(self):\n        """Contract."""\n',
    "ao/sparsity/test_composability.py": TEST.replace("TestX", "TestC"),
    "ao/sparsity/testing/contracts.py": 'def check_c(case):\n    """Contract."""\n',
    "ao/sparsity/testing/oracles/sums.py": "import numpy\n",
    "nightly/run.py": "import subprocess\n",
    "audit/run.py": "import subprocess\n",
}


@functools.lru_cache(maxsize=1)
def this_project():
    """This project's sources, parsed once."""
    return layout.Project.at(layout.ROOT)


def within_a_test(line):
    """The files that change when ``line`` stands in a test."""
    return {"ao/sparsity/test_x.py": TEST + f"        {line}\n"}


# For each rule: changes to the sound project, each of which must make it speak.
BROKEN = {
    "runner_reaches_every_class": [
        {"ao/sparsity/test_x.py": TEST + TEST.replace("TestX", "TestY")},
        {"ao/sparsity/x/part.py": TEST.replace("TestX", "TestY")},
        {"ao/sparsity/test_x.py": ""},
    ],
    "runner_imports_in_groups": [
        {"test_ao_sparsity.py": RUNNER.replace("# Kernels\n", "")},
        {"test_ao_sparsity.py": RUNNER.replace("TestX  # noqa: F401", "TestX")},
    ],
    "runner_has_no_logic": [
        {"test_ao_sparsity.py": RUNNER.replace("# Owner", "# owner")},
        {"test_ao_sparsity.py": RUNNER.replace("not IS_ARM64", "IS_ARM64")},
        {"test_ao_sparsity.py": RUNNER.replace("ao.sparsity.test_composability", "ao.sparsity.test_x")},
        {"test_ao_sparsity.py": RUNNER.replace("    run_tests()", "    run_tests()\n    print()")},
        {"test_ao_sparsity.py": RUNNER + "for x in ():\n    print(x)\n"},
    ],
    "upstream_names_exist": [{}],
    "tests_state_their_contract": [
        {"ao/sparsity/test_x.py": TEST.replace('"""Contract."""', "pass")},
        {"ao/sparsity/x/part.py": SOUND["ao/sparsity/x/part.py"].replace("Contract.", "Con\n        tract.")},
    ],
    "contracts_state_themselves": [{"ao/sparsity/testing/contracts.py": "def check_c(case):\n    pass\n"}],
    "files_of_tests_say_how_they_are_run": [
        {"ao/sparsity/test_x.py": TEST.replace(GUARD, "")},
        {"ao/sparsity/test_x.py": "import ao\n" + TEST},
    ],
    "preflight_is_first": [{"ao/sparsity/x/part.py": "import copy\nimport torch\nfrom ao.sparsity.testing.base import TestCase\n"}],
    "no_bare_assert": [within_a_test("assert True"), {"ao/sparsity/testing/contracts.py": "def check_c(case):\n    assert case\n"}],
    "no_swallowed_exception": [
        within_a_test("try: pass\n        except ValueError: pass"),
        within_a_test("with contextlib.suppress(ValueError): self.assertTrue(f())"),
        within_a_test("with self.subTest(), contextlib.suppress(ValueError): self.assertTrue(f())"),
    ],
    "no_early_return": [within_a_test("if self.x: return")],
    "no_sleep": [within_a_test("time.sleep(1)")],
    "build_is_not_asked_of_itself": [
        within_a_test("if hasattr(torch, 'x'): self.skipTest('x')"),
        within_a_test("names = inspect.signature(torch.add)"),
    ],
    "names_are_unique": [{"ao/sparsity/test_x.py": TEST + TEST.partition("(TestCase):\n")[2]}],
    "cases_have_names": [within_a_test("@over('shape', [(1, 5)])\n        def f(shape): pass")],
    "names_are_short": [{"ao/sparsity/test_x.py": TEST.replace("test_a", "test_" + "a" * 60)}],
    "defects_live_with_their_subject": [{"ao/sparsity/test_x.py": TEST.replace("TestX", "TestXDefects")}],
    "nothing_heavy_at_the_top": [{"ao/sparsity/x/part.py": "import torch._dynamo\n"}],
    "nothing_optional_at_the_top": [
        {"ao/sparsity/x/part.py": "from scipy import sparse\n"},
        {"ao/sparsity/testing/stand_in/test_y.py": "import pytest\n"},
        {"nightly/test_run.py": "from hypothesis import given\n"},
    ],
    "testing_imports_no_test": [
        {"ao/sparsity/testing/base.py": "from ao.sparsity.test_x import TestX\n"},
        {"ao/sparsity/testing/base.py": "from ao.sparsity.x.part import Part\n"},
    ],
    "oracles_are_independent": [
        {"ao/sparsity/testing/oracles/sums.py": "import torch\n"},
        {"ao/sparsity/testing/oracles/sums.py": "from ao.sparsity.testing import build\n"},
    ],
    "nightly_and_audit_know_a_process": [
        {"nightly/run.py": "from ao.sparsity.testing import build\n"},
        {"audit/run.py": "import test_ao_sparsity\n"},
    ],
    "ci_runs_the_commands_of_the_readme": [{"README.md": "```sh\npython -m venv elsewhere\n```\n"}],
}


@instantiate_parametrized_tests
class TestRules(unittest.TestCase):
    @parametrize("rule", layout.RULES, name_fn=lambda rule: rule.__name__)
    def test_this_project_keeps(self, rule):
        """House rule: as the docstring of the rule says it."""
        self.assertEqual(list(rule(this_project())), [], msg=rule.__doc__)

    @parametrize("rule", layout.RULES, name_fn=lambda rule: rule.__name__)
    def test_speaks_where_it_is_broken(self, rule):
        """A rule that cannot fire is none: each complains of every made-up project that breaks it, and not of the sound one."""
        if rule is not layout.upstream_names_exist:
            self.assertEqual(list(rule(layout.Project(SOUND))), [])
        for number, changes in enumerate(BROKEN[rule.__name__]):
            with self.subTest(case=number, changes=changes):
                self.assertTrue(list(rule(layout.Project({**SOUND, **changes}))), "the rule is silent")

    def test_tests_in_folders_and_contracts_are_seen(self):
        """All modules with tests are asked: files, folders beside them, contracts, what schedulers share."""
        seen = set(this_project().tests)
        for path in ("test_scheduler.py", "kernels/layers.py", "testing/contracts.py", "testing/scheduling.py"):
            self.assertIn(f"ao/sparsity/{path}", seen)


if __name__ == "__main__":
    unittest.main()
