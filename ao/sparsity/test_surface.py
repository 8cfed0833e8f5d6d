# Owner(s): ["module: sparse"]
"""The public surface: every name can be imported, takes the arguments it is documented with, and has their defaults."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

import warnings

from ao.sparsity.testing.base import TestCase  # first: it asks whether there is a torch to validate

import torch
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize, subtest

from ao.sparsity.testing import build
from ao.sparsity.testing.surface import OPERATORS, PACKED, differences, surface

NAMES = surface(build.TORCH_VERSION)
MODULES = list(dict.fromkeys(name.module for name in NAMES))


def over_modules(test):
    """Parametrize a test with the modules of the surface."""
    return parametrize("module", [subtest(module, name=module.replace(".", "_").removeprefix("torch_ao_")) for module in MODULES])(test)


@instantiate_parametrized_tests
class TestPublicSurface(TestCase):
    """What programs of others rely on, as surface.py has it."""

    @over_modules
    def test_names(self, module):
        """A star import of a module gives every public name, and fails on none."""
        namespace = {}
        with warnings.catch_warnings():
            exec(f"from {module} import *", namespace)
        names = [name.path for name in NAMES if name.module == module and "." not in name.path]
        self.assertEqual([name for name in names if name not in namespace], [], msg="not given by a star import")

    @over_modules
    def test_signatures(self, module):
        """Every public class, function and method takes the arguments that are written down, with these defaults."""
        with warnings.catch_warnings():
            self.assertEqual(differences([name for name in NAMES if name.module == module]), [])

    def test_operators_have_their_schemas(self):
        """torch.ops.sparse: names, arguments and results of the operators, whatever engines the build has."""
        found = {schema.name: schema for schema in torch._C._jit_get_all_schemas()}
        for name, written in OPERATORS.items():
            with self.subTest(name):
                self.assertEqual(str(found.get(name)), f"{name}{written.replace('P W_prepack', f'{PACKED} W_prepack')}")

    def test_reexported_names_are_the_same_objects(self):
        """A name that a package hands on is the object of the module that defines it."""
        defined = {}
        for name in NAMES:
            if name.signature is not None and "." not in name.path:
                defined.setdefault(name.path, []).append(name.found())
        for name in NAMES:
            if name.signature is None and name.path in defined:
                with self.subTest(module=name.module, name=name.path):
                    self.assertTrue(
                        any(name.found() is each for each in defined[name.path]), msg=f"{name.found()}, not {defined[name.path]}"
                    )
