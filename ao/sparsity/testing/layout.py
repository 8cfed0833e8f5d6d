"""The project's own rules, as programs: each yields a line for every place that breaks it.

A rule takes a ``Project``, the sources by path, so that test_layout can ask it of this project and of small made-up ones.
"""

import ast
import collections
import functools
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[3]

# Classes and tests that PyTorch's own suite has: people filter by these names.
UPSTREAM: dict[str, dict[str, list[str]]] = {
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


# What an oracle may import: what can be computed without torch.
ORACLE_IMPORTS = {"itertools", "math", "numpy", "unittest", "fractions", "functools", "operator"}
# What is there wherever the suite runs.
REQUIRED = {*sys.stdlib_module_names, "torch", "numpy", "expecttest", "ao", "nightly", "audit"}
LONGEST_NAME = 60
RULES: list[Callable] = []


def rule(function: Callable) -> Callable:
    """Enter a function ``(project) -> lines`` among RULES."""
    RULES.append(function)
    return function


class Project:
    """Sources by path from the project's root; Python files are parsed once.

    Args:
        files: the text of each file, by its path with slashes.
    """

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    @classmethod
    def at(cls, root: pathlib.Path) -> "Project":
        """The project that lies in a folder; what version control ignores is left out."""
        folders = ("ao", "nightly", "audit")
        paths = [*root.glob("*.*"), root / ".ci" / "run", *(path for folder in folders for path in (root / folder).rglob("*.py"))]
        return cls({path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths) if path.is_file()})

    @functools.cached_property
    def trees(self) -> dict[str, ast.Module]:
        """The parsed Python files."""
        return {path: ast.parse(text) for path, text in self.files.items() if path.endswith(".py")}

    def within(self, *patterns: str) -> dict[str, ast.Module]:
        """Those of the trees whose path matches one of the regular expressions as a whole."""
        return {path: tree for path, tree in self.trees.items() if any(re.fullmatch(pattern, path) for pattern in patterns)}

    @functools.cached_property
    def areas(self) -> dict[str, ast.Module]:
        """For each area, by the name of its file: one tree of that file and of the modules in the folder beside it."""
        found = {}
        for path in self.within(r"ao/sparsity/test_\w+\.py"):
            area = path.rsplit("/", 1)[1].removesuffix(".py")
            parts = self.within(re.escape(path), rf"ao/sparsity/{area.removeprefix('test_')}/\w+\.py")
            found[area] = ast.Module([node for tree in parts.values() for node in tree.body], [])
        return found

    @functools.cached_property
    def tests(self) -> dict[str, ast.Module]:
        """All modules of the suite that hold tests: the areas' files and folders, contracts and what schedulers share."""
        suite = (
            r"ao/sparsity/test_\w+\.py",
            r"ao/sparsity/(?!testing/|defects/)\w+/\w+\.py",
            r"ao/sparsity/testing/(contracts|scheduling)\.py",
        )
        return self.within(*suite)


def classes(tree: ast.Module) -> list:
    """Top-level classes that unittest would collect."""
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test")]


def own_tests(holder: ast.ClassDef) -> list:
    """The tests that stand in a class."""
    return [node for node in holder.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]


def inherited_tests(holder: ast.ClassDef, tree: ast.Module) -> list:
    """The tests of a class and of those of its bases that stand in the same area."""
    here = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    bases = [here[base.id] for base in holder.bases if isinstance(base, ast.Name) and base.id in here]
    return [*own_tests(holder), *(test for base in bases for test in inherited_tests(base, tree))]


def holders(tree: ast.Module) -> list:
    """Top-level classes with tests: those that unittest would collect, and those that are mixed into them."""
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and own_tests(node)]


def imports(tree: ast.AST, nested: bool = True) -> Iterator[str]:
    """Names of the modules imported; ``nested=False``: at the top level only."""
    for node in ast.walk(tree) if nested else ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_statements(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Nodes of a function without those of the functions and classes defined in it."""
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            stack.extend(ast.iter_child_nodes(node))


def each_test(project: Project) -> Iterator[tuple]:
    """``(place, class, test)`` for every test of the suite."""
    for path, tree in project.tests.items():
        for holder in holders(tree):
            for test in own_tests(holder):
                yield f"{path}:{test.lineno}: {holder.name}.{test.name}", holder, test


def _runner(project: Project) -> dict:
    """What the root runner imports of the areas: ``(file, class)`` -> the import."""
    return {
        ((node.module or "").rsplit(".", 1)[-1], alias.name): node
        for node in ast.walk(project.trees["test_ao_sparsity.py"])
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ao.sparsity.test_")
        for alias in node.names
    }


@rule
def runner_reaches_every_class(project: Project) -> Iterable[str]:
    """The runner imports every test class, and none that does not exist."""
    defined = {(area, holder.name) for area, tree in project.areas.items() for holder in classes(tree)}
    imported = set(_runner(project))
    yield from (f"{area}.{name} is imported by the runner, but not defined" for area, name in sorted(imported - defined))
    yield from (f"{area}.{name} is defined, but not imported by the runner" for area, name in sorted(defined - imported))


@rule
def runner_imports_in_groups(project: Project) -> Iterable[str]:
    """Comments name the groups in upstream's order, and every import of the runner is marked for the linter."""
    lines = project.files["test_ao_sparsity.py"].splitlines()
    comments = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# Owner")]
    if comments != GROUPS:
        yield f"the runner's groups are {comments}, not {GROUPS}"
    for (_, name), node in _runner(project).items():
        marked = [line for line in lines[node.lineno - 1 : node.end_lineno] if re.search(rf"\b{name}\b", line)]
        if not marked or not all("# noqa: F401" in line for line in marked):
            yield f"the runner's import of {name} is not marked noqa: F401"


@rule
def runner_has_no_logic(project: Project) -> Iterable[str]:
    """The runner imports composability unless on ARM64, configures logging, runs the tests, and does nothing else."""
    tree = project.trees["test_ao_sparsity.py"]
    if not project.files["test_ao_sparsity.py"].startswith('# Owner(s): ["module: sparse"]\n'):
        yield "the runner's first line does not name its owner"
    conditions = [node for node in tree.body if isinstance(node, ast.If)]
    if [ast.unparse(node.test) for node in conditions] != ["not IS_ARM64", "__name__ == '__main__'"]:
        yield "the runner has other conditions than IS_ARM64 and __main__"
    elif {getattr(node, "module", None) for node in conditions[0].body} != {"ao.sparsity.test_composability"}:
        yield "the runner imports something else than composability under a condition"
    elif [ast.unparse(node).split("(")[0] for node in conditions[1].body] != ["logging.basicConfig", "run_tests"]:
        yield "the runner does something else than to configure logging and to run the tests"
    for node in tree.body:
        if not isinstance(node, (ast.Expr, ast.Import, ast.ImportFrom, ast.If)):
            yield f"the runner has logic in line {node.lineno}"


@rule
def upstream_names_exist(project: Project) -> Iterable[str]:
    """Each class and each test of PyTorch's own suite is here under its name."""
    for area, expected in UPSTREAM.items():
        tree = project.areas.get(area, ast.Module([], []))
        found = {holder.name: {test.name for test in inherited_tests(holder, tree)} for holder in classes(tree)}
        for name, tests in expected.items():
            yield from (f"{area}.{name}.{test} is missing" for test in tests if test not in found.get(name, ()))
            if name not in found:
                yield f"{area}.{name} is missing"


@rule
def tests_state_their_contract(project: Project) -> Iterable[str]:
    """A one-line docstring names the contract of each test."""
    for place, _, test in each_test(project):
        text = ast.get_docstring(test, clean=False)
        if not text or not text.strip() or "\n" in text.strip():
            yield f"{place} has no docstring of one line"


@rule
def contracts_state_themselves(project: Project) -> Iterable[str]:
    """A check that becomes a test of every subject has a one-line docstring, too."""
    for path, tree in project.within(r"ao/sparsity/testing/(contracts|scheduling)\.py").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("check_"):
                text = ast.get_docstring(node, clean=False)
                if not text or "\n" in text.strip():
                    yield f"{path}:{node.lineno}: {node.name} has no docstring of one line"


@rule
def files_of_tests_say_how_they_are_run(project: Project) -> Iterable[str]:
    """A file of tests that is started by itself says, before it imports anything, what is to be started instead."""
    for path, tree in project.within(r"ao/sparsity/test_\w+\.py").items():
        first = next((ast.unparse(node) for node in tree.body if not isinstance(node, ast.Expr)), "")
        if not re.match(r"if __name__ == '__main__':\n    raise SystemExit\('.*python test_ao_sparsity\.py", first):
            yield f"{path}: it does not begin with how it is run"


@rule
def preflight_is_first(project: Project) -> Iterable[str]:
    """A file of tests, or a part of one, imports of this project first: that asks whether there is a torch to validate."""
    for path, tree in project.within(r"ao/sparsity/(test_\w+|(?!testing/|defects/)\w+/\w+)\.py").items():
        imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        modules = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
        foreign = [name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names]
        if foreign and not foreign[0].startswith("ao."):
            yield f"{path}: imports {foreign[0]} before anything of this project"


@rule
def no_bare_assert(project: Project) -> Iterable[str]:
    """A bare assert vanishes under -O and shows no values."""
    for path, tree in project.tests.items():
        yield from (f"{path}:{node.lineno}: a bare assert" for node in ast.walk(tree) if isinstance(node, ast.Assert))


@rule
def no_swallowed_exception(project: Project) -> Iterable[str]:
    """An exception that is caught and passed over hides what a test should say, as one that is suppressed hides assertions after it."""
    for path, tree in project.tests.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and all(isinstance(child, ast.Pass) for child in node.body):
                yield f"{path}:{node.lineno}: a swallowed exception"
            if isinstance(node, ast.With) and any("suppress(" in ast.unparse(item) for item in node.items):
                if "self.assert" in ast.unparse(node):
                    yield f"{path}:{node.lineno}: what a suppressed exception skips is not asserted"


@rule
def no_early_return(project: Project) -> Iterable[str]:
    """A test that cannot ask says so by skipTest(reason); one that returns would count as a pass."""
    for place, _, test in each_test(project):
        if any(isinstance(node, ast.Return) for node in own_statements(test)):
            yield f"{place} returns: skipTest(reason) instead"


@rule
def no_sleep(project: Project) -> Iterable[str]:
    """A test waits for what it needs, never for a time."""
    for place, _, test in each_test(project):
        calls = [ast.unparse(node.func) for node in own_statements(test) if isinstance(node, ast.Call)]
        if {"time.sleep", "sleep"} & set(calls):
            yield f"{place} sleeps"


@rule
def build_is_not_asked_of_itself(project: Project) -> Iterable[str]:
    """What a release has is decided by the release: signatures and attributes of what is under test decide nothing."""
    for path, tree in project.tests.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("inspect.signature", "inspect.getfullargspec"):
                yield f"{path}:{node.lineno}: asks for a signature; the written surface has it"
            if isinstance(node, (ast.If, ast.IfExp)) and "hasattr(" in ast.unparse(node.test):
                yield f"{path}:{node.lineno}: asks the thing under test what it has"


@rule
def names_are_unique(project: Project) -> Iterable[str]:
    """The second of two methods of one name silently replaces the first."""
    for path, tree in project.tests.items():
        for holder in holders(tree):
            counts = collections.Counter(test.name for test in own_tests(holder))
            yield from (f"{path}: {holder.name}.{name} stands twice" for name, number in counts.items() if number > 1)


@rule
def cases_have_names(project: Project) -> Iterable[str]:
    """A case that is a tuple, a list or a dict has a name: torch gives it a number, and before release 2.2 its text, blanks and all."""
    for path, tree in project.tests.items():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("over", "parametrize") and len(node.args) > 1):
                continue
            names, cases = node.args[:2]
            if isinstance(cases, (ast.List, ast.Tuple)) and isinstance(names, ast.Constant) and "," not in str(names.value):
                if any(isinstance(case, (ast.Tuple, ast.List, ast.Dict)) for case in cases.elts):
                    yield f"{path}:{node.lineno}: a case of {names.value!r} has no name"


@rule
def names_are_short(project: Project) -> Iterable[str]:
    """A test's name has at most LONGEST_NAME characters; upstream's own are as they are."""
    upstream = {test for expected in UPSTREAM.values() for tests in expected.values() for test in tests}
    for place, _, test in each_test(project):
        if len(test.name) > LONGEST_NAME and test.name not in upstream:
            yield f"{place} has {len(test.name)} characters, more than {LONGEST_NAME}"


@rule
def defects_live_with_their_subject(project: Project) -> Iterable[str]:
    """A filter for a subject finds its known defects: no class gathers defects."""
    for path, tree in project.tests.items():
        yield from (f"{path}:{holder.lineno}: {holder.name} gathers defects" for holder in classes(tree) if "Defect" in holder.name)


@rule
def nothing_heavy_at_the_top(project: Project) -> Iterable[str]:
    """Importing a test module costs nothing, so that a filtered run is quick."""
    for path, tree in project.tests.items():
        yield from (f"{path} imports {name} at the top" for name in sorted(set(imports(tree, nested=False))) if name.startswith(HEAVY))


@rule
def nothing_optional_at_the_top(project: Project) -> Iterable[str]:
    """Without an optional package a file of tests can be imported, so that whoever finds the files by themselves finds no error."""
    for path, tree in {**project.tests, **project.within(r"(ao|nightly|audit)/(\w+/)*test_\w+\.py")}.items():
        packages = {name.partition(".")[0] for name in imports(tree, nested=False)}
        yield from (f"{path} imports {name} at the top" for name in sorted(packages - REQUIRED))


@rule
def testing_imports_no_test(project: Project) -> Iterable[str]:
    """What tests stand on does not know them."""
    areas = [area.removeprefix("test_") for area in project.areas]
    own = tuple(f"ao.sparsity.{name}" for area in areas for name in (f"test_{area}", f"{area}."))
    for path, tree in project.within(r"ao/sparsity/testing/.*").items():
        yield from (f"{path} imports {name}" for name in imports(tree) if name.startswith(own))


@rule
def oracles_are_independent(project: Project) -> Iterable[str]:
    """A reference imports neither torch nor anything that does."""
    for path, tree in project.within(r"ao/sparsity/testing/oracles/\w+\.py").items():
        for name in imports(tree):
            if name.split(".")[0] not in ORACLE_IMPORTS and not name.startswith("ao.sparsity.testing.oracles"):
                yield f"{path} imports {name}"


@rule
def nightly_and_audit_know_a_process(project: Project) -> Iterable[str]:
    """The nightly job and the audit start the runner as a process, and import nothing of the suite."""
    for path, tree in project.within(r"(nightly|audit)/.*").items():
        yield from (f"{path} imports {name}" for name in imports(tree) if name.split(".")[0] in ("ao", "test_ao_sparsity"))


@rule
def ci_runs_the_commands_of_the_readme(project: Project) -> Iterable[str]:
    """Each command in a block of README.md that is marked sh stands, word for word, in .ci/run."""
    run = project.files[".ci/run"].splitlines()
    for block in re.findall(r"^```sh\n(.*?)^```$", project.files["README.md"], re.MULTILINE | re.DOTALL):
        yield from (f".ci/run lacks a command of README.md: {line}" for line in block.splitlines() if line not in run)
