# Owner(s): ["module: sparse"]
"""Sparsity beside quantization, compilers, tracing, autocast, copying and distribution.

Quantization: a composed model and a plain twin, whose weights were masked by hand, go through the same quantization; they must
come out alike. What is asked of PyTorch's quantization here is only that it does not depend on how the zeros got there.
"""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

import copy
import functools
import inspect
import io
import os
import pathlib
import sys
import unittest.mock
import warnings

from ao.sparsity.testing.base import TestCase, on_every_device  # first: it asks whether there is a torch to validate

import numpy as np

from ao.sparsity.testing import build
from ao.sparsity.testing.companion import beside
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.preflight import first_line

import torch
import torch.ao.nn.intrinsic.quantized as nniq
import torch.ao.nn.qat as nnqat
import torch.ao.nn.quantized as nnq
import torch.ao.nn.quantized.reference as nnqr
import torch.ao.quantization as tq
from torch import nn
from torch.ao.pruning import BaseSparsifier, WeightNormSparsifier
from torch.ao.pruning._experimental.pruner import SaliencyPruner
from torch.nn.utils import parametrize
from torch.testing._internal.common_utils import instantiate_parametrized_tests

PRUNING_SOURCES = str(pathlib.Path(inspect.getfile(BaseSparsifier)).parents[1])
BLOCK = 4


class GivenMasks(BaseSparsifier):
    """A sparsifier whose masks are given: every second entry of the tensor, whatever its shape."""

    def update_mask(self, module, tensor_name, **kwargs):
        """Copy the mask into the parametrization."""
        mask = module.parametrizations[tensor_name][0].mask
        mask.copy_(torch.arange(mask.numel()).remainder(2).reshape(mask.shape))


class OwnMask(nn.Module):
    """What FakeSparsity computes."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x):
        """The masked tensor."""
        return self.mask * x


def compiled(model, x):
    """What torch.compile(fullgraph=True) makes of the model answers ``x``."""
    return torch.compile(model, backend="eager", fullgraph=True)(x)


def exported(model, x):
    """The program that torch.export makes of the model, saved and loaded."""
    with io.BytesIO() as file:
        torch.export.save(torch.export.export(model, (x,), strict=False), file)
        file.seek(0)
        return torch.export.load(file)


@functools.cache
def refusal(function):
    """Why this build's compiled() or exported() does not take a model with OwnMask, nothing of torch.ao in it; None where it does.

    Under ``python -O``, torch.compile of torch 2.10 and 2.11 takes none on Python 3.13, and torch.export of torch 2.2 loads none.
    """
    layer = nn.Linear(8, 8)
    parametrize.register_parametrization(layer, "weight", OwnMask(torch.arange(64.0).remainder(2).reshape(8, 8).clone()))
    try:
        function(layer, inputs())
    except Exception as error:  # whatever the compiler raises
        return first_line(error)
    return None


@functools.cache
def native_backend():
    """What FX graph mode quantization takes for its backend_config where none is given, which it makes anew four times for a model, and
    of it the patterns of what the models here are made of: preparing looks at all others, too."""
    from torch.ao.quantization.backend_config import BackendConfig, native

    patterns = native.get_native_backend_config().configs
    names = ("Linear", "Conv2d", "ReLU", "reshape")
    return BackendConfig("native").set_backend_pattern_configs(
        [each for each in patterns if any(name in str(each.pattern) for name in names)]
    )


def every_second(weight):
    """The weight as GivenMasks leaves it, a NumPy array."""
    return weight * (np.arange(weight.size) % 2).reshape(weight.shape).astype(weight.dtype)


def halved(weight, level=0.5):
    """A matrix with the weaker ``level`` of its 1 x 4 blocks (by sum of squares) set to zero, a NumPy array."""
    blocks = weight.reshape(-1, BLOCK).copy()
    weakest = np.argsort((blocks.astype(np.float64) ** 2).sum(axis=1), kind="stable")[: int(len(blocks) * level)]
    blocks[weakest] = 0
    return blocks.reshape(weight.shape)


def weight_norm_sparsifier():
    """The sparsifier whose masks ``halved`` computes."""
    return WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, BLOCK), zeros_per_block=BLOCK)


def sparsified_model(model, tensor_fqn="0.weight", step=True):
    """Prepare one tensor of ``model`` and let the sparsifier step; returns the sparsifier."""
    sparsifier = weight_norm_sparsifier()
    sparsifier.prepare(model, [{"tensor_fqn": tensor_fqn}])
    if step:
        sparsifier.step()
    return sparsifier


def linear_model():
    """Linear (8, 8), ReLU, Linear (8, 4)."""
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def masked_twin(model):
    """A copy of an unprepared linear_model with the first weight masked by hand."""
    twin = copy.deepcopy(model)
    overwrite(twin[0].weight, halved(array(twin[0].weight)))
    return twin


def masked_twin_of_prepared(model):
    """A plain linear_model with the parameters of a prepared one and the first weight masked by hand."""
    twin = linear_model()
    values = [array(model[0].parametrizations.weight.original), *map(array, (model[0].bias, model[2].weight, model[2].bias))]
    for parameter, value in zip(twin.parameters(), [halved(values[0]), *values[1:]]):
        overwrite(parameter, value)
    return twin


def array(tensor):
    """A NumPy copy of a tensor's values."""
    return tensor.detach().cpu().numpy().copy()


def overwrite(parameter, values):
    """Write NumPy values into a parameter, in place."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))


def inputs(rows=3):
    """A batch (rows, 8) between -1 and 1 that holds no value twice.

    It is no view: torch.compile and torch.export take the sizes of what a view views for unknown, and solve equations about them.
    """
    return torch.linspace(-1, 1, rows * 8).reshape(rows, 8).clone()


def parametrized_tensors(model):
    """Names of the parametrized tensors of a model."""
    return {
        f"{name}.{tensor}"
        for name, module in model.named_modules()
        if parametrize.is_parametrized(module)
        for tensor in module.parametrizations
    }


def observers(model):
    """Names and types of all observers and fake quantizers in a model."""
    kinds = (tq.ObserverBase, tq.FakeQuantizeBase)
    return {name: type(module).__name__ for name, module in model.named_modules() if isinstance(module, kinds)}


def types_of(model):
    """The type of every module below the root by name, parametrized or not."""
    return {name: parametrize.type_before_parametrizations(module) for name, module in model.named_modules() if name}


def weight_in_integers(layer):
    """Integers and real values of a quantized or reference layer's weight, two NumPy arrays; the integers of a reference are its values."""
    if isinstance(layer, (nnq.Linear, nnq.Conv2d)):
        weight = layer.weight()
        return weight.int_repr().numpy(), weight.dequantize().numpy()
    values = array(layer.get_weight())
    return values, values


@functools.cache
def _quantizes(engine):
    with build.quantized_engine(engine), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            nnq.Linear(8, 8)(torch.quantize_per_tensor(torch.ones(1, 8), 0.5, 0, torch.quint8))
        except (RuntimeError, NotImplementedError):
            return False
    return True


class _Quiet:
    """Catches the deprecations of eager and FX quantization and of TorchScript; the sparsity stack itself must not warn.

    The environment is put back as well: torch._dynamo sets variables when it is imported.
    """

    def setUp(self):
        super().setUp()
        environment = unittest.mock.patch.dict(os.environ)
        environment.start()
        self.addCleanup(environment.stop)
        catcher = warnings.catch_warnings(record=True)
        self._caught = catcher.__enter__()
        self.addCleanup(catcher.__exit__, None, None, None)
        self.addCleanup(self._check_warnings)
        warnings.simplefilter("always")

    def _check_warnings(self):
        own = [warning for warning in self._caught if warning.filename.startswith(PRUNING_SOURCES)]
        unexpected = [str(warning.message) for warning in own if warning.category is not torch.jit.TracerWarning]
        self.assertEqual(unexpected, [], msg="warnings of the sparsity stack")

    def quantizing_engines(self, what):
        """Engines on which this build quantizes a Linear; skips where there is none."""
        working = [engine for engine in build.engines() if _quantizes(engine)]
        if not working:
            self.skipTest(f"{what} (no {', '.join(build.SPARSE_ENGINES)})")
        return working

    def skip_unless_compiles(self):
        """Skip where torch.compile does not run on this Python or platform, or does not take a parametrized model, whoever's it is."""
        if build.TORCH_VERSION < (2, 4) and sys.version_info >= (3, 12):
            self.skipTest("torch.compile (no Python 3.12 before torch 2.4)")
        import torch._dynamo

        if not torch._dynamo.is_dynamo_supported():
            self.skipTest("torch.compile (not on this platform)")
        for switch in ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"):
            if os.environ.get(switch) == "1":
                self.skipTest(f"torch.compile (switched off by {switch})")
        if refusal(compiled) is not None:
            self.skipTest(f"torch.compile (not of parametrized models here: {refusal(compiled)})")
        torch._dynamo.reset()  # else what another test has compiled with breaks is taken as one graph

    def skip_unless_exports(self):
        """Skip where torch.export has no mode that runs the model itself (it is one graph otherwise)."""
        if build.TORCH_VERSION < (2, 2):
            self.skipTest("torch.export (no strict=False before torch 2.2)")

    def check_twins(self, model, twin, layer, mask, message):
        """Both converted models hold the same modules, the same weights with the mask's zeros in ``layer``, and answer alike."""
        self.assertEqual(types_of(model), types_of(twin), msg=message)
        integers, values = weight_in_integers(model.get_submodule(layer))
        twin_integers, _ = weight_in_integers(twin.get_submodule(layer))
        np.testing.assert_array_equal(integers, twin_integers, err_msg=message)
        np.testing.assert_array_equal(values[mask == 0], 0, err_msg=message)
        self.assertEqual(np.count_nonzero(mask == 0), mask.size // 2, msg=message)
        self.assertGreater(np.count_nonzero(values), mask.size // 4, msg=message)


def qat_model():
    """Linear (8, 8) and Linear (8, 4): without a ReLU to fuse, quantization-aware training swaps in qat.Linear."""
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))


class ConvModel(nn.Sequential):
    """Conv2d (8 channels, 1 x 1) and ReLU on a batch that is seen as rows of 1 x 1 images."""

    def __init__(self):
        super().__init__(nn.Conv2d(8, 8, 1), nn.ReLU())

    def forward(self, x):
        """Batch (N, 8) to (N, 8, 1, 1)."""
        return super().forward(x.reshape(-1, 8, 1, 1))


def stub_model():
    """QuantStub, Linear (8, 8), ReLU, Linear (8, 4), DeQuantStub: what eager quantization starts from."""
    return nn.Sequential(tq.QuantStub(), *linear_model(), tq.DeQuantStub())


def prepare(model):
    """Eager preparation for quantization after training."""
    return tq.prepare(model.eval(), inplace=True)


def prepare_qat(model):
    """Eager preparation for quantization-aware training."""
    return tq.prepare_qat(model.train(), inplace=True)


def fuse(model):
    """Fuse Linear and ReLU in place."""
    return tq.fuse_modules(model.eval(), ["1", "2"], inplace=True)


@instantiate_parametrized_tests
class TestComposability(_Quiet, TestCase):
    """Sparsity in eager mode."""

    in_companion = True

    def _check_eager(
        self, before=(), after=(), tensor_fqn="1.weight", layer="1", swapped=nnq.Linear, observed=nn.Linear, squash=True, engines=1
    ):
        """Prepare a stub model by ``before``, the sparsifier, ``after``; step, calibrate, squash, convert; compare with the twin."""
        for engine in self.quantizing_engines("eager quantization")[:engines]:
            with self.subTest(engine=engine), build.quantized_engine(engine):
                model, x = stub_model(), inputs()
                qat = prepare_qat in (*before, *after)
                model.qconfig = tq.default_qat_qconfig if qat else tq.default_qconfig
                twin = copy.deepcopy(model)
                masked = halved(array(model[1].weight))
                for action in (*before, *after):
                    twin = action(twin)
                for action in before:
                    model = action(model)
                sparsifier = sparsified_model(model, tensor_fqn, step=False)
                for action in after:
                    model = action(model)

                inner = f"{layer}.0" if fuse in (*before, *after) else layer
                self.assertEqual(parametrized_tensors(model), {f"{inner}.weight"}, msg="the parametrization survives")
                self.assertEqual(observers(model), observers(twin), msg="observers are where the plain model has them")
                self.assertEqual(types_of(model)[inner], observed)
                self.assertEqual(model(x), twin(x), rtol=0, atol=0, msg="preparing changes no value")

                sparsifier.step()
                overwrite(twin.get_submodule(inner).weight, masked)
                self.assertEqual(array(model.get_submodule(inner).weight), masked, rtol=0, atol=0)
                self.assertEqual(model(x), twin(x), rtol=0, atol=0, msg="the masked model computes with the mask")
                if squash:
                    sparsifier.squash_mask()
                model, twin = (tq.convert(prepared.eval(), inplace=True) for prepared in (model, twin))

                self.assertIs(type(model.get_submodule(layer)), swapped)
                self.check_twins(model, twin, layer, masked, f"converted on {engine}")
                self.assertEqual(model(x), twin(x), rtol=0, atol=0)

    def test_q_prep_before_s_prep(self):
        """prepare, then a sparsifier: observed, masked and converted like the model that was masked by hand."""
        self._check_eager(before=[prepare])

    def test_s_prep_before_q_prep(self):
        """A sparsifier, then prepare: the parametrization survives, and the quantized weight carries the zeros."""
        self._check_eager(after=[prepare], engines=None)

    def test_convert_without_squash_mask(self):
        """convert() applies a mask that was not squashed."""
        self._check_eager(after=[prepare], squash=False)

    def test_s_prep_before_fusion(self):
        """A sparsifier, then fuse_modules: the fused Linear keeps its parametrization."""
        self._check_eager(after=[fuse, prepare], swapped=nniq.LinearReLU)

    def test_fusion_before_s_prep(self):
        """fuse_modules, then a sparsifier on the Linear inside the fused module."""
        self._check_eager(before=[fuse], after=[prepare], tensor_fqn="1.0.weight", swapped=nniq.LinearReLU)

    def test_s_prep_before_qat_prep(self):
        """A sparsifier, then prepare_qat: the swapped module takes the parametrization over."""
        self._check_eager(after=[prepare_qat], observed=nnqat.Linear)

    def test_qat_prep_before_s_prep(self):
        """prepare_qat, then a sparsifier on the module for quantization-aware training."""
        self._check_eager(before=[prepare_qat], observed=nnqat.Linear)

    def test_qconfig_of_single_modules(self):
        """A qconfig on the module of one name quantizes that one: the masked one carries its zeros, the others stay as they are."""
        engine = self.quantizing_engines("eager quantization")[0]
        for chosen in ("0", "2"):
            with self.subTest(chosen=chosen), build.quantized_engine(engine):
                model, x = linear_model(), inputs()
                masked = halved(array(model.get_submodule(chosen).weight))
                wrapped = tq.QuantWrapper(model.get_submodule(chosen))
                setattr(model, chosen, wrapped)
                wrapped.qconfig = tq.default_qconfig
                twin = prepare(copy.deepcopy(model))
                sparsifier = sparsified_model(model, f"{chosen}.module.weight", step=False)
                model = prepare(model)
                sparsifier.step()
                overwrite(twin.get_submodule(chosen).module.weight, masked)
                self.assertEqual(observers(model), observers(twin))
                self.assertEqual(model(x), twin(x), rtol=0, atol=0)
                sparsifier.squash_mask()
                model, twin = tq.convert(model, inplace=True), tq.convert(twin, inplace=True)
                kinds = [type(module) for module in model.modules() if isinstance(module, (nn.Linear, nnq.Linear))]
                self.assertEqual(sorted(kind.__module__ for kind in kinds), [nnq.Linear.__module__, nn.Linear.__module__])
                self.check_twins(model, twin, f"{chosen}.module", masked, f"only {chosen} is quantized")
                self.assertEqual(model(x), twin(x), rtol=0, atol=0)

    def test_pruned_model_quantizes_like_a_small_model(self):
        """A model that structured pruning made smaller is quantized like one that was built small."""
        engine = self.quantizing_engines("eager quantization")[0]
        x, model = inputs(), linear_model()
        rows = np.sort(np.argsort(np.abs(array(model[0].weight)).sum(axis=1))[4:])
        twin = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4))
        for name, part in (("0.weight", np.s_[rows]), ("0.bias", np.s_[rows]), ("2.weight", np.s_[:, rows]), ("2.bias", np.s_[:])):
            overwrite(twin.get_parameter(name), array(model.get_parameter(name))[part])
        pruner = SaliencyPruner({"sparsity_level": 0.5})
        pruner.prepare(model, [{"tensor_fqn": "0.weight"}])
        pruner.enable_mask_update = True
        pruner.step()
        answers = []
        with build.quantized_engine(engine):
            for small in (pruner.prune(), twin):
                wrapped = tq.QuantWrapper(small)
                wrapped.qconfig = tq.default_qconfig
                prepare(wrapped)(x)
                answers.append(tq.convert(wrapped, inplace=True)(x))
        self.assertEqual(answers[0], answers[1], rtol=0, atol=0)

    def test_quantize_dynamic_keeps_squashed_zeros(self):
        """A squashed model quantized dynamically holds integer zeros where the mask was zero."""
        engine = self.quantizing_engines("dynamic quantization")[0]
        model = linear_model()
        masked = halved(array(model[0].weight))
        sparsified_model(model).squash_mask()
        with build.quantized_engine(engine):
            integers = tq.quantize_dynamic(model, {nn.Linear})[0].weight().int_repr().numpy()
        np.testing.assert_array_equal(integers[masked == 0], 0)
        self.assertGreater(np.count_nonzero(integers), masked.size // 4)

    @known_defect("squash-misses-layers-that-qat-swapped")
    def test_squash_after_qat_prep_leaves_no_parametrization(self):
        """squash_mask() removes the masks from the model that was prepared, also where prepare_qat swapped its layers."""
        model = stub_model()
        model.qconfig = tq.default_qat_qconfig
        sparsifier = sparsified_model(model, "1.weight")
        model = prepare_qat(model)
        sparsifier.squash_mask()
        self.assertEqual(f"{sorted(parametrized_tensors(model))} parametrized", "[] parametrized")

    @on_every_device
    def test_to_between_prepare_and_step(self, device):
        """Module.to between prepare() and step() takes the masks along; step() then masks the moved weights."""
        targets = [(device, torch.float64)] if device != "mps" else [(device, torch.float32)]
        for target in [*targets, (device, torch.float32)]:
            with self.subTest(target=target):
                model = linear_model()
                sparsifier = sparsified_model(model, step=False)
                model.to(*target)
                masked = halved(array(model[0].weight))
                sparsifier.step()
                weight, mask = model[0].weight, model[0].parametrizations.weight[0].mask
                self.assertEqual([(t.device.type, t.dtype) for t in (weight, model(inputs().to(*target)))], [target] * 2)
                self.assertEqual(mask.device.type, device)
                self.assertEqual(array(weight), masked, rtol=0, atol=0)

    @known_defect("saved-masks-stay-behind-module-to")
    def test_saved_masks_follow_module_to(self):
        """state_dict() holds the masks in use, also after the model went to another dtype or device, and those of squashed layers."""
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
        parametrize.register_parametrization(model[1], "bias", nn.Tanh())
        parametrize.register_parametrization(model[2], "weight", nn.Identity())
        sparsifier = weight_norm_sparsifier()
        names = ["0.weight", "1.weight", "2.weight"]
        sparsifier.prepare(model, [{"tensor_fqn": name} for name in names])
        parametrize.register_parametrization(model[1], "weight", nn.Identity())
        model.to(torch.float64)
        masks = [layer.parametrizations.weight[index].mask for layer, index in zip(model, (0, 0, 1))]
        for mask in masks:
            mask[:4] = 0
        for stage in ("moved", "squashed"):
            for name, mask in zip(names, masks):
                saved = sparsifier.state_dict()["state"][name]["mask"]
                self.assertEqual(f"{saved.sum().item():.0f} ones of 64 in the saved mask", "32 ones of 64 in the saved mask")
                self.assertEqual(saved, mask, msg=stage)
            if stage == "moved":
                sparsifier.squash_mask()

    def test_two_of_four_masks_feed_semi_structured_tensors(self):
        """A weight under a 2:4 mask converts to a semi-structured sparse tensor, whose product is that of the dense weight."""
        self.skip_unless_device("cuda")
        if torch.cuda.get_device_capability() < (8, 0):
            self.skipTest("semi-structured products (no sparse tensor cores)")
        model = nn.Sequential(nn.Linear(128, 64)).cuda()
        sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        sparsifier.step()
        sparsifier.squash_mask()
        weight = model.half()[0].weight.detach()
        self.assertEqual(torch.count_nonzero(weight.reshape(-1, 4), dim=1).cpu(), torch.full((64 * 32,), 2))
        x = torch.linspace(-1, 1, 64 * 128, device="cuda").reshape(64, 128).half()
        product = nn.functional.linear(x, torch.sparse.to_sparse_semi_structured(weight))
        expected = array(x).astype(np.float64) @ array(weight).astype(np.float64).T
        self.assertEqual(array(product).astype(np.float64), expected, rtol=1e-2, atol=1e-2)

    def test_deepcopy_is_independent(self):
        """A deep copy of a prepared model answers alike, and later steps of the original leave it alone."""
        model, x = linear_model(), inputs()
        sparsifier = sparsified_model(model)
        twin = copy.deepcopy(model)
        before = model(x)
        self.assertEqual(twin(x), before, rtol=0, atol=0)
        sparsifier.groups[0]["sparsity_level"] = 0.75
        sparsifier.step()
        self.assertEqual(array(model[0].weight), halved(array(model[0].parametrizations.weight.original), 0.75), rtol=0, atol=0)
        self.assertEqual(twin(x), before, rtol=0, atol=0)

    def test_save_and_load(self):
        """A squashed model travels as a state_dict (weights only) into a fresh model and as a whole module."""
        model, fresh, x = linear_model(), linear_model(), inputs()
        twin = masked_twin(model)
        sparsified_model(model).squash_mask()
        with io.BytesIO() as file:
            torch.save(model.state_dict(), file)
            file.seek(0)
            fresh.load_state_dict(torch.load(file, weights_only=True))
        with io.BytesIO() as file:
            torch.save(model, file)
            file.seek(0)
            whole = torch.load(file, weights_only=False)
        for name, loaded in (("state_dict", fresh), ("module", whole)):
            with self.subTest(saved=name):
                self.assertEqual(types_of(loaded), types_of(twin))
                self.assertEqual(loaded(x), twin(x), rtol=0, atol=0)

    def test_states_restore_a_fresh_pair(self):
        """The states of a model and of its sparsifier, saved and loaded into a fresh prepared pair, restore weights and masks."""
        model, x = linear_model(), inputs()
        masked = halved(array(model[0].weight))
        sparsifier = sparsified_model(model)
        with io.BytesIO() as file:
            torch.save((model.state_dict(), sparsifier.state_dict()), file)
            file.seek(0)
            weights, masks = torch.load(file, weights_only=False)
        fresh = linear_model()
        restored = sparsified_model(fresh, step=False)
        fresh.load_state_dict(weights, strict=False)  # masks travel with the sparsifier, not with the model
        restored.load_state_dict(masks)
        self.assertEqual(array(fresh[0].weight), masked, rtol=0, atol=0)
        self.assertEqual(fresh(x), model(x), rtol=0, atol=0)

    def test_optimizer_outlives_preparation(self):
        """An optimizer made before prepare() trains through the mask and after squash_mask(); masked entries get no gradient."""
        model, x = linear_model(), inputs()
        weight = model[0].weight
        masked = halved(array(weight))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        sparsifier = sparsified_model(model)
        dense = array(weight)
        model(x).square().sum().backward()
        optimizer.step()
        self.assertIs(model[0].parametrizations.weight.original, weight)
        moved = array(weight) != dense
        self.assertTrue(moved[masked != 0].any(), msg="kept entries are trained")
        self.assertFalse(moved[masked == 0].any(), msg="masked entries are not trained")
        sparsifier.squash_mask()
        self.assertIs(model[0].weight, weight)
        self.assertEqual(array(model[0].weight)[masked == 0], np.zeros(masked.size // 2, masked.dtype))

    def test_autocast(self):
        """Under autocast a masked model answers in bfloat16 like the model masked by hand; step() gives the same mask."""
        model, x = linear_model(), inputs()
        twin = masked_twin(model)
        sparsifier = sparsified_model(model, step=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            sparsifier.step()
            answer, expected = model(x), twin(x)
        self.assertEqual(answer.dtype, torch.bfloat16)
        self.assertEqual(answer, expected, rtol=0, atol=0)
        self.assertEqual(model[0].parametrizations.weight[0].mask.dtype, torch.float32)
        answer.float().sum().backward()
        expected.float().sum().backward()
        kept = torch.from_numpy(array(twin[0].weight) != 0)
        self.assertEqual(model[0].parametrizations.weight.original.grad, twin[0].weight.grad * kept, rtol=0, atol=0)

    @beside()  # torch.func.grad imports torch._dynamo
    def test_functional_call(self):
        """torch.func computes values and gradients of a prepared model from parameters handed in."""
        model, x = linear_model(), inputs()
        masked = halved(array(model[0].weight))
        sparsified_model(model)
        parameters = {name: parameter.detach() * 2 for name, parameter in model.named_parameters()}
        twin = copy.deepcopy(model)
        for name, parameter in twin.named_parameters():
            overwrite(parameter, array(parameters[name]))
        self.assertEqual(torch.func.functional_call(model, parameters, (x,)), twin(x), rtol=0, atol=0)
        gradients = torch.func.grad(lambda given: torch.func.functional_call(model, given, (x,)).square().sum())(parameters)
        gradient = array(gradients["0.parametrizations.weight.original"])
        self.assertEqual(gradient[masked == 0], np.zeros(masked.size // 2, masked.dtype))
        self.assertGreater(np.count_nonzero(gradient), masked.size // 4)

    @beside()
    def test_distributed_data_parallel(self):
        """DistributedDataParallel trains a prepared model like the model alone, over two steps of the sparsifier."""
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_gloo_available():
            self.skipTest("DistributedDataParallel (no gloo)")
        model, x = linear_model(), inputs()
        twin = copy.deepcopy(model)
        sparsifiers = [sparsified_model(model, step=False), sparsified_model(twin, step=False)]
        self.addCleanup(dist.set_debug_level, dist.get_debug_level())
        dist.set_debug_level(dist.DebugLevel.OFF)  # with more, torch wants a store of another kind
        os.environ.pop("GLOO_SOCKET_IFNAME", None)  # of a cluster's other machines; this process speaks to itself
        try:
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        except RuntimeError as error:
            if "Unable to find interface" not in str(error):
                raise
            self.skipTest("DistributedDataParallel (no network interface for gloo)")
        self.addCleanup(dist.destroy_process_group)
        wrapped = nn.parallel.DistributedDataParallel(model)
        for sparsifier, trained in zip(sparsifiers, (wrapped, twin)):
            optimizer = torch.optim.SGD(trained.parameters(), lr=0.5)
            for _ in range(2):
                optimizer.zero_grad()
                trained(x).square().sum().backward()
                optimizer.step()
                sparsifier.step()
        original = array(model[0].parametrizations.weight.original)
        self.assertEqual(array(model[0].weight), halved(original), rtol=0, atol=0)
        self.assertEqual(original, array(twin[0].parametrizations.weight.original), rtol=0, atol=0)
        self.assertEqual(wrapped(x), twin(x), rtol=0, atol=0)


class TestFxComposability(_Quiet, TestCase):
    """Sparsity in captured graphs: FX graph mode quantization, symbolic and eager tracing, compilation, export."""

    in_companion = True

    def _check_fx(
        self, order, reference=False, qat=False, make=linear_model, tensor_fqn="0.0.weight", swapped=nniq.LinearReLU, observed=nn.Linear
    ):
        """Prepare by ``order`` ("s" and "q"), step, calibrate, squash, convert to ``swapped``; compare with the twin."""
        from torch.ao.quantization import quantize_fx

        engine = self.quantizing_engines("FX graph mode quantization")[0]
        mapping = tq.QConfigMapping().set_global(tq.default_qat_qconfig if qat else tq.default_per_channel_qconfig)
        prepare = quantize_fx.prepare_qat_fx if qat else quantize_fx.prepare_fx
        convert = quantize_fx.convert_to_reference_fx if reference else quantize_fx.convert_fx
        x, conv = inputs(), make is ConvModel

        def capture(model):
            return prepare(model.train(qat), mapping, (x,), backend_config=native_backend())

        with build.quantized_engine(engine):
            model = make()
            masked = (every_second if conv else halved)(array(model[0].weight))
            twin = capture(copy.deepcopy(model))
            if order == "qs":
                model = copy.deepcopy(twin)
            sparsifier = GivenMasks() if conv else weight_norm_sparsifier()
            sparsifier.prepare(model, [{"tensor_fqn": tensor_fqn}])
            if order == "sq":
                model = capture(model)
            inner = "0" if qat else "0.0"
            self.assertEqual(parametrized_tensors(model), {f"{inner}.weight"}, msg="the parametrization survives")
            self.assertEqual(observers(model), observers(twin), msg="observers are where the plain model has them")
            self.assertEqual([str(node.target) for node in model.graph.nodes], [str(node.target) for node in twin.graph.nodes])
            self.assertEqual(types_of(model)[inner], observed)
            self.assertEqual(model(x), twin(x), rtol=0, atol=0, msg="preparing changes no value")

            sparsifier.step()
            overwrite(twin.get_submodule(inner).weight, masked)
            self.assertEqual(model(x), twin(x), rtol=0, atol=0, msg="the masked model computes with the mask")
            sparsifier.squash_mask()
            model, twin = (convert(each.eval(), backend_config=native_backend()) for each in (model, twin))
            layer = inner if reference else "0"
            self.assertIs(type(model.get_submodule(layer)), swapped)
            self.check_twins(model, twin, layer, masked, f"converted on {engine}")
            self.assertEqual(model(x), twin(x), rtol=0, atol=0)

    def test_q_prep_fx_before_s_prep(self):
        """prepare_fx, then a sparsifier on the Linear that was fused with its ReLU."""
        self._check_fx("qs")

    def test_s_prep_before_q_prep_fx(self):
        """A sparsifier, then prepare_fx: fusing keeps the parametrization, the quantized weight carries the zeros."""
        self._check_fx("sq", tensor_fqn="0.weight")

    def test_qconfig_by_module_name_fx(self):
        """QConfigMapping.set_module_name chooses one of two masked layers; both carry their zeros, quantized or not."""
        from torch.ao.quantization import quantize_fx

        engine = self.quantizing_engines("FX graph mode quantization")[0]
        for chosen, other in (("0", "1"), ("1", "0")):
            with self.subTest(chosen=chosen), build.quantized_engine(engine):
                model, x = qat_model(), inputs()
                masked = {name: halved(array(model.get_submodule(name).weight)) for name in ("0", "1")}
                mapping = tq.QConfigMapping().set_module_name(chosen, tq.default_per_channel_qconfig)
                twin = copy.deepcopy(model).eval()
                for name, weight in masked.items():
                    overwrite(twin.get_submodule(name).weight, weight)
                sparsifier = weight_norm_sparsifier()
                sparsifier.prepare(model, None)
                sparsifier.step()
                model, twin = (
                    quantize_fx.prepare_fx(each.eval(), mapping, (x,), backend_config=native_backend()) for each in (model, twin)
                )
                self.assertEqual(observers(model), observers(twin))
                self.assertEqual(model(x), twin(x), rtol=0, atol=0)
                self.assertEqual(parametrized_tensors(model), {"0.weight", "1.weight"})
                sparsifier.squash_mask()
                model, twin = (quantize_fx.convert_fx(each, backend_config=native_backend()) for each in (model, twin))
                self.assertIs(type(model.get_submodule(chosen)), nnq.Linear)
                self.assertIs(type(model.get_submodule(other)), nn.Linear)
                _, values = weight_in_integers(model.get_submodule(chosen))
                np.testing.assert_array_equal(values[masked[chosen] == 0], 0)
                self.assertEqual(array(model.get_submodule(other).weight), masked[other], rtol=0, atol=0)
                self.assertEqual(model(x), twin(x), rtol=0, atol=0)

    def test_s_prep_before_qat_prep_fx(self):
        """A sparsifier, then prepare_qat_fx: the module for quantization-aware training takes the parametrization over."""
        self._check_fx("sq", tensor_fqn="0.weight", qat=True, make=qat_model, swapped=nnq.Linear, observed=nnqat.Linear)

    def test_q_prep_fx_s_prep_ref_conv(self):
        """prepare_fx, then a sparsifier, then conversion to the reference model, of Linear and of Conv2d."""
        for make, swapped, observed in ((linear_model, nnqr.Linear, nn.Linear), (ConvModel, nnqr.Conv2d, nn.Conv2d)):
            with self.subTest(model=make.__name__):
                self._check_fx("qs", reference=True, make=make, swapped=swapped, observed=observed)

    def test_s_prep_q_prep_fx_ref(self):
        """A sparsifier, then prepare_fx, then conversion to the reference model."""
        self._check_fx("sq", tensor_fqn="0.weight", reference=True, swapped=nnqr.Linear)

    def test_symbolic_trace_follows_the_masks(self):
        """A graph traced from a prepared model computes with the masks of later steps, and without them after squash_mask()."""
        model, x = linear_model(), inputs()
        sparsifier = sparsified_model(model, step=False)
        graph = torch.fx.symbolic_trace(model)
        twin = masked_twin_of_prepared(model)
        sparsifier.step()
        self.assertEqual(graph(x), twin(x), rtol=0, atol=0, msg="after step")
        sparsifier.squash_mask()
        self.assertEqual(graph(x), twin(x), rtol=0, atol=0, msg="after squash_mask")

    def test_trace_follows_the_masks(self):
        """A model traced by torch.jit computes with the masks of later steps, and takes them along when saved."""
        self.skip_without_torchscript()
        model, x = linear_model(), inputs()
        sparsifier = sparsified_model(model, step=False)
        twin = masked_twin_of_prepared(model)
        traced = torch.jit.trace(model, x)
        sparsifier.step()
        with io.BytesIO() as file:
            torch.jit.save(traced, file)
            file.seek(0)
            loaded = torch.jit.load(file)
        for name, candidate in (("traced", traced), ("saved and loaded", loaded)):
            with self.subTest(candidate=name):
                self.assertEqual(candidate(x), twin(x), rtol=0, atol=0)

    def test_squashed_model_scripts(self):
        """A squashed model is a plain one to torch.jit.script (a parametrized one is documented not to be)."""
        self.skip_without_torchscript()
        model, x = linear_model(), inputs()
        twin = masked_twin(model)
        sparsified_model(model).squash_mask()
        self.assertEqual(torch.jit.script(model)(x), twin(x), rtol=0, atol=0)

    def test_compile_follows_the_masks(self):
        """A compiled model follows prepare(), step() and squash_mask(), and its gradients are masked."""
        self.skip_unless_compiles()
        model, x = linear_model(), inputs()
        sparsifier = sparsified_model(model)
        twin = masked_twin_of_prepared(model)
        follower = torch.compile(model, backend="eager")
        for stage, level in (("half", 0.5), ("three quarters", 0.75)):
            sparsifier.groups[0]["sparsity_level"] = level
            sparsifier.step()
            overwrite(twin[0].weight, halved(array(twin[0].weight), level))
            self.assertEqual(follower(x), twin(x), msg=stage)
        follower(x).sum().backward()
        gradient = array(model[0].parametrizations.weight.original.grad)
        masked = array(twin[0].weight) == 0
        self.assertEqual(gradient[masked], np.zeros(masked.sum(), gradient.dtype))
        self.assertGreater(np.count_nonzero(gradient), 0)
        sparsifier.squash_mask()
        self.assertEqual(follower(x), twin(x), msg="after squash_mask")

    @known_defect("compiler-refuses-to-trace-masks")
    def test_compile_takes_a_prepared_model_as_one_graph(self):
        """torch.compile(fullgraph=True) takes a prepared model, as it takes one with any parametrization of a user."""
        self.skip_unless_compiles()
        model, x = linear_model(), inputs()
        sparsified_model(model)
        self.assertEqual(compiled(model, x), model(x))

    @known_defect("export-in-torch-2-5-loses-the-masks")
    def test_export_carries_the_masks(self):
        """An exported prepared model holds weight and mask apart, and computes with both after save and load."""
        self.skip_unless_exports()
        model, x = linear_model(), inputs()
        twin = masked_twin(model)
        sparsified_model(model)
        try:
            program = exported(model, x)
        except Exception:
            if refusal(exported) is None:
                raise
            self.skipTest(f"torch.export (not of parametrized models here: {refusal(exported)})")
        self.assertEqual(program.module()(x), twin(x))
        held = {**getattr(program, "constants", {}), **program.state_dict}  # the mask is a constant of the program before torch 2.6
        self.assertIn("0.parametrizations.weight.original", held)
        self.assertEqual(held["0.parametrizations.weight.0.mask"], array(twin[0].weight) != 0, exact_dtype=False)
