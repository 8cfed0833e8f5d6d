"""Is a dropped device noticed? Mistakes put, one at a time, into a copy of the packages, each met by the tests on the stand-in.

    python -m ao.sparsity.testing.stand_in.dropped

A mistake makes a mask, an index or another new tensor on cpu where the data lie elsewhere. On a machine with cpu alone no test can
see it. The copy of a module lives in the memory of a process of its own; the installed packages are not written to.
"""

import dataclasses
import importlib.machinery
import os
import re
import sys
from collections.abc import Iterable

from ao.sparsity.testing import preflight
from ao.sparsity.testing.child import TO_BE_READ
from ao.sparsity.testing.play import ROOT, run_in_fork

PRUNING = "torch.ao.pruning"
EXPERIMENTAL = "torch.ao.pruning._experimental"


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One dropped device.

    Args:
        module: name of the module.
        right: the text of the module that is changed, at its first place.
        wrong: what stands there instead.
    """

    module: str
    right: str
    wrong: str

    @property
    def name(self) -> str:
        """A line for a person."""
        return f"{self.module.rpartition('.')[2]}: {' '.join(self.right.split())} -> {' '.join(self.wrong.split())}"


MISTAKES = (
    Mistake(f"{PRUNING}.sparsifier.weight_norm_sparsifier", "torch.ones(input_shape, device=device)", "torch.ones(input_shape)"),
    Mistake(
        f"{PRUNING}.sparsifier.weight_norm_sparsifier",
        "torch.ones(h + dh, w + dw, device=data.device)",
        "torch.ones(h + dh, w + dw)",
    ),
    Mistake(
        f"{PRUNING}.sparsifier.weight_norm_sparsifier",
        "torch.ones((h + dh, w + dw), device=data.device)",
        "torch.ones((h + dh, w + dw))",
    ),
    Mistake(
        f"{PRUNING}.sparsifier.weight_norm_sparsifier",
        "torch.ones(h + dh, w + dw, dtype=data.dtype, device=data.device)",
        "torch.ones(h + dh, w + dw, dtype=data.dtype)",
    ),
    Mistake(f"{PRUNING}.sparsifier.weight_norm_sparsifier", "index=indices", "index=indices.cpu()"),
    Mistake(f"{PRUNING}.sparsifier.nearly_diagonal_sparsifier", "torch.zeros_like(mask)", "torch.zeros(mask.shape)"),
    Mistake(
        f"{PRUNING}.sparsifier.base_sparsifier",
        "torch.ones_like(getattr(module, tensor_name))",
        "torch.ones(getattr(module, tensor_name).shape)",
    ),
    Mistake(f"{PRUNING}.sparsifier.utils", "new_mod.to(device)", "new_mod"),
    Mistake(f"{EXPERIMENTAL}.pruner.base_structured_sparsifier", "dtype=torch.bool, device=tensor.device", "dtype=torch.bool"),
    Mistake(f"{EXPERIMENTAL}.pruner.prune_functions", "dtype=torch.bool, device=mask.device", "dtype=torch.bool"),
    Mistake(f"{EXPERIMENTAL}.pruner.prune_functions", "for bias in pruned_biases], device=mask.device", "for bias in pruned_biases]"),
    Mistake(f"{EXPERIMENTAL}.pruner.saliency_pruner", "saliency.topk(num_to_pick).indices", "saliency.topk(num_to_pick).indices.cpu()"),
    Mistake(f"{EXPERIMENTAL}.pruner.lstm_saliency_pruner", "sorted=False).indices", "sorted=False).indices.cpu()"),
    Mistake(f"{EXPERIMENTAL}.pruner.FPGM_pruner", "torch.ones_like(mask).bool()", "torch.ones(mask.shape).bool()"),
    Mistake(f"{EXPERIMENTAL}.pruner.FPGM_pruner", "torch.zeros_like(mask).bool()", "torch.zeros(mask.shape).bool()"),
    Mistake(f"{EXPERIMENTAL}.pruner.FPGM_pruner", "mask[topk.indices]", "mask[topk.indices.cpu()]"),
    Mistake(f"{EXPERIMENTAL}.data_sparsifier.data_norm_sparsifier", "torch.ones_like(data)", "torch.ones(data.shape)"),
    Mistake(
        f"{EXPERIMENTAL}.data_sparsifier.data_norm_sparsifier",
        "torch.zeros_like(data, dtype=torch.int8)",
        "torch.zeros(data.shape, dtype=torch.int8)",
    ),
    Mistake(f"{EXPERIMENTAL}.data_sparsifier.data_norm_sparsifier", "dtype=data.dtype, device=data.device", "dtype=data.dtype"),
    Mistake(f"{EXPERIMENTAL}.data_sparsifier.base_data_sparsifier", "torch.ones_like(weight)", "torch.ones(weight.shape)"),
    Mistake(f"{EXPERIMENTAL}.activation_sparsifier.activation_sparsifier", "torch.zeros_like(input_data)", "torch.zeros(input_data.shape)"),
    Mistake(f"{EXPERIMENTAL}.activation_sparsifier.activation_sparsifier", "torch.ones_like(input_data)", "torch.ones(input_data.shape)"),
    Mistake(f"{EXPERIMENTAL}.activation_sparsifier.activation_sparsifier", ".to(input_data.device)", ""),
    Mistake(
        f"{EXPERIMENTAL}.activation_sparsifier.activation_sparsifier", "torch.zeros_like(data_feature)", "torch.zeros(data_feature.shape)"
    ),
)

NEAR = {
    "activation_sparsifier": "TestActivationSparsifier",
    "base_data_sparsifier": "TestBaseDataSparsifier",
    "base_sparsifier": "TestNearlyDiagonalSparsifier",
    "base_structured_sparsifier": "TestBaseStructuredSparsifier",
    "data_norm_sparsifier": "TestNormDataSparsifiers",
    "FPGM_pruner": "TestFPGMPruner",
    "lstm_saliency_pruner": "TestSaliencyPruner",
    "nearly_diagonal_sparsifier": "TestNearlyDiagonalSparsifier",
    "prune_functions": "TestBaseStructuredSparsifier",
    "saliency_pruner": "TestSaliencyPruner",
    "utils": "TestBaseSparsifier",
    "weight_norm_sparsifier": "TestWeightNormSparsifier",
}


class _ChangedModule(importlib.machinery.SourceFileLoader):
    """Loads a module from a changed copy of its source, without bytecode."""

    mistake: Mistake

    def get_code(self, fullname):
        source = self.get_source(fullname)
        return self.source_to_code(source.replace(self.mistake.right, self.mistake.wrong, 1).encode(), self.path)


class _Finder:
    """Finds the one module that is changed."""

    def __init__(self, mistake: Mistake):
        self.mistake = mistake

    def find_spec(self, name, path, target=None):
        if name != self.mistake.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = _ChangedModule(name, spec.origin)
            spec.loader.mistake = self.mistake
        return spec


def applies(mistake: Mistake) -> bool:
    """Whether this release of torch has the text that is to be changed."""
    import torch

    path = os.path.join(os.path.dirname(torch.__file__), *mistake.module.split(".")[1:]) + ".py"
    try:
        with open(path, encoding="utf-8") as file:
            return mistake.right in file.read()
    except FileNotFoundError:
        return False


def noticed_by(mistake: Mistake, near: bool = False) -> str | None:
    """The first test on the stand-in that goes red, ``"TestFPGMPruner.test_update_mask"`` for one, or None.

    Tests of the class NEAR the module come first, which is quicker; with ``near`` no others are asked. What the tests import is
    imported here and the stand-in is loaded here, once; the tests run in a forked process.
    """
    from ao.sparsity.testing import stand_in

    stand_in.load()
    import torch.testing._internal.common_utils  # noqa: F401

    if PRUNING in sys.modules:
        raise RuntimeError(f"{PRUNING} has been imported in this process already: it cannot be taken from a copy any more")
    red = _first_red(mistake, f"*{NEAR[mistake.module.rpartition('.')[2]]}.*accelerator*")
    return red if red or near else _first_red(mistake, "accelerator")


def _first_red(mistake: Mistake, pattern: str) -> str | None:
    """The first of the tests ``-k pattern`` that goes red, in a forked process; None where none does, or there is none."""

    def prepare() -> None:
        os.environ.update(TO_BE_READ, AO_SPARSITY_ONE_PROCESS="1")
        sys.meta_path.insert(0, _Finder(mistake))
        sys.path.insert(0, str(ROOT))

    process = run_in_fork(["-f", "-k", pattern], prepare)
    status, said = process.returncode, process.stdout + process.stderr
    if status not in (0, 1, preflight.NOTHING_MATCHED):
        raise RuntimeError(f"with the mistake {mistake.name} the tests did not run to their end: {said[-2000:]}")
    red = re.search(r"python test_ao_sparsity\.py (\S+)$", said, re.MULTILINE)
    return None if status != 1 else red.group(1) if red else "a known defect that is gone"


def first_of_each_module() -> list[Mistake]:
    """Of the mistakes that this release has a place for, the first in each module."""
    chosen: dict[str, Mistake] = {}
    for mistake in MISTAKES:
        if mistake.module not in chosen and applies(mistake):
            chosen[mistake.module] = mistake
    return list(chosen.values())


def main(mistakes: Iterable[Mistake] = MISTAKES) -> int:
    """Print what notices each of these mistakes, or why none can be played; returns the exit status: 1 where one is not noticed, else 0."""
    from ao.sparsity.testing import stand_in

    try:
        stand_in.load()  # first of all: from then on no GPU is found, which a fork could not use
    except stand_in.CannotBuild as error:
        print(f"not played: {error}")
        return 0
    unnoticed = 0
    for mistake in mistakes:
        if not applies(mistake):
            print(f"not in this torch  {mistake.name}")
            continue
        test = noticed_by(mistake)
        unnoticed += test is None
        print(f"{'NOT NOTICED' if test is None else 'noticed':18} {mistake.name}" + (f"\n{'':18} by {test}" if test else ""), flush=True)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
