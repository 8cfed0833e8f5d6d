"""The layers made of the kernels, and the context that chooses the block shape of dynamic ones."""

import contextlib
import copy
import io
import itertools
import pickle
import re
import threading

from ao.sparsity.testing.kernels import (  # first: it asks whether there is a torch to validate
    BLOCK,
    COLUMN_BLOCK,
    KEPT,
    KernelCase,
    float_tensor,
    bias_of,
    quantized_input,
    quantized_weight,
    real_input,
    stored_input,
)

import numpy as np
import torch
import torch.ao.nn.intrinsic as nni
import torch.ao.nn.quantized as nnq
import torch.ao.nn.quantized.dynamic as nnqd
import torch.ao.nn.sparse.quantized as nnsq
import torch.ao.nn.sparse.quantized.dynamic as nnsqd
import torch.ao.quantization as tq
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize as over, subtest
from torch.ao.nn.sparse.quantized.utils import LinearBlockSparsePattern
from torch.ao.pruning import WeightNormSparsifier, get_dynamic_sparse_quantized_mapping, get_static_sparse_quantized_mapping

from ao.sparsity.testing import build
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.oracles import quantized as oracle


class SparseQuantizedModel(nn.Module):
    """One linear layer under the name ``linear``."""

    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)

    def forward(self, x):
        return self.linear(x)


STATIC, DYNAMIC = nnsq.Linear, nnsqd.Linear
MODE_OF = {STATIC: "static", DYNAMIC: "dynamic"}
PRECOMPUTED_QPARAMS = (2, 4)  # the release that brought use_precomputed_fake_quant
EXPLICIT_CHECKS = (2, 13)  # the release whose checks are known to have texts; before, some are bare assert statements
STATIC_QCONFIG = tq.QConfig(
    activation=tq.MinMaxObserver.with_args(dtype=torch.quint8, reduce_range=True), weight=tq.default_weight_observer
)
PER_CHANNEL_QCONFIG = tq.QConfig(activation=STATIC_QCONFIG.activation, weight=tq.default_per_channel_weight_observer)


def _sparse_layer_test_helper(model_class, sparse_mapping, ref_mapping, qconfig, fqn_to_check, test_class, test_scripting):
    """Sparsify a model, convert it with a sparse and with a dense mapping, and compare the two.

    Args:
        model_class: called with (in_features, out_features).
        sparse_mapping, ref_mapping: from the float to the quantized type, as ``torch.ao.quantization.convert`` takes them.
        qconfig: how weights and activations are quantized.
        fqn_to_check: name of the layer under test.
        test_class: the TestCase that asserts.
        test_scripting: script the sparse model, save and load it, and go on with what was loaded.
    """
    model = model_class(12, 9).eval()
    with torch.no_grad():
        model.get_submodule(fqn_to_check).weight.copy_(float_tensor(oracle.block_sparse(9, 12, BLOCK, KEPT["every block"])) / 64)
    sparsifier = WeightNormSparsifier(sparsity_level=1 / 3, sparse_block_shape=BLOCK, zeros_per_block=4)
    sparsifier.prepare(model, [{"tensor_fqn": f"{fqn_to_check}.weight"}])
    sparsifier.step()
    sparsifier.squash_mask(params_to_keep=("sparse_block_shape",))

    model.qconfig = qconfig
    tq.prepare(model, inplace=True) if nn.Linear in sparse_mapping and sparse_mapping[nn.Linear] is STATIC else tq.propagate_qconfig_(model)
    x = float_tensor(real_input((5,), 12, scale=1 / 128))
    model(x)
    sparse = tq.convert(model, mapping=sparse_mapping)
    dense = tq.convert(model, mapping=ref_mapping)
    if isinstance(dense.get_submodule(fqn_to_check), nnqd.Linear):
        dense.get_submodule(fqn_to_check).version = 3  # the version that quantizes its input to 8 bits, as the sparse layer does

    swapped = sparse.get_submodule(fqn_to_check)
    weight, bias, *block = swapped._weight_bias()
    test_class.assertIs(type(swapped), sparse_mapping[nn.Linear])
    test_class.assertEqual(tuple(block), BLOCK)
    test_class.assertEqual(weight, dense.get_submodule(fqn_to_check).weight())
    test_class.assertEqual(bias, model.get_submodule(fqn_to_check).bias)
    blocks = np.abs(weight.int_repr().numpy()).reshape(9, 3, 4).sum(axis=2)
    test_class.assertEqual((blocks == 0).sum(), 9, msg="blocks of zeros in the quantized weight")

    if type(swapped) is STATIC:
        x = torch.quantize_per_tensor(x, 1 / 64, 64, torch.quint8)
    if test_scripting:
        sparse = _save_load_scripted(torch.jit.script(sparse))
    test_class.assertEqual(sparse(x), dense(x))


def _with(state, **entries):
    """The state_dict, its metadata kept, with further entries."""
    state.update(entries)
    return state


def _loadable(module):
    """The module's state_dict, with the ``op_type`` that the static Linear asks for where it cannot load its own."""
    state = module.state_dict()
    try:
        module.load_state_dict(state)
    except KeyError:
        state["op_type"] = 0
    return state


def _save_load_scripted(module):
    """The scripted module after torch.jit.save and load."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@instantiate_parametrized_tests
class TestQuantizedSparseLayers(KernelCase):
    """torch.ao.nn.sparse.quantized: the static and the dynamic Linear, their packed parameters, and how they are made."""

    def layer(self, kind, rows=8, columns=12, bias=True):
        """A layer with known weight (scale 0.25) and bias, for the selected engine."""
        layer = kind(columns, rows, *BLOCK, bias=bias)
        weight = quantized_weight(oracle.block_sparse(rows, columns, BLOCK, KEPT["a chessboard of blocks"]), 0.25)
        layer.set_weight_bias(weight, float_tensor(bias_of(rows)) if bias else None, *BLOCK)
        return layer

    def assertLayer(self, layer, kind, rows=8, columns=12, bias=True):
        """``layer`` holds what layer() put there."""
        w = oracle.block_sparse(rows, columns, BLOCK, KEPT["a chessboard of blocks"])
        weight, found, *block = layer._weight_bias()
        self.assertIs(type(layer), kind)
        self.assertExact(weight, quantized_weight(w, 0.25))
        self.assertListEqual(block, list(BLOCK))
        if bias:
            self.assertExact(found, float_tensor(bias_of(rows)))

    def float_linear(self, kind, qconfig=None, **options):
        """A float linear that is ready for ``kind.from_float``: sparse blocks, qconfig, calibrated where that is asked for."""
        linear = nn.Linear(12, 9, **options)
        with torch.no_grad():
            linear.weight.copy_(float_tensor(oracle.block_sparse(9, 12, BLOCK, KEPT["a chessboard of blocks"])) / 64)
        linear.qconfig = qconfig or STATIC_QCONFIG
        if kind is STATIC:
            linear.sparse_params = {"sparse_block_shape": BLOCK}
            linear.activation_post_process = tq.MinMaxObserver(dtype=torch.quint8)
            linear.activation_post_process(torch.tensor([-1.0, 3.0]))
        return linear

    @contextlib.contextmanager
    def assertRefuses(self, message):
        """The block raises AssertionError, with this text from the release on that has one for every check."""
        with self.assertRaises(AssertionError) as caught:
            yield
        if build.TORCH_VERSION >= EXPLICIT_CHECKS:
            self.assertMultiLineEqual(str(caught.exception), message)

    def kinds(self, mode=None):
        """(kind, engine) for every engine that packs, or with ``mode="run"`` for every one that runs the kind."""
        pairs = [(kind, engine) for kind in (STATIC, DYNAMIC) for engine in build.engines_with("pack" if mode is None else MODE_OF[kind])]
        if not pairs:
            self.skipTest("packed weights (no fbgemm, no qnnpack)")
        return pairs

    def test_sparse_qlinear(self):
        """convert: swaps in the sparse Linear, keeps block shape, weight, zeros and bias; the output is the dense model's."""
        for kind, engine in self.kinds("run"):
            mapping, reference = {
                STATIC: (tq.get_default_static_sparse_quant_module_mappings(), tq.get_default_static_quant_module_mappings()),
                DYNAMIC: (tq.get_default_dynamic_sparse_quant_module_mappings(), tq.get_default_dynamic_quant_module_mappings()),
            }[kind]
            self.assertIs(mapping[nn.Linear], kind)
            for qconfig in (STATIC_QCONFIG, PER_CHANNEL_QCONFIG):
                with self.subTest(kind=kind, engine=engine, weight=qconfig.weight), build.quantized_engine(engine):
                    _sparse_layer_test_helper(SparseQuantizedModel, mapping, reference, qconfig, "linear", self, False)

    def test_sparse_qlinear_serdes(self):
        """torch.jit: the converted model, scripted, saved and loaded, still gives the dense model's output."""
        self.skip_without_torchscript()
        for kind, engine in self.kinds("run"):
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                mappings = {nn.Linear: kind}, {nn.Linear: {STATIC: nnq.Linear, DYNAMIC: nnqd.Linear}[kind]}
                _sparse_layer_test_helper(SparseQuantizedModel, *mappings, PER_CHANNEL_QCONFIG, "linear", self, True)

    def test_mappings_of_pruning_name_the_sparse_layers(self):
        """torch.ao.pruning: its static and dynamic mappings lead from nn.Linear to the sparse layers, and are fresh dicts."""
        for mapping, kind in ((get_static_sparse_quantized_mapping, STATIC), (get_dynamic_sparse_quantized_mapping, DYNAMIC)):
            with self.subTest(mapping=mapping.__name__):
                self.assertEqual(mapping(), {nn.Linear: kind})
                self.assertIsNot(mapping(), mapping())

    def test_constructor(self):
        """Linear: the features, block sizes, qint8 weight per tensor with scale 1, zero bias, output scale 1 and zero point 0."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                layer = kind(12, 8, *BLOCK)
                weight, bias, *block = layer._weight_bias()
                self.assertTupleEqual((layer.in_features, layer.out_features, layer.training), (12, 8, True))
                self.assertTupleEqual((tuple(weight.shape), weight.dtype), ((8, 12), torch.qint8))
                self.assertTupleEqual((weight.qscheme(), weight.q_scale(), weight.q_zero_point()), (torch.per_tensor_affine, 1.0, 0))
                self.assertTupleEqual((bias.tolist(), bias.dtype, block), ([0.0] * 8, torch.float32, list(BLOCK)))
                self.assertEqual(layer._packed_params.dtype, torch.qint8)
                self.assertIsInstance(layer._packed_params, nnsq.LinearPackedParams)
                self.assertTupleEqual((list(layer.parameters()), list(layer.buffers())), ([], []))
                if kind is STATIC:
                    self.assertTupleEqual((layer.scale, layer.zero_point), (1.0, 0))

    def test_bias_is_float32_whatever_the_default(self):
        """Linear: the kernels take a bias in float32, so a new layer has one under any default dtype."""
        torch.set_default_dtype(torch.float64)
        self.addCleanup(torch.set_default_dtype, torch.float32)
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                self.assertIs(kind(12, 8, *BLOCK).bias().dtype, torch.float32)

    def test_constructor_without_bias(self):
        """Linear(bias=False): has no bias, where the engine can tell that from a bias of zeros."""
        for engine in self.engines("static"):
            for kind in (STATIC, DYNAMIC):
                with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                    self.assertIsNone(kind(12, 8, *BLOCK, bias=False).bias())
                    self.assertIsNone(kind(12, 8, *BLOCK, False).bias())

    def test_constructor_takes_the_block_shape_of_the_engine(self):
        """Linear: rows before columns, every shape that the engine packs; another is refused."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                if build.sparse_qlinear_refusal(engine, "pack", COLUMN_BLOCK) is None:
                    self.assertEqual(kind(12, 8, *COLUMN_BLOCK)._weight_bias()[2:], COLUMN_BLOCK)
                    packed = nnsq.LinearPackedParams(row_block_size=8, col_block_size=1)
                    self.assertEqual(packed._weight_bias()[2:], COLUMN_BLOCK)
                else:
                    with self.assertRaisesRegex(RuntimeError, "block size"):
                        kind(12, 8, *COLUMN_BLOCK)
                with self.assertRaises(RuntimeError):
                    kind(12, 8, 0, 4)

    def test_only_qint8_is_supported(self):
        """Linear, LinearPackedParams: another dtype raises NotImplementedError, which says what refuses it, on any build."""
        for dtype in (torch.quint8, torch.float16):
            for make, message in (
                (lambda: STATIC(12, 8, *BLOCK, dtype=dtype), "^Only QINT8 is supported for Sparse Quantized Linear$"),
                (lambda: DYNAMIC(12, 8, *BLOCK, dtype=dtype), "^Only QINT8 is supported for Sparse Quantized Linear Dynamic$"),
                (lambda: nnsq.LinearPackedParams(*BLOCK, dtype=dtype), "^Linear prepacking only"),
            ):
                with self.subTest(dtype=dtype, message=message), self.assertRaisesRegex(NotImplementedError, message):
                    make()

    def test_set_weight_bias_needs_both_block_sizes(self):
        """set_weight_bias: a block size of None is an error that names it, and changes nothing."""
        for kind, engine in self.kinds():
            with build.quantized_engine(engine):
                layer = self.layer(kind)
                for target in (layer, layer._packed_params):
                    weight = quantized_weight(np.ones((3, 5)))
                    for block in ((None, 4), (1, None), (None, None)):
                        with self.subTest(kind=kind, engine=engine, target=type(target), block=block):
                            with self.assertRefuses(
                                "row_block_size and col_block_size must not be None, got "
                                f"row_block_size={block[0]}, col_block_size={block[1]}"
                            ):
                                target.set_weight_bias(weight, None, *block)
                            self.assertLayer(layer, kind)
                            self.assertTupleEqual((layer.in_features, layer.out_features), (12, 8))

    def test_layers_check_block_sizes_before_they_hand_them_on(self):
        """set_weight_bias of the layers: their own check comes first, whatever their packed parameters would accept."""
        for kind, engine in self.kinds():
            with build.quantized_engine(engine):
                layer = self.layer(kind)
                layer._packed_params.set_weight_bias = lambda *arguments: None
                for block in ((None, 4), (1, None)):
                    with self.subTest(kind=kind, engine=engine, block=block), self.assertRaises(AssertionError):
                        layer.set_weight_bias(quantized_weight(np.ones((8, 12))), None, *block)

    def test_layers_hand_on_what_they_are_given(self):
        """set_weight_bias of the layers: weight, bias and just these block sizes, also others than the layer was made with."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                layer, calls = self.layer(kind), []
                layer._packed_params.set_weight_bias = lambda *arguments: calls.append(arguments)
                given = quantized_weight(np.ones((8, 12))), torch.ones(8), 8, 1
                layer.set_weight_bias(*given)
                self.assertEqual(calls[-1], given)

    def test_set_weight_bias_replaces_both(self):
        """set_weight_bias: the new weight, bias and block sizes are what weight(), bias() and _weight_bias() return."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                layer, weight = self.layer(kind), quantized_weight(oracle.block_sparse(8, 12, BLOCK, KEPT["every third row"]), [0.5] * 8)
                layer.set_weight_bias(weight, torch.full((8,), 3.0), *BLOCK)
                self.assertEqual(layer.weight(), weight)
                self.assertEqual(layer.bias(), torch.full((8,), 3.0))
                self.assertEqual(layer._weight_bias()[2:], BLOCK)
                self.assertEqual(layer._packed_params._weight_bias()[2:], BLOCK)

    def test_bias_that_was_computed_is_the_layer_s_bias(self):
        """set_weight_bias, bias: a bias may be the result of an operation that autograd follows, as that of a fused layer is."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                layer = self.layer(kind)
                layer.set_weight_bias(layer.weight(), nn.Parameter(float_tensor(bias_of(8))) * 2, *BLOCK)
                self.assertExact(layer.bias().detach(), float_tensor(bias_of(8)) * 2)

    def test_dynamic_set_weight_bias_takes_the_features(self):
        """dynamic.Linear.set_weight_bias: in_features and out_features follow the weight's shape."""
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                layer = DYNAMIC(12, 8, *BLOCK)
                layer.set_weight_bias(quantized_weight(np.ones((3, 5))), None, *BLOCK)
                self.assertTupleEqual((layer.in_features, layer.out_features), (5, 3))

    def test_forward_equals_integer_model(self):
        """Linear.forward: the kernel with the layer's own weight, bias, scale and zero point."""
        w = oracle.block_sparse(8, 12, BLOCK, KEPT["a chessboard of blocks"])
        for kind, engine in self.kinds("run"):
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                layer = self.layer(kind)
                if kind is STATIC:
                    layer.scale, layer.zero_point = 32.0, 90
                    stored = stored_input((2, 3), 12, 127)
                    expected = oracle.static_linear(stored, 0.5, 3, w, 0.25, bias_of(8), 32.0, 90)
                    result = layer(quantized_input(stored, 0.5, 3))
                    self.assertTupleEqual((result.q_scale(), result.q_zero_point()), (32.0, 90))
                    self.assertExact(result.int_repr(), torch.tensor(expected, dtype=torch.uint8))
                else:
                    x = real_input((2, 3), 12)
                    self.assertExact(layer(float_tensor(x)), float_tensor(oracle.dynamic_linear(x, w, 0.25, bias=bias_of(8))))

    def test_packed_params_are_an_identity_module(self):
        """LinearPackedParams: defaults 1 x 4 and one 1 x 1 weight without bias; forward returns its argument itself."""
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                packed, x = nnsq.LinearPackedParams(), torch.ones(2)
                weight, bias, rows, columns = packed._weight_bias()
                self.assertIs(packed(x), x)
                self.assertTupleEqual((rows, columns, packed.dtype, tuple(weight.shape)), (*BLOCK, torch.qint8, (1, 1)))
                self.assertTupleEqual((weight.q_scale(), weight.q_zero_point(), weight.dtype), (1.0, 0, torch.qint8))
                if build.sparse_qlinear_refusal(engine, "static") is None:
                    self.assertIsNone(bias)

    def test_repr(self):
        """repr: names, features, output parameters and scheme; the packed parameters are hidden in the layer's."""
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                static, dynamic = self.layer(STATIC), self.layer(DYNAMIC)
                static.scale, static.zero_point = 0.5, 7
                self.assertExpectedInline(
                    repr(static),
                    "SparseQuantizedLinear(in_features=12, out_features=8, scale=0.5, zero_point=7, qscheme=torch.per_tensor_affine)",
                )
                self.assertExpectedInline(
                    repr(dynamic),
                    "SparseQuantizedDynamicLinear(in_features=12, out_features=8, qscheme=torch.per_tensor_affine)",
                )
                packed = nnsq.LinearPackedParams()
                packed.set_weight_bias(quantized_weight([[2]], 0.5), torch.ones(1), *BLOCK)
                self.assertExpectedInline(
                    repr(packed),
                    """\
(tensor([[1.]], size=(1, 1), dtype=torch.qint8,
       quantization_scheme=torch.per_tensor_affine, scale=0.5, zero_point=0), tensor([1.]), 1, 4)""",
                )
                self.assertEqual(packed._get_name(), "SparseQuantizedLinearPackedParams")
                self.assertTupleEqual((STATIC._get_name(), dynamic._get_name()), ("SparseQuantizedLinear", "SparseQuantizedDynamicLinear"))

    def test_repr_shows_a_child(self):
        """repr: a module that was added to the layer is shown, unlike the packed parameters."""
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                layer = self.layer(DYNAMIC)
                layer.observer = nn.Identity()
                self.assertIn("(observer): Identity()", repr(layer))
                self.assertNotIn("_packed_params", repr(layer))

    def test_state_dict(self):
        """state_dict: dtype, (weight, bias, block sizes), and scale and zero point, or op_type where it is dynamic; version 1."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                model = nn.Sequential(self.layer(kind))
                state = model.state_dict()
                own = ["0.scale", "0.zero_point"] if kind is STATIC else ["0.op_type"]
                self.assertEqual(list(state), [*own, "0._packed_params.dtype", "0._packed_params._packed_params"])
                weight, bias, *block = state["0._packed_params._packed_params"]
                self.assertEqual(weight, model[0].weight())
                self.assertExact(bias, float_tensor(bias_of(8)))
                self.assertListEqual(block, list(BLOCK))
                self.assertIs(state["0._packed_params.dtype"], torch.qint8)
                if kind is STATIC:
                    model[0].scale, model[0].zero_point = 0.5, 7
                    state = model.state_dict()
                    scale, zero_point = state["0.scale"], state["0.zero_point"]
                    self.assertTupleEqual((scale.item(), zero_point.item()), (0.5, 7))
                    self.assertTupleEqual((scale.shape, zero_point.shape), ((), ()), "as those of the dense nnq.Linear")
                    self.assertTupleEqual((scale.is_floating_point(), zero_point.dtype), (True, torch.int64), "as those of nnq.Linear")
                else:
                    self.assertEqual(state["0.op_type"], "sparse_dynamic")
                versions = {name: entry["version"] for name, entry in state._metadata.items() if name}
                self.assertEqual(versions, {"0": 1, "0._packed_params": 1})

    def test_state_dict_is_saved_and_loaded_by_torch(self):
        """torch.save, torch.load: the state_dict passes unchanged, weights-only too."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                state = self.layer(kind).state_dict()
                buffer = io.BytesIO()
                torch.save(state, buffer)
                buffer.seek(0)
                loaded = torch.load(buffer)
                self.assertEqual(list(loaded), list(state))
                self.assertEqual(loaded["_packed_params._packed_params"], state["_packed_params._packed_params"])

    def test_packed_params_load_their_state_dict(self):
        """LinearPackedParams: a state_dict loaded into others gives the same weight, bias, block sizes and dtype."""
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                source, target = nn.Sequential(self.layer(STATIC)._packed_params), nn.Sequential(nnsq.LinearPackedParams())
                state = source.state_dict()
                keys = list(state)
                self.assertEqual(str(target.load_state_dict(state)), "<All keys matched successfully>")
                self.assertEqual(target[0]._weight_bias(), source[0]._weight_bias())
                self.assertIs(target[0].dtype, torch.qint8)
                self.assertEqual(list(state), keys)

    def test_packed_params_load_the_block_shape_of_the_state(self):
        """LinearPackedParams: rows and columns of a block come from the state, in this order."""
        engines = [engine for engine in self.engines("pack") if build.sparse_qlinear_refusal(engine, "pack", COLUMN_BLOCK) is None]
        if not engines:
            self.skipTest("packed weights with 8 x 1 blocks (no qnnpack)")
        for engine in engines:
            with self.subTest(engine=engine), build.quantized_engine(engine):
                source, target = nnsq.LinearPackedParams(*COLUMN_BLOCK), nnsq.LinearPackedParams()
                target.load_state_dict(source.state_dict())
                self.assertEqual(target._weight_bias()[2:], COLUMN_BLOCK)

    def test_static_linear_loads_scale_weight_and_bias(self):
        """Linear.load_state_dict: scale, zero point, weight and bias come from the state, as Python numbers the first two."""
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                source, target = self.layer(STATIC), STATIC(12, 8, *BLOCK)
                source.scale, source.zero_point = 0.5, 7
                state = _loadable(source)
                self.assertEqual(str(target.load_state_dict(state)), "<All keys matched successfully>")
                self.assertLayer(target, STATIC)
                self.assertTupleEqual((target.scale, target.zero_point), (0.5, 7))
                self.assertTupleEqual((type(target.scale), type(target.zero_point)), (float, int))

    def test_static_linear_takes_what_it_loads_out_of_the_state(self):
        """Linear._load_from_state_dict: a subclass finds in the state only what the layer did not load, as with nnq.Linear."""

        class Watching(nnsq.Linear):
            def _load_from_state_dict(self, state_dict, *args):
                super()._load_from_state_dict(state_dict, *args)
                self.left = {"scale", "zero_point"} & state_dict.keys()

        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                target = Watching(12, 8, *BLOCK)
                target.load_state_dict(_loadable(self.layer(STATIC)))
                self.assertSetEqual(target.left, set())

    def test_state_dict_carries_further_tensors(self):
        """state_dict, load_state_dict: parameters and buffers that were added to a layer are saved, kept and loaded."""
        for engine in self.engines("pack"):
            for make in (lambda: self.layer(STATIC), lambda: self.layer(DYNAMIC), lambda: self.layer(STATIC)._packed_params):
                with build.quantized_engine(engine):
                    source, target, other = make(), make(), make()
                    with self.subTest(engine=engine, module=type(source)):
                        for module, note in ((source, torch.ones(2)), (target, torch.zeros(2)), (other, torch.zeros(3))):
                            module.register_buffer("note", note)
                            module.register_parameter("gain", nn.Parameter(torch.ones(1)))
                        self.assertExact(source.state_dict()["note"], torch.ones(2))
                        self.assertIs(source.state_dict(keep_vars=True)["gain"], source.gain)
                        if type(source) is DYNAMIC:
                            continue
                        state = _loadable(source)
                        target.load_state_dict(state)
                        self.assertExact(target.note, torch.ones(2))
                        with self.assertRaisesRegex(RuntimeError, "size mismatch for note"):
                            other.load_state_dict(state)

    def test_newer_version_is_refused(self):
        """load_state_dict: a state of a later version than the class knows is an error that names both; none at all is not."""
        for engine in self.engines("pack"):
            for make in (lambda: self.layer(STATIC)._packed_params, lambda: self.layer(STATIC)):
                with build.quantized_engine(engine):
                    module = make()
                    for version, refused in ((2, True), (1, False), (None, False)):
                        with self.subTest(engine=engine, module=type(module), version=version):
                            state = _loadable(module)
                            state._metadata[""]["version"] = version
                            if refused:
                                with self.assertRefuses("version 2 > self._version 1"):
                                    module.load_state_dict(state)
                            elif version is not None or build.TORCH_VERSION >= EXPLICIT_CHECKS:
                                module.load_state_dict(state)

    def test_dynamic_linear_refuses_another_op_type(self):
        """dynamic.Linear: a state of another kind of layer is an error."""
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                layer = self.layer(DYNAMIC)
                with self.assertRefuses("Cannot load from op_type [3], expecting [sparse_dynamic]"):
                    layer.load_state_dict(_with(layer.state_dict(), op_type=3))

    def test_copies_are_equal_and_apart(self):
        """copy.deepcopy, pickle, torch.save: the same weight, bias, mode and features; the copy's weight is its own."""
        ways = {
            "deepcopy": copy.deepcopy,
            "pickle": lambda module: pickle.loads(pickle.dumps(module)),
            "torch.save": _save_load,
        }
        for kind, engine in self.kinds():
            for training, (name, way) in enumerate(ways.items()):
                with self.subTest(kind=kind, engine=engine, way=name), build.quantized_engine(engine):
                    layer = self.layer(kind).train(bool(training))
                    duplicate = way(layer)
                    self.assertLayer(duplicate, kind)
                    self.assertTupleEqual((duplicate.training, duplicate._packed_params.training), (bool(training),) * 2)
                    self.assertIs(duplicate._packed_params.dtype, torch.qint8)
                    self.assertTupleEqual((duplicate.in_features, duplicate.out_features), (12, 8))
                    duplicate.set_weight_bias(quantized_weight(np.ones((8, 12))), None, *BLOCK)
                    self.assertLayer(layer, kind)

    def test_packed_params_unpickle_what_earlier_releases_pickled(self):
        """LinearPackedParams: a saved model holds (packed parameters, mode, dtype), in this order in every release; it can be loaded."""
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                packed = self.layer(STATIC)._packed_params._packed_params
                loaded = nnsq.LinearPackedParams.__new__(nnsq.LinearPackedParams)
                loaded.__setstate__((packed, False, torch.qint8))
                self.assertIs(loaded._packed_params, packed)
                self.assertTupleEqual((loaded.training, loaded.dtype), (False, torch.qint8))

    def test_copies_compute_the_same(self):
        """copy.deepcopy, pickle: the copy's output is the layer's."""
        for kind, engine in self.kinds("run"):
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                layer = self.layer(kind)
                x = quantized_input(stored_input((3,), 12, 127), 0.5) if kind is STATIC else float_tensor(real_input((3,), 12))
                for duplicate in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
                    self.assertEqual(duplicate(x), layer(x))

    def test_scripted_layers(self):
        """torch.jit.script, save, load, freeze: output, mode and packed parameters survive, and the latter can be set."""
        self.skip_without_torchscript()
        for kind, engine in self.kinds("run"):
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                layer = self.layer(kind).eval()
                x = quantized_input(stored_input((3,), 12, 127), 0.5) if kind is STATIC else float_tensor(real_input((3,), 12))
                scripted, expected = torch.jit.script(layer), layer(x)
                for module in (scripted, _save_load_scripted(scripted), copy.deepcopy(scripted)):
                    self.assertExact(module(x), expected)
                    self.assertTupleEqual((module.training, module._packed_params.training), (False, False))
                    self.assertExact(module._packed_params._weight_bias()[0], layer.weight())
                self.assertExact(torch.jit.freeze(scripted)(x), expected)
                scripted._packed_params.set_weight_bias(quantized_weight([[2]], 0.5), torch.ones(1), *BLOCK)
                self.assertExact(scripted._packed_params._weight_bias()[1], torch.ones(1))

    def test_traced_scripted_layers(self):
        """torch.jit.trace: the traced layer gives the layer's output."""
        self.skip_without_torchscript()
        for kind, engine in self.kinds("run"):
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                layer = self.layer(kind).eval()
                x = quantized_input(stored_input((3,), 12, 127), 0.5) if kind is STATIC else float_tensor(real_input((3,), 12))
                self.assertExact(torch.jit.trace(layer, x)(x), layer(x))

    def test_from_float(self):
        """from_float: weight quantized by the qconfig's observer, bias and features kept, output parameters of the observer."""
        w = oracle.block_sparse(9, 12, BLOCK, KEPT["a chessboard of blocks"])
        for kind, engine in self.kinds():
            for qconfig in (STATIC_QCONFIG, PER_CHANNEL_QCONFIG):
                with self.subTest(kind=kind, engine=engine, weight=qconfig.weight), build.quantized_engine(engine):
                    linear = self.float_linear(kind, qconfig)
                    layer = kind.from_float(linear)
                    per_channel = qconfig is PER_CHANNEL_QCONFIG
                    scale = np.maximum(np.abs(w / 64).max(axis=1 if per_channel else None, keepdims=True) / 127.5, 2.0**-23)
                    found = layer.weight().q_per_channel_scales() if per_channel else [layer.weight().q_scale()]
                    self.assertEqual(np.asarray(found), scale.ravel(), rtol=1e-6, atol=0)
                    error = np.abs(layer.weight().dequantize().numpy() - w / 64) / scale
                    self.assertLess(error.max(), 0.50001, "largest error of a quantized weight, in steps")
                    self.assertEqual(layer.bias(), linear.bias)
                    self.assertTupleEqual((layer.in_features, layer.out_features), (12, 9))
                    self.assertEqual(layer._weight_bias()[2:], BLOCK)
                    if kind is STATIC:
                        self.assertTupleEqual((layer.scale, layer.zero_point), (float(np.float32(4 / 255)), 64))
                        self.assertTupleEqual((type(layer.scale), type(layer.zero_point)), (float, int))

    def test_from_float_shows_the_observer_the_weight(self):
        """from_float: the weight's observer, which may be any of a user's, sees the weight as it is, with its signs."""

        class Recorder(tq.MinMaxObserver):
            seen: list[torch.Tensor] = []

            def forward(self, x):
                self.seen.append(x.detach().clone())
                return super().forward(x)

        weight = Recorder.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                Recorder.seen.clear()
                linear = self.float_linear(kind, tq.QConfig(STATIC_QCONFIG.activation, weight))
                kind.from_float(linear)
                self.assertEqual(Recorder.seen, [linear.weight.detach()] * len(Recorder.seen))
                self.assertGreater(len(Recorder.seen), 0)

    def test_from_float_without_bias(self):
        """from_float: of a module without bias the layer has none, where the engine can tell that from a bias of zeros."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                bias = kind.from_float(self.float_linear(kind, bias=False)).bias()
                if build.sparse_qlinear_refusal(engine, "static") is None:
                    self.assertIsNone(bias)
                elif bias is not None:
                    self.assertEqual(bias, torch.zeros(9))

    def test_from_float_leaves_the_float_module_alone(self):
        """from_float: the float module keeps its weight, bias, state and observer, and its mode, and can be trained."""
        for training, (kind, engine) in itertools.product((True, False), self.kinds()):
            with self.subTest(kind=kind, engine=engine, training=training), build.quantized_engine(engine):
                linear = self.float_linear(kind).train(training)
                before, attributes, parameters = copy.deepcopy(linear.state_dict()), set(vars(linear)), list(linear.parameters())
                kind.from_float(linear)
                self.assertEqual(linear.state_dict(), before)
                self.assertIs(type(linear), nn.Linear)
                self.assertSetEqual(set(vars(linear)), attributes)
                self.assertIs(linear.training, training)
                self.assertListEqual([id(p) for p in linear.parameters()], [id(p) for p in parameters])
                self.assertListEqual([p.requires_grad for p in parameters], [True, True])

    def test_from_float_takes_a_precomputed_fake_quant_flag(self):
        """from_float: use_precomputed_fake_quant is part of the signature that convert() calls, and is off by default."""
        self._skip_without_precomputed_qparams()
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                linear = self.float_linear(kind)
                observer = STATIC_QCONFIG.weight()
                observer(linear.weight)
                linear.qconfig = tq.QConfig(activation=STATIC_QCONFIG.activation, weight=lambda: observer)
                expected = kind.from_float(linear).weight()
                for flag in (True, False):
                    self.assertExact(kind.from_float(linear, use_precomputed_fake_quant=flag).weight(), expected)

    def test_from_float_accepts_nothing_but_linear(self):
        """from_float: a module of another type than nn.Linear, be it derived from it, is an error that names the type it works for."""
        for kind, name in ((STATIC, "SparseQuantizedLinear"), (DYNAMIC, " nnq.Linear")):
            message = f"{name}.from_float only works for Linear"
            for wrong in (nn.Conv2d(1, 1, 1), nn.Identity(), nn.Bilinear(2, 2, 2), NonDynamicallyQuantizableLinear(2, 2)):
                with self.subTest(kind=kind, wrong=type(wrong)), self.assertRefuses(message):
                    kind.from_float(wrong)

    def test_from_float_of_a_subclass_makes_the_subclass(self):
        """from_float, a classmethod: a subclass makes a layer of its own class, of its own _FLOAT_MODULE."""
        own = type("Own", (nn.Linear,), {})
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                linear = self.float_linear(kind)
                expected = kind.from_float(linear).weight()
                linear.__class__ = own
                layer = type("Derived", (kind,), {"_FLOAT_MODULE": own}).from_float(linear)
                self.assertEqual(type(layer).__name__, "Derived")
                self.assertExact(layer.weight(), expected)

    def test_from_float_draws_and_prints_nothing(self):
        """from_float: weight and observers decide alone: no random number is drawn, nothing is printed."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                linear, state = self.float_linear(kind), torch.get_rng_state()
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    kind.from_float(linear)
                self.assertTrue(torch.equal(torch.get_rng_state(), state), "random numbers were drawn")
                self.assertEqual(out.getvalue(), "")

    def test_from_float_needs_a_qconfig(self):
        """from_float: a module without qconfig is an error that says so."""
        for kind in (STATIC, DYNAMIC):
            linear = self.float_linear(kind)
            del linear.qconfig
            with self.subTest(kind=kind), self.assertRefuses("Input float module must have qconfig defined"):
                kind.from_float(linear)

    def test_static_from_float_needs_sparse_params(self):
        """Linear.from_float: without ``sparse_params`` the error names them, and an option of squash_mask that provides them."""
        linear = self.float_linear(STATIC)
        del linear.sparse_params
        with self.assertRaises(AssertionError) as caught:
            STATIC.from_float(linear)
        if build.TORCH_VERSION >= EXPLICIT_CHECKS:
            self.assertRegex(str(caught.exception), r'`sparse_params`.*squash_mask\(\w+=\("sparse_block_shape",\)\)')

    def test_static_from_float_checks_the_block_shape(self):
        """Linear.from_float: the block shape is a tuple or list of two; anything else is an error that shows it."""
        for wrong, message in (
            ({}, "sparse_block_shape must be tuple or list, got <class 'NoneType'>"),
            ({"sparse_block_shape": 4}, "sparse_block_shape must be tuple or list, got <class 'int'>"),
            ({"sparse_block_shape": "14"}, "sparse_block_shape must be tuple or list, got <class 'str'>"),
            ({"sparse_block_shape": (1,)}, "sparse_block_shape must have length 2, got 1"),
            ({"sparse_block_shape": [1, 4, 1]}, "sparse_block_shape must have length 2, got 3"),
        ):
            linear = self.float_linear(STATIC)
            linear.sparse_params = wrong
            with self.subTest(wrong=wrong), self.assertRefuses(message):
                STATIC.from_float(linear)
        for engine in self.engines("pack"):
            for shape in ([1, 4], torch.Size(BLOCK)):
                linear = self.float_linear(STATIC)
                linear.sparse_params = {"sparse_block_shape": shape}
                with self.subTest(engine=engine, shape=shape), build.quantized_engine(engine):
                    self.assertEqual(STATIC.from_float(linear)._weight_bias()[2:], BLOCK)

    def test_from_float_needs_a_symmetric_qint8_weight_observer(self):
        """from_float: a weight observer of another dtype, or with zero points other than 0, is an error that says so."""

        def observer(scheme, kind=tq.MinMaxObserver, dtype=torch.qint8):
            return tq.QConfig(activation=STATIC_QCONFIG.activation, weight=kind.with_args(dtype=dtype, qscheme=scheme))

        wrong = {
            "dtype": (
                observer(torch.per_tensor_affine, dtype=torch.quint8),
                "Weight observer must have dtype torch.qint8, got torch.quint8",
            ),
            "affine": (observer(torch.per_tensor_affine), "All weight zero points must map to 0"),
            "affine per channel": (observer(torch.per_channel_affine, tq.PerChannelMinMaxObserver), "All weight zero points must map to 0"),
        }
        for kind in (STATIC, DYNAMIC):
            for name, (qconfig, message) in wrong.items():
                with self.subTest(kind=kind, case=name):
                    linear = self.float_linear(kind, qconfig)
                    with torch.no_grad():
                        linear.weight.abs_()
                        if name == "affine per channel":  # the range of one channel is that of qint8 around 0
                            linear.weight[0] = 0
                            linear.weight[0, :2] = torch.tensor([-1.28, 1.27])
                    with self.assertRefuses(message):
                        kind.from_float(linear)

    def test_from_float_takes_zero_points_that_are_plain_numbers(self):
        """from_float: an observer may return its zero point as a number; one other than 0 is an error that shows it."""
        for kind, engine in self.kinds():
            for zero_point in (0, 3):
                with self.subTest(kind=kind, engine=engine, zero_point=zero_point), build.quantized_engine(engine):
                    observer = tq.MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
                    observer.calculate_qparams = lambda: (torch.tensor(0.25), zero_point)
                    linear = self.float_linear(kind, tq.QConfig(activation=STATIC_QCONFIG.activation, weight=lambda: observer))
                    if zero_point:
                        with self.assertRefuses("Weight zero point must map to 0, got 3"):
                            kind.from_float(linear)
                    else:
                        self.assertEqual(kind.from_float(linear).weight().q_scale(), 0.25)

    def test_dynamic_from_float_without_observer_uses_the_default(self):
        """dynamic.Linear.from_float: a qconfig of None, or one without weight observer, means the default dynamic qconfig."""
        for engine in self.engines("pack"):
            with build.quantized_engine(engine):
                linear = self.float_linear(DYNAMIC, tq.default_dynamic_qconfig)
                expected = DYNAMIC.from_float(linear).weight()
                for qconfig in (None, tq.QConfig(activation=tq.default_observer, weight=None)):
                    with self.subTest(engine=engine, qconfig=qconfig):
                        linear.qconfig = qconfig
                        self.assertEqual(DYNAMIC.from_float(linear).weight(), expected)

    def test_dynamic_from_float_applies_the_mask_of_the_qconfig(self):
        """dynamic.Linear.from_float: a mask in the qconfig is multiplied in before the weight's range is observed."""

        class Masked:
            weight = staticmethod(tq.default_weight_observer)
            mask = torch.tensor([[0.5]])

        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                whole, masked = self.float_linear(DYNAMIC), self.float_linear(DYNAMIC)
                masked.qconfig = Masked
                whole, masked = DYNAMIC.from_float(whole).weight(), DYNAMIC.from_float(masked).weight()
                self.assertEqual(masked.int_repr(), whole.int_repr())
                self.assertEqual(masked.q_scale(), whole.q_scale() / 2)

    def test_dynamic_from_float_takes_the_block_shape_of_the_context(self):
        """dynamic.Linear.from_float: 1 x 4, or what the surrounding LinearBlockSparsePattern says."""
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                linear = self.float_linear(DYNAMIC)
                self.assertEqual(DYNAMIC.from_float(linear)._weight_bias()[2:], BLOCK)
                if build.sparse_qlinear_refusal(engine, "pack", COLUMN_BLOCK) is None:
                    with LinearBlockSparsePattern(*COLUMN_BLOCK):
                        layer = DYNAMIC.from_float(linear)
                    self.assertEqual(layer._weight_bias()[2:], COLUMN_BLOCK)
                    self.assertEqual(layer.weight(), DYNAMIC.from_float(linear).weight())

    def test_pattern_is_set_in_the_block_and_restored_after_it(self):
        """LinearBlockSparsePattern: 1 x 4 by default, the given shape inside, the former one after it, an exception included."""
        self.assertEqual(LinearBlockSparsePattern.block_size(), BLOCK)
        with LinearBlockSparsePattern(8, 1):
            self.assertEqual(LinearBlockSparsePattern.block_size(), COLUMN_BLOCK)
        self.assertEqual(LinearBlockSparsePattern.block_size(), BLOCK)
        with self.assertRaisesRegex(KeyError, "inside"), LinearBlockSparsePattern(row_block_size=8, col_block_size=1):
            raise KeyError("inside")
        self.assertEqual(LinearBlockSparsePattern.block_size(), BLOCK)

    def test_pattern_answers_for_itself_too(self):
        """block_size is static: a pattern that is in force gives it as the class does."""
        pattern = LinearBlockSparsePattern(*COLUMN_BLOCK)
        with pattern:
            self.assertEqual(pattern.block_size(), COLUMN_BLOCK)

    def test_pattern_defaults_to_one_by_four(self):
        """LinearBlockSparsePattern(): 1 x 4, within another pattern too, which is back after it."""
        self._restore_pattern_afterwards()
        with LinearBlockSparsePattern(*COLUMN_BLOCK):
            with LinearBlockSparsePattern():
                self.assertEqual(LinearBlockSparsePattern.block_size(), BLOCK)
            self.assertEqual(LinearBlockSparsePattern.block_size(), COLUMN_BLOCK)

    def test_pattern_accepts_two_shapes_only(self):
        """LinearBlockSparsePattern: 1 x 4 and 8 x 1; another shape is an error that shows it, and changes nothing."""
        for rows, columns in ((1, 1), (4, 1), (8, 4), (1, 8), (2, 4), (0, 0), (-1, 4), (8, 0), (None, 4)):
            with self.subTest(rows=rows, columns=columns):
                with self.assertRefuses(f"Invalid linear block sparse pattern: row_block_size={rows}, col_block_size={columns}"):
                    LinearBlockSparsePattern(rows, columns)
                self.assertEqual(LinearBlockSparsePattern.block_size(), BLOCK)

    def test_pattern_keeps_other_threads_out(self):
        """LinearBlockSparsePattern: another thread that wants a pattern waits until this one's block is left."""
        seen, waiting = [], threading.Event()

        def other():
            waiting.set()
            with LinearBlockSparsePattern(*BLOCK):
                seen.append(LinearBlockSparsePattern.block_size())

        thread = threading.Thread(target=other)
        with LinearBlockSparsePattern(*COLUMN_BLOCK):
            thread.start()
            waiting.wait()
            self.assertFalse(_in_thread(_lock_is_free))
            self.assertTupleEqual((seen, LinearBlockSparsePattern.block_size()), ([], COLUMN_BLOCK))
        thread.join()
        self.assertEqual(seen, [BLOCK])
        self.assertTrue(_in_thread(_lock_is_free))
        self.assertEqual(LinearBlockSparsePattern.block_size(), BLOCK)

    @known_defect("static-sparse-linear-refuses-its-own-state-dict")
    def test_static_linear_loads_its_state_dict(self):
        """nn.Module: what state_dict() returned, load_state_dict() accepts."""
        with build.quantized_engine(self.a_packing_engine()):
            layer = STATIC(12, 8, *BLOCK)
            layer.load_state_dict(self.layer(STATIC).state_dict())
            self.assertLayer(layer, STATIC)

    @known_defect("dynamic-sparse-linear-refuses-its-own-state-dict")
    def test_dynamic_linear_loads_its_state_dict(self):
        """nn.Module: what state_dict() returned, load_state_dict() accepts."""
        with build.quantized_engine(self.a_packing_engine()):
            layer = DYNAMIC(12, 8, *BLOCK)
            layer.load_state_dict(self.layer(DYNAMIC).state_dict())
            self.assertLayer(layer, DYNAMIC)

    @over(
        "kind",
        [
            subtest(STATIC, name="static", decorators=[known_defect("static-sparse-mapping-cannot-be-converted-with")]),
            subtest(DYNAMIC, name="dynamic", decorators=[known_defect("dynamic-sparse-mapping-cannot-be-converted-with")]),
        ],
    )
    def test_sparsifier_converts_with_the_mappings_of_pruning(self, kind):
        """BaseSparsifier.convert: a mapping of source to target module types; it takes those that torch.ao.pruning exports."""
        mapping = {STATIC: get_static_sparse_quantized_mapping, DYNAMIC: get_dynamic_sparse_quantized_mapping}[kind]()
        with build.quantized_engine(self.a_packing_engine()):
            model, sparsifier = nn.Sequential(self.float_linear(STATIC)), WeightNormSparsifier(0.5)
            sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
            sparsifier.step()
            pruned = model[0].weight.detach()
            converted = sparsifier.convert(model, mapping)[0]
            self.assertIs(type(converted), kind)
            self.assertLess((converted.weight().dequantize() - pruned).abs().max(), 0.01)
            self.assertEqual(converted.bias(), model[0].bias)
            if kind is STATIC:
                self.assertTupleEqual((converted.scale, converted.zero_point), (float(np.float32(4 / 255)), 64))

    @known_defect("dynamic-from-float-refuses-linear-relu")
    def test_dynamic_from_float_takes_linear_relu(self):
        """dynamic.Linear.from_float: of a fused LinearReLU it converts the linear layer, as its branch says and the dense sibling does."""
        with build.quantized_engine(self.a_packing_engine()):
            linear = self.float_linear(DYNAMIC)
            fused = nni.LinearReLU(linear, nn.ReLU())
            fused.qconfig = linear.qconfig
            self.assertExact(DYNAMIC.from_float(fused).weight(), DYNAMIC.from_float(linear).weight())

    def test_dynamic_from_float_of_a_subclass_for_linear_relu(self):
        """dynamic.Linear.from_float: a subclass whose _FLOAT_MODULE is the fused LinearReLU converts the linear layer in it."""

        class Fused(DYNAMIC):
            _FLOAT_MODULE = nni.LinearReLU

        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                linear = self.float_linear(DYNAMIC)
                fused = nni.LinearReLU(linear, nn.ReLU())
                fused.qconfig = linear.qconfig
                layer = Fused.from_float(fused)
                self.assertIs(type(layer), Fused)
                self.assertExact(layer.weight(), DYNAMIC.from_float(linear).weight())

    @known_defect("copied-sparse-layer-is-no-whole-module")
    def test_copies_are_whole_modules(self):
        """copy.deepcopy, and a load of what earlier releases saved: it can be put into another mode, moved, walked through."""
        with build.quantized_engine(self.a_packing_engine()):
            duplicate = copy.deepcopy(nn.Sequential(self.layer(STATIC)))
            self.assertFalse(duplicate.eval()[0]._packed_params.training)
            self.assertEqual(len(list(duplicate.to("cpu").modules())), 3)
            saved = nnsq.LinearPackedParams.__new__(nnsq.LinearPackedParams)
            saved.__setstate__((duplicate[0]._packed_params._packed_params, True, torch.qint8))
            self.assertEqual((saved.eval().training, len(list(saved.to("cpu").modules()))), (False, 1))

    @known_defect("loaded-sparse-layer-has-no-state-dict")
    def test_loaded_layers_have_a_state_dict(self):
        """torch.save, torch.load: the state_dict of what was loaded is that of what was saved."""
        with build.quantized_engine(self.a_packing_engine()):
            layer = self.layer(DYNAMIC)
            self.assertEqual(list(_save_load(layer).state_dict()), list(layer.state_dict()))

    def test_copies_can_be_scripted(self):
        """torch.jit.script of a layer gives what the layer gives, also when its packed parameters were copied by TorchScript."""
        self.skip_without_torchscript()
        for kind, engine in self.kinds("run"):
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                scripted = torch.jit.script(self.layer(kind))
                self.assertExact(copy.deepcopy(scripted)._packed_params._weight_bias()[0], self.layer(kind).weight())

    @known_defect("sparse-packed-params-crash-on-missing-keys")
    def test_packed_params_report_missing_keys(self):
        """load_state_dict(strict=False): keys that are not in the state are returned as missing."""
        with build.quantized_engine(self.a_packing_engine()):
            packed = nnsq.LinearPackedParams()
            state = packed.state_dict()
            state.clear()
            missing = packed.load_state_dict(state, strict=False).missing_keys
            self.assertEqual(sorted(missing), ["_packed_params", "dtype"])

    @known_defect("static-sparse-linear-crashes-on-missing-keys")
    def test_static_linear_reports_missing_keys(self):
        """load_state_dict(strict=False): keys that are not in the state are returned as missing."""
        with build.quantized_engine(self.a_packing_engine()):
            for absent in (["scale"], ["zero_point"], ["scale", "zero_point"]):
                source, layer = self.layer(STATIC), self.layer(STATIC)
                source.scale, source.zero_point = 0.5, 7
                state = _loadable(source)
                for key in absent:
                    del state[key]
                missing = layer.load_state_dict(state, strict=False).missing_keys
                self.assertEqual(sorted(missing), absent)
                self.assertEqual(layer.scale, 1.0 if "scale" in absent else 0.5)
                self.assertEqual(layer.zero_point, 0 if "zero_point" in absent else 7)

    @known_defect("sparse-packed-params-ignore-unexpected-keys")
    def test_packed_params_refuse_unexpected_keys(self):
        """load_state_dict: strict, as it is by default, refuses keys that the module does not know."""
        with build.quantized_engine(self.a_packing_engine()):
            packed = self.layer(STATIC)._packed_params
            with self.assertRaisesRegex(RuntimeError, "weigth"):
                packed.load_state_dict(_with(packed.state_dict(), weigth=1))

    @known_defect("static-sparse-linear-ignores-unexpected-keys")
    def test_static_linear_refuses_unexpected_keys(self):
        """load_state_dict: strict, as it is by default, refuses keys that the module does not know."""
        with build.quantized_engine(self.a_packing_engine()):
            layer = self.layer(STATIC)
            with self.assertRaisesRegex(RuntimeError, "sclae"):
                layer.load_state_dict(_with(_loadable(layer), sclae=1))

    @known_defect("sparse-layer-loads-a-weight-of-another-shape")
    def test_loading_another_shape_is_refused_or_followed(self):
        """load_state_dict: a weight of another shape is an error, or the layer's features follow it."""
        with build.quantized_engine(self.a_packing_engine()):
            for rows, columns in ((3, 4), (8, 4), (3, 12)):
                layer = STATIC(columns, rows, *BLOCK)
                try:
                    layer.load_state_dict(_loadable(self.layer(STATIC)))
                except RuntimeError as error:
                    self.assertIn("size mismatch", str(error))
                named = layer.out_features, layer.in_features
                self.assertEqual(f"weight {tuple(layer.weight().shape)}", f"weight {named}")

    @known_defect("static-set-weight-bias-keeps-the-old-features")
    def test_static_set_weight_bias_takes_the_features(self):
        """Linear.set_weight_bias: in_features and out_features follow the weight's shape, as in the dynamic Linear."""
        with build.quantized_engine(self.a_packing_engine()):
            layer = STATIC(12, 8, *BLOCK)
            layer.set_weight_bias(quantized_weight(np.ones((3, 5))), None, *BLOCK)
            self.assertEqual(f"features {layer.in_features}, {layer.out_features}", "features 5, 3")

    @known_defect("sparse-packed-params-load-any-dtype")
    def test_packed_params_load_no_other_dtype(self):
        """LinearPackedParams: a state with a dtype that the constructor refuses is refused, or the dtype stays qint8."""
        with build.quantized_engine(self.a_packing_engine()):
            packed = nnsq.LinearPackedParams()
            try:
                packed.load_state_dict(_with(packed.state_dict(), dtype=torch.float16))
            except (NotImplementedError, RuntimeError) as error:
                self.assertRegex(str(error), "(?i)qint8")
            self.assertEqual(str(packed.dtype), "torch.qint8")

    @known_defect("dynamic-from-float-cannot-take-a-mask")
    def test_dynamic_from_float_applies_a_mask_of_elements(self):
        """dynamic.Linear.from_float: a mask of the weight's shape in the qconfig zeroes what it masks."""

        class Masked:
            weight = staticmethod(tq.default_weight_observer)
            mask = torch.arange(9)[:, None].expand(9, 12) % 2

        with build.quantized_engine(self.a_packing_engine()):
            linear = self.float_linear(DYNAMIC)
            linear.qconfig = Masked
            rows = DYNAMIC.from_float(linear).weight().int_repr().ne(0).any(dim=1).tolist()
            self.assertEqual(rows, [bool(row % 2) for row in range(9)])

    @known_defect("static-from-float-of-a-double-module-cannot-run")
    def test_static_from_float_of_a_double_module(self):
        """Linear.from_float: weight.float() says that modules of other dtypes are welcome: the layer runs, or from_float refuses."""
        self.skip_unless_runs("fbgemm", "static")
        self._check_double_module(STATIC, "fbgemm", quantized_input(np.ones((2, 12))))

    @known_defect("dynamic-from-float-of-a-double-module-cannot-run")
    def test_dynamic_from_float_of_a_double_module(self):
        """dynamic.Linear.from_float: weight.float() says that modules of other dtypes are welcome: the layer runs, or is refused."""
        self.skip_unless_runs("qnnpack", "dynamic")
        self._check_double_module(DYNAMIC, "qnnpack", torch.ones(2, 12))

    def _check_double_module(self, kind, engine, x):
        for dtype in (torch.float64, torch.bfloat16):
            with build.quantized_engine(engine):
                linear = self.float_linear(kind, dtype=dtype)
                try:
                    layer = kind.from_float(linear)
                except (RuntimeError, NotImplementedError) as error:
                    self.assertRegex(str(error), "(?i)float|double|dtype")
                    continue
                same = kind.from_float(self.float_linear(kind))
                self.assertEqual(layer(x).shape, same(x).shape)
                self.assertEqual(layer.bias().float(), linear.bias.float())

    @over(
        "kind",
        [
            subtest(STATIC, name="static", decorators=[known_defect("converted-static-layer-follows-the-float-bias")]),
            subtest(DYNAMIC, name="dynamic", decorators=[known_defect("converted-dynamic-layer-follows-the-float-bias")]),
        ],
    )
    def test_converted_layer_has_a_bias_of_its_own(self, kind):
        """from_float: the bias of the converted layer does not change when the float module is trained on."""
        with build.quantized_engine(self.a_packing_engine()):
            linear = self.float_linear(kind)
            with torch.no_grad():
                linear.bias.copy_(float_tensor(bias_of(9)))
                layer = kind.from_float(linear)
                linear.bias.fill_(99)
            self.assertEqual(f"bias {layer.bias()[:2].tolist()}", f"bias {bias_of(9)[:2].tolist()}")

    def test_converted_layer_has_a_weight_of_its_own(self):
        """from_float: the weight of the converted layer does not change when the float module is trained on."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                linear = self.float_linear(kind)
                layer, weight = kind.from_float(linear), linear.weight.detach().clone()
                with torch.no_grad():
                    linear.weight.add_(1)
                self.assertLess((layer.weight().dequantize() - weight).abs().max(), 0.01)

    @known_defect("sparse-state-dict-holds-a-bias-that-requires-grad")
    def test_state_dict_is_detached(self):
        """state_dict: tensors are detached from autograd, unless keep_vars is set."""
        with build.quantized_engine(self.a_packing_engine()):
            bias = STATIC.from_float(self.float_linear(STATIC)).state_dict()["_packed_params._packed_params"][1]
            self.assertEqual(f"requires grad: {bias.requires_grad}", "requires grad: False")

    @known_defect("static-from-float-ignores-precomputed-qparams")
    def test_static_from_float_reuses_precomputed_qparams(self):
        """Linear.from_float(use_precomputed_fake_quant=True): the observer's range is used as it is, as the dense Linear does."""
        self._skip_without_precomputed_qparams()
        with build.quantized_engine(self.a_packing_engine()):
            observer = tq.MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
            observer(torch.tensor([-0.25, 0.25]))
            linear = self.float_linear(STATIC, tq.QConfig(activation=STATIC_QCONFIG.activation, weight=lambda: observer))
            scale = STATIC.from_float(linear, use_precomputed_fake_quant=True).weight().q_scale()
            largest = linear.weight.abs().max().item()
            # The observed range is that of the weight (scale 2 * largest / 255) instead of the precomputed one.
            self.assertEqual(f"{scale * 255 / 2 / largest:.3f} of the weight's range", f"{0.25 / largest:.3f} of the weight's range")

    @known_defect("loaded-sparse-params-share-the-bias-of-the-state")
    def test_loaded_packed_params_are_apart_from_the_state(self):
        """load_state_dict: copies; writing into the state afterwards leaves the module."""
        with build.quantized_engine(self.a_packing_engine()):
            state, target = self.layer(STATIC)._packed_params.state_dict(), nnsq.LinearPackedParams()
            target.load_state_dict(state)
            state["_packed_params"][1].fill_(7)
            self.assertEqual(f"bias {target._weight_bias()[1][:2].tolist()}", f"bias {bias_of(8)[:2].tolist()}")

    @known_defect("refused-weight-changes-the-features-of-a-dynamic-layer")
    def test_refused_weight_leaves_the_features_of_a_dynamic_layer(self):
        """dynamic.Linear.set_weight_bias: a weight that is refused leaves the features that the layer names."""
        with build.quantized_engine(self.a_packing_engine()):
            layer = self._layer_after_a_refused_weight(DYNAMIC)
            self.assertEqual(f"features {layer.in_features}, {layer.out_features}", "features 12, 8")

    def test_refused_weight_leaves_weight_and_bias(self):
        """set_weight_bias: a weight that is refused leaves weight, bias and, of a static layer, the features as they were."""
        for kind, engine in self.kinds():
            with self.subTest(kind=kind, engine=engine), build.quantized_engine(engine):
                layer = self._layer_after_a_refused_weight(kind)
                self.assertLayer(layer, kind)
                if kind is STATIC:
                    self.assertEqual((layer.in_features, layer.out_features), (12, 8))

    def _layer_after_a_refused_weight(self, kind):
        layer = self.layer(kind)
        with self.assertRaises(RuntimeError):
            layer.set_weight_bias(quantized_weight(np.ones((3, 5))), torch.zeros(9), *BLOCK)
        return layer

    @known_defect("from-float-advises-an-option-that-does-nothing")
    def test_advice_of_from_float_helps(self):
        """Linear.from_float: doing what its error asks for provides sparse_params, whatever the option of squash_mask is called."""
        linear = self.float_linear(STATIC)
        del linear.sparse_params
        with self.assertRaises(AssertionError) as caught:
            STATIC.from_float(linear)
        option = re.search(r"squash_mask\((\w+)=", str(caught.exception))
        self.assertIsNotNone(option, msg=f"no advice: {caught.exception}")
        model, sparsifier = nn.Sequential(linear), WeightNormSparsifier()
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        sparsifier.squash_mask(**{option.group(1): ("sparse_block_shape",)})
        kept = vars(linear).get("sparse_params")
        self.assertEqual(f"{option.group(1)} leaves {kept}", f"{option.group(1)} leaves {{'sparse_block_shape': (1, 4)}}")

    @known_defect("static-sparse-scale-is-saved-in-the-default-dtype")
    def test_saved_scale_does_not_depend_on_the_default_dtype(self):
        """state_dict: the scale of the static Linear, to float32 at least, whatever the default dtype."""
        self.addCleanup(torch.set_default_dtype, torch.float32)
        with build.quantized_engine(self.a_packing_engine()):
            layer = self.layer(STATIC)
            layer.scale = 0.0225
            torch.set_default_dtype(torch.bfloat16)
            saved = layer.state_dict()["scale"].item()
            self.assertEqual(f"scale {np.float32(saved):.7f}", "scale 0.0225000")

    def test_saved_scale_is_exact_to_float32(self):
        """state_dict: under the usual default dtype the scale of the static Linear is saved to float32 at least, under float64 exactly."""
        self.addCleanup(torch.set_default_dtype, torch.float32)
        with build.quantized_engine(self.a_packing_engine()):
            layer = self.layer(STATIC)
            layer.scale = 0.0225
            for dtype, tolerance in ((torch.float32, 1e-7), (torch.float64, 0)):
                torch.set_default_dtype(dtype)
                self.assertEqual(layer.state_dict()["scale"].item(), 0.0225, rtol=tolerance, atol=0)

    @known_defect("nested-block-patterns-do-not-unwind")
    def test_nested_patterns_unwind(self):
        """LinearBlockSparsePattern, a context manager with a lock that may be nested: of two nested blocks each restores what it found."""
        self._restore_pattern_afterwards()
        with LinearBlockSparsePattern(*COLUMN_BLOCK):
            with LinearBlockSparsePattern(*BLOCK):
                inner = LinearBlockSparsePattern.block_size()
            between = LinearBlockSparsePattern.block_size()
        self.assertEqual(f"{inner}, {between}, {LinearBlockSparsePattern.block_size()}", f"{BLOCK}, {COLUMN_BLOCK}, {BLOCK}")

    @known_defect("block-pattern-takes-effect-before-it-is-entered")
    def test_pattern_begins_with_its_block(self):
        """LinearBlockSparsePattern: the pattern changes when the block is entered, not when the object is made."""
        pattern = LinearBlockSparsePattern(*COLUMN_BLOCK)
        before = LinearBlockSparsePattern.block_size()
        with pattern:
            inside = LinearBlockSparsePattern.block_size()
        self.assertEqual(f"{before}, {inside}", f"{BLOCK}, {COLUMN_BLOCK}")

    @known_defect("block-pattern-cannot-be-entered-again")
    def test_pattern_can_be_entered_again(self):
        """LinearBlockSparsePattern: the same object serves two blocks, one after the other."""
        pattern, seen = LinearBlockSparsePattern(*COLUMN_BLOCK), []
        for _ in range(2):
            try:
                with pattern:
                    seen.append(LinearBlockSparsePattern.block_size())
            except RuntimeError as error:
                seen.append(type(error).__name__)
        self.assertEqual(str(seen), f"[{COLUMN_BLOCK}, {COLUMN_BLOCK}]")

    @known_defect("block-pattern-shows-in-other-threads")
    def test_pattern_belongs_to_its_thread(self):
        """LinearBlockSparsePattern: another thread without a pattern sees the default, while this one is in a block."""
        with LinearBlockSparsePattern(*COLUMN_BLOCK):
            there, here = _in_thread(LinearBlockSparsePattern.block_size), LinearBlockSparsePattern.block_size()
        self.assertEqual(f"seen {there} there, {here} here", f"seen {BLOCK} there, {COLUMN_BLOCK} here")

    def _skip_without_precomputed_qparams(self):
        if build.TORCH_VERSION < PRECOMPUTED_QPARAMS:
            self.skipTest("precomputed ranges of weights (no such option before torch 2.4)")

    def _restore_pattern_afterwards(self):
        before = {name: value for name, value in vars(LinearBlockSparsePattern).items() if isinstance(value, int)}
        for name, value in before.items():
            self.addCleanup(setattr, LinearBlockSparsePattern, name, value)


def _save_load(module):
    """The module after torch.save and a torch.load that may unpickle anything."""
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def _in_thread(function):
    """Result of ``function()`` in another thread."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def _lock_is_free():
    """Whether this thread could have the pattern's lock; it is left as it was."""
    if not LinearBlockSparsePattern.rlock.acquire(blocking=False):
        return False
    LinearBlockSparsePattern.rlock.release()
    return True
