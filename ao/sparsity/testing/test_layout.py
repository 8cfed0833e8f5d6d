"""The project's own rules, kept by a program: every test is reached, named, documented, and rests only on what it may."""

import ast
import pathlib
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
SUITE = ROOT / "ao" / "sparsity"

# Classes and tests that PyTorch's own suite has: people filter by these names.
UPSTREAM = {
    "test_kernels": {
        "TestQuantizedSparseKernels": ["test_sparse_qlinear"],
        "TestQuantizedSparseLayers": ["test_sparse_qlinear", "test_sparse_qlinear_serdes"],
    },
    "test_qlinear_packed_params": {
        "TestQlinearPackedParams": [
            "test_qlinear_packed_params_fbgemm",
            "test_qlinear_packed_params_qnnpack",
            "test_qlinear_packed_params_fbgemm_qnnpack_cross_compatibility",
        ],
    },
    "test_parametrization": {
        "TestFakeSparsity": ["test_masking_logic", "test_weights_parametrized", "test_state_dict_preserved", "test_jit_trace"],
    },
    "test_scheduler": {
        "TestScheduler": ["test_constructor", "test_order_of_steps", "test_step", "test_lambda_scheduler"],
        "TestCubicScheduler": ["test_constructor", "test_step"],
    },
    "test_sparsifier": {
        "TestBaseSparsifier": [
            "test_constructor",
            "test_prepare_config",
            "test_step",
            "test_state_dict",
            "test_convert",
            "test_mask_squash",
            "test_mask_squash_with_params1",
            "test_mask_squash_with_params2",
            "test_mask_squash_with_params3",
        ],
        "TestWeightNormSparsifier": [
            "test_constructor",
            "test_step",
            "test_step_2_of_4",
            "test_prepare",
            "test_mask_squash",
            "test_sparsity_levels",
        ],
        "TestNearlyDiagonalSparsifier": ["test_constructor", "test_step", "test_prepare", "test_mask_squash", "test_sparsity_levels"],
    },
    "test_structured_sparsifier": {
        "TestSaliencyPruner": ["test_saliency_pruner_update_mask", "test_lstm_saliency_pruner_update_mask"],
        "TestBaseStructuredSparsifier": [
            "test_constructor",
            "test_prepare_linear",
            "test_prepare_conv2d",
            "test_step_linear",
            "test_step_conv2d",
            "test_prune_linear_linear",
            "test_prune_linear_bias_linear",
            "test_prune_linear_activation_linear",
            "test_prune_conv2d_conv2d",
            "test_prune_conv2d_bias_conv2d",
            "test_prune_conv2d_activation_conv2d",
            "test_prune_conv2d_padding_conv2d",
            "test_prune_conv2d_pool_conv2d",
            "test_complex_conv2d",
            "test_prune_lstm_linear_single_layer",
            "test_prune_lstm_linear_multiple_layer",
            "test_prune_lstm_layernorm_linear_single_layer",
            "test_prune_lstm_layernorm_linear_multiple_layer",
        ],
        "TestFPGMPruner": ["test_compute_distance", "test_update_mask"],
    },
    "test_composability": {
        "TestComposability": [
            "test_q_prep_before_s_prep",
            "test_s_prep_before_q_prep",
            "test_convert_without_squash_mask",
            "test_s_prep_before_fusion",
            "test_fusion_before_s_prep",
            "test_s_prep_before_qat_prep",
            "test_qat_prep_before_s_prep",
        ],
        "TestFxComposability": [
            "test_q_prep_fx_before_s_prep",
            "test_q_prep_fx_s_prep_ref_conv",
            "test_s_prep_before_q_prep_fx",
            "test_s_prep_before_qat_prep_fx",
            "test_s_prep_q_prep_fx_ref",
        ],
    },
    "test_activation_sparsifier": {"TestActivationSparsifier": ["test_activation_sparsifier"]},
    "test_data_scheduler": {
        "TestBaseDataScheduler": ["test_constructor", "test_order_of_steps", "test_step", "test_state_dict"],
    },
    "test_data_sparsifier": {
        "TestBaseDataSparsifier": ["test_tensors", "test_nn_parameters", "test_nn_embeddings"],
        "TestNormDataSparsifiers": ["test_tensors", "test_nn_parameters", "test_nn_embeddings"],
        "TestQuantizationUtils": ["test_ptq_sparsify_first", "test_ptq_quantize_first"],
    },
    "test_sparsity_utils": {
        "TestSparsityUtilFunctions": [
            "test_module_to_fqn",
            "test_module_to_fqn_fail",
            "test_module_to_fqn_root",
            "test_fqn_to_module",
            "test_fqn_to_module_fail",
            "test_fqn_to_module_for_tensors",
            "test_get_arg_info_from_tensor_fqn",
            "test_get_arg_info_from_tensor_fqn_fail",
        ],
    },
    "test_lightning_callbacks": {"TestPostTrainingDataSparsity": [], "TestTrainingAwareDataSparsity": []},
}

GROUPS = [
    "Kernels",
    "Parametrizations",
    "Scheduler",
    "Sparsifier",
    "Structured Pruning",
    "Composability",
    "Activation Sparsifier",
    "Data Scheduler",
    "Data Sparsifier",
    "Utilities",
]

# Seconds of import each: a test that needs one imports it itself.
HEAVY = ("torch._dynamo", "torch._inductor", "torch.export", "torch.distributed", "pytorch_lightning", "torch.ao.quantization.quantize_fx")


def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def _test_files():
    """For each area, by the name of its file: one tree of that file and of the modules in the folder beside it."""
    files = {}
    for path in sorted(SUITE.glob("test_*.py")):
        parts = sorted((SUITE / path.stem.removeprefix("test_")).glob("*.py"))
        files[path.stem] = ast.Module([node for part in (path, *parts) for node in _tree(part).body], [])
    return files


def _classes(tree):
    """Top-level classes that unittest would collect: those with ``TestCase`` or another test class as a base."""
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]


def _tests(holder):
    return [node for node in holder.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]


def _holders(tree):
    """Top-level classes with tests: those that unittest would collect, and those that are mixed into them."""
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and _tests(node)]


def _all_tests(holder, tree):
    """Tests of a class and of those of its bases that stand in the same area."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    bases = [classes[base.id] for base in holder.bases if isinstance(base, ast.Name) and base.id in classes]
    return [*_tests(holder), *(test for base in bases for test in _all_tests(base, tree))]


def _imports(tree, nested=True):
    """Names of the modules imported; ``nested=False``: at the top level only."""
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own_statements(function):
    """Nodes of a function without those of the functions and classes defined in it."""
    stack = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            stack.extend(ast.iter_child_nodes(node))


class TestRunnerFile(unittest.TestCase):
    """``test_ao_sparsity.py``: reaches every class, in groups, and holds no logic."""

    def setUp(self):
        self.text = (ROOT / "test_ao_sparsity.py").read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.imported = {
            (node.module.rsplit(".", 1)[1], alias.name): node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and node.module.startswith("ao.sparsity.test_")
            for alias in node.names
        }

    def test_imports_exactly_the_test_classes(self):
        """Runner: no class that no import reaches, no import of a class that does not exist."""
        defined = {(stem, holder.name) for stem, tree in _test_files().items() for holder in _classes(tree)}
        self.assertEqual(sorted(set(self.imported) - defined), [], "imported by the runner, but not defined")
        self.assertEqual(sorted(defined - set(self.imported)), [], "defined, but not imported by the runner")

    def test_imports_stand_in_their_groups(self):
        """Runner: one-word comments name the groups, in the order of upstream; every import is marked for the linter."""
        comments = [line[2:] for line in self.text.splitlines() if line.startswith("# ") and not line.startswith("# Owner")]
        self.assertEqual(comments, GROUPS)
        lines = self.text.splitlines()
        for (stem, name), node in self.imported.items():
            with self.subTest(file=stem, name=name):
                marked = [line for line in lines[node.lineno - 1 : node.end_lineno] if name in line]
                self.assertTrue(marked and all("# noqa: F401" in line for line in marked), marked)

    def test_only_composability_is_conditional(self):
        """Runner: composability is imported ``if not IS_ARM64``; nothing else is, and there is no other logic."""
        conditions = [node for node in self.tree.body if isinstance(node, ast.If)]
        self.assertEqual([ast.unparse(node.test) for node in conditions], ["not IS_ARM64", "__name__ == '__main__'"])
        self.assertEqual({node.module for node in conditions[0].body}, {"ao.sparsity.test_composability"})
        self.assertEqual(
            [ast.unparse(node.value.func) for node in conditions[1].body],
            ["logging.basicConfig", "run_tests"],
        )
        kinds = {type(node) for node in self.tree.body}
        self.assertLessEqual(kinds, {ast.Expr, ast.Import, ast.ImportFrom, ast.If})
        self.assertEqual(self.text.splitlines()[0], '# Owner(s): ["module: sparse"]')


class TestTestFiles(unittest.TestCase):
    """``ao/sparsity/test_*.py``: names, docstrings and what a test must not do."""

    def test_upstream_names_exist(self):
        """Contract of names: each class and each test of PyTorch's own suite is here under its name."""
        files = _test_files()
        for stem, classes in UPSTREAM.items():
            holders = {holder.name: {test.name for test in _all_tests(holder, files[stem])} for holder in _classes(files[stem])}
            for name, tests in classes.items():
                with self.subTest(file=stem, holder=name):
                    self.assertEqual(sorted(set(tests) - holders.get(name, set())), [], f"missing in {name}")
        helpers = {node.name for node in files["test_kernels"].body if hasattr(node, "name")}
        self.assertLessEqual({"SparseQuantizedModel", "_sparse_layer_test_helper"}, helpers)

    def test_every_test_states_its_contract_in_one_line(self):
        """House rule: a one-line docstring names the contract."""
        for stem, tree in _test_files().items():
            for holder in _holders(tree):
                for test in _tests(holder):
                    with self.subTest(test=f"{stem}.{holder.name}.{test.name}"):
                        text = ast.get_docstring(test, clean=False)
                        self.assertTrue(text and text.strip(), "no docstring")
                        self.assertNotIn("\n", text.strip(), "more than one line")

    def test_no_test_passes_unchecked(self):
        """House rule: no bare assert, no return for "not here", no sleep, no swallowed exception."""
        for stem, tree in _test_files().items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Assert):
                    self.fail(f"{stem}.py:{node.lineno}: a bare assert vanishes under -O and shows no values")
                if isinstance(node, ast.ExceptHandler) and all(isinstance(child, ast.Pass) for child in node.body):
                    self.fail(f"{stem}.py:{node.lineno}: a swallowed exception")
            for test in (test for holder in _holders(tree) for test in _tests(holder)):
                for node in _own_statements(test):
                    where = f"{stem}.py:{getattr(node, 'lineno', test.lineno)}: {test.name}"
                    self.assertNotIsInstance(node, ast.Return, f"{where} returns: skipTest(reason) instead")
                    if isinstance(node, ast.Call):
                        self.assertNotIn(ast.unparse(node.func), ("time.sleep", "sleep"), f"{where} sleeps")

    def test_no_two_tests_share_a_name(self):
        """Python: the second of two methods of one name silently replaces the first."""
        for stem, tree in _test_files().items():
            for holder in _holders(tree):
                names = [test.name for test in _tests(holder)]
                self.assertEqual(sorted(name for name in set(names) if names.count(name) > 1), [], f"{stem}.{holder.name}")

    def test_nothing_heavy_is_imported_at_the_top(self):
        """House rule: importing a test file costs nothing, so that a filtered run is quick."""
        for stem, tree in _test_files().items():
            heavy = sorted({name for name in _imports(tree, nested=False) if name.startswith(HEAVY)})
            self.assertEqual(heavy, [], stem)


class TestArrows(unittest.TestCase):
    """Who may import whom: tests -> testing -> torch; nightly and audit start the runner as a process."""

    def test_testing_imports_no_test(self):
        """House rule: what tests stand on does not know them."""
        for path in SUITE.glob("testing/**/*.py"):
            names = [name for name in _imports(_tree(path)) if name.startswith("ao.sparsity.test_")]
            self.assertEqual(names, [], path)

    def test_oracles_are_independent(self):
        """House rule: a reference imports neither torch nor anything that does."""
        for path in SUITE.glob("testing/oracles/*.py"):
            names = {name.split(".")[0] for name in _imports(_tree(path))}
            self.assertLessEqual(names - {"ao"}, {"itertools", "math", "numpy", "unittest", "fractions", "functools", "operator"}, path)
            own = "ao.sparsity.testing.oracles"
            inner = [name for name in _imports(_tree(path)) if name.startswith("ao.") and not name.startswith(own)]
            self.assertEqual(inner, [], path)

    def test_nightly_and_audit_import_no_test(self):
        """House rule: they know the suite as a process."""
        for folder in ("nightly", "audit"):
            for path in (ROOT / folder).glob("**/*.py"):
                names = [name for name in _imports(_tree(path)) if name.split(".")[0] in ("ao", "test_ao_sparsity")]
                self.assertEqual(names, [], path)


if __name__ == "__main__":
    unittest.main()
