"""Known defects of torch.ops.sparse.qlinear* and of the layers in torch.ao.nn.sparse.quantized."""

from ao.sparsity.testing.register.entry import Defect

QNNPACK_RUN = "aten/src/ATen/native/ao_sparse/quantized/cpu/qlinear_dynamic.cpp: PackedLinearWeightQnnp::apply_dynamic_impl"
QNNPACK_PACK = "aten/src/ATen/native/ao_sparse/quantized/cpu/qlinear_prepack.cpp: PackedLinearWeightQnnp::PackedLinearWeightQnnp"
FBGEMM_RUN = "aten/src/ATen/native/ao_sparse/quantized/cpu/qlinear.cpp: PackedLinearWeight::apply_impl"
STATIC = "torch.ao.nn.sparse.quantized.linear: Linear."
PARAMS = "torch.ao.nn.sparse.quantized.linear: LinearPackedParams."
DYNAMIC = "torch.ao.nn.sparse.quantized.dynamic.linear: Linear."
PATTERN = "torch.ao.nn.sparse.quantized.utils: LinearBlockSparsePattern."

SHARED_OPERATOR = "apply_dynamic_impl keeps input scale and operator in the packed weight, without a lock"
NO_FEATURES = "weights without in_features or out_features are packed, but nothing was written for running them"
STRICT = "_load_from_state_dict hands strict=False to its super class and takes keys out without looking"
GETSTATE = "LinearPackedParams.__getstate__ and __setstate__ leave out what nn.Module keeps"
BIAS_ALIAS = "the bias is packed as the caller's own tensor, the weight as a copy"
FLOAT_BIAS = "prepack accepts a bias of any dtype, and from_float converts the weight to float only"
ENTERING = "LinearBlockSparsePattern does in __init__ what belongs into __enter__"

# What most reproductions start with.
QNNPACK = """
import torch
torch.backends.quantized.engine = "qnnpack"
ops = torch.ops.sparse
weight = torch.quantize_per_tensor(torch.ones(8, 8), 0.5, 0, torch.qint8)
"""
FBGEMM = QNNPACK.replace("qnnpack", "fbgemm")
LAYERS = """
import torch
from torch import nn
from torch.ao.nn.sparse.quantized import Linear, LinearPackedParams, dynamic
torch.backends.quantized.engine = "fbgemm"
"""
FROM_FLOAT = """
import torch
from torch import nn
import torch.ao.quantization as tq
from torch.ao.nn.sparse.quantized import Linear, dynamic
torch.backends.quantized.engine = "fbgemm"
linear = nn.Linear(8, 8)
linear.qconfig = tq.get_default_qconfig("qnnpack")
linear.sparse_params = {"sparse_block_shape": (1, 4)}
linear.activation_post_process = tq.default_observer()
linear.activation_post_process(torch.ones(1))
"""
PATTERNS = """
from torch.ao.nn.sparse.quantized.utils import LinearBlockSparsePattern as Pattern
"""

DEFECTS = [
    Defect(
        id="qnnpack-sparse-keeps-the-first-input-scale",
        area="kernels",
        kind="wrong result",
        summary=(
            "sparse::qlinear_dynamic returns a wrong result when the input's scale goes back to that of the first call: the "
            "scale it compares with is remembered only once."
        ),
        where=QNNPACK_RUN,
        contract="An operator is a function of its arguments; quantized::linear_dynamic with the same weight agrees with nn.Linear.",
        error="AssertionError",
        match="the third result, for the first input again",
        reproduce=QNNPACK
        + """
packed = ops.qlinear_prepack(weight, None, 1, 4)
for value in (1.0, 10.0, 1.0):
    print(ops.qlinear_dynamic(torch.full((1, 8), value), packed)[0, 0])  # prints 8, 80, 80, should be 8, 80, 8
""",
        mend="store the new input_scale_ whenever the requantization scales are computed again",
        cause=SHARED_OPERATOR,
    ),
    Defect(
        id="qnnpack-sparse-mixes-up-two-threads",
        area="kernels",
        kind="wrong result",
        summary=(
            "sparse::qlinear_dynamic called by two threads with one packed weight returns wrong numbers or ends the process: both "
            "set up and run the one operator object in it."
        ),
        where=QNNPACK_RUN,
        contract=(
            "Inference with a module that nobody writes to may run in several threads (CPU threading notes of torch's "
            "documentation); the dense kernel holds qnnp_mutex_."
        ),
        error="ProcessDied",
        match="SIGABRT|SIGSEGV",
        reproduce=QNNPACK
        + """
import threading
torch.set_num_threads(1)  # with more threads of its own the process mostly dies
packed = ops.qlinear_prepack(weight, None, 1, 4)
ones, halves, wrong = torch.ones(64, 8), torch.ones(64, 8), []
halves[:, ::2] = 0  # the same range
def run(x, expected):
    for _ in range(2000):
        wrong.extend([1] * (not torch.equal(ops.qlinear_dynamic(x, packed), expected)))
threads = [threading.Thread(target=run, args=(x, ops.qlinear_dynamic(x, packed))) for x in (ones, halves)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(len(wrong))  # prints a number of wrong results, if the process did not die; should be 0
""",
        mend="hold a mutex of the packed weight while its operator is set up and run, as the dense kernel does",
        cause=SHARED_OPERATOR,
    ),
    Defect(
        id="sparse-prepack-takes-axis-1-for-axis-0",
        area="kernels",
        kind="wrong result",
        summary=(
            "A weight that is quantized per channel along axis 1 is packed as if its scales belonged to axis 0: other numbers, "
            "or, with fewer columns than rows, scales from beyond their end. Both engines, and from_float with such an observer."
        ),
        where="aten/src/ATen/native/ao_sparse/quantized/cpu/qlinear_prepack.cpp: PackedLinearWeight::prepack, PackedLinearWeightQnnp",
        contract="qlinear_unpack names its results W_origin and B_origin: what was packed; or packing refuses the axis.",
        error="AssertionError",
        match="the axis of the scales",
        reproduce=FBGEMM
        + """
weight = torch.quantize_per_channel(torch.full((2, 2), 2.0), torch.tensor([0.5, 2.0]), torch.zeros(2).long(), 1, torch.qint8)
unpacked = ops.qlinear_unpack(ops.qlinear_prepack(weight, None, 1, 4))[0]
print(unpacked.dequantize())  # prints [[2, 0.5], [8, 2]], should be 2s or an error
""",
        mend="refuse a weight whose q_per_channel_axis() is not 0",
    ),
    Defect(
        id="fbgemm-sparse-without-inputs-returns-garbage",
        area="kernels",
        kind="wrong result",
        summary="sparse::qlinear with in_features = 0 returns uninitialized memory instead of the bias.",
        where=FBGEMM_RUN,
        contract="nn.functional.linear with in_features = 0 returns the bias.",
        error="AssertionError",
        match="not the bias",
        reproduce=FBGEMM
        + """
packed = ops.qlinear_prepack(weight[:, :0], torch.arange(8.0), 1, 4)
x = torch.quantize_per_tensor(torch.ones(1, 0), 0.5, 0, torch.quint8)
print(ops.qlinear(x, packed, 1.0, 0).int_repr())  # prints anything, should be 0 1 2 3 4 5 6 7
""",
        mend="fill the output with the requantized bias where there are no columns",
        cause=NO_FEATURES,
    ),
    Defect(
        id="qnnpack-sparse-without-inputs-kills-the-process",
        area="kernels",
        kind="crash",
        summary=(
            "sparse::qlinear_dynamic with in_features = 0 and rows in the input ends the process by SIGSEGV; with out_features = 0 "
            "and more than one thread by SIGFPE."
        ),
        where=QNNPACK_RUN,
        contract="The bias, as nn.functional.linear and quantized::linear_dynamic return, or an error.",
        error="ProcessDied",
        match="SIGSEGV",
        reproduce=QNNPACK
        + """
packed = ops.qlinear_prepack(weight[:, :0], torch.arange(8.0), 1, 4)
print(ops.qlinear_dynamic(torch.ones(2, 0), packed))  # the process dies (SIGSEGV), should be the bias
""",
        mend="return the bias, or nothing, before the operator is set up",
        cause=NO_FEATURES,
    ),
    Defect(
        id="qnnpack-sparse-reads-a-strided-bias-as-contiguous",
        area="kernels",
        kind="wrong result",
        summary=(
            "A bias that is not contiguous is read as if it were: a slice gives the neighbours' numbers, an expanded one "
            "foreign memory. fbgemm packs it rightly."
        ),
        where=QNNPACK_PACK,
        contract=(
            'Comment there: "Given bias is supposed to be 1 dim, it is already contiguous, but the weight might be non-contiguous", '
            "which a slice with a step is not; fbgemm's prepack calls contiguous()."
        ),
        error="AssertionError",
        match="strided bias",
        reproduce=QNNPACK
        + """
packed = ops.qlinear_prepack(weight, torch.arange(16.0)[::2], 1, 4)
print(ops.qlinear_dynamic(torch.zeros(1, 8), packed))  # prints 0 1 2 3 4 5 6 7, should be 0 2 4 6 8 10 12 14
""",
        mend="bias.contiguous() when packing",
    ),
    Defect(
        id="static-sparse-result-beyond-int32-becomes-zero",
        area="kernels",
        kind="wrong result",
        summary=(
            "sparse::qlinear returns 0 instead of 255 where the result is 2**31 output steps or more (a large bias, or an output "
            "scale far too small): the conversion to int32 overflows before the clamp."
        ),
        where="fbgemm, called from " + FBGEMM_RUN,
        contract="Quantization saturates: torch.quantize_per_tensor gives 255 for the same number.",
        error="AssertionError",
        match="saturate at 255",
        reproduce=FBGEMM
        + """
packed = ops.qlinear_prepack(weight, torch.full((8,), 1e10), 1, 4)
x = torch.quantize_per_tensor(torch.ones(1, 8), 0.5, 0, torch.quint8)
print(ops.qlinear(x, packed, 1.0, 0).int_repr())  # prints 0, should be 255
""",
        mend="clamp in float before the conversion to int32",
    ),
    Defect(
        id="static-sparse-takes-any-output-zero-point",
        area="kernels",
        kind="wrong result",
        summary=(
            "sparse::qlinear accepts an output zero point that quint8 cannot hold, and returns a tensor that means other numbers "
            "than the result."
        ),
        where=FBGEMM_RUN,
        contract='torch.quantize_per_tensor refuses such a zero point: "zero_point ... is above upper bound".',
        error="AssertionError",
        match="not raised",
        reproduce=FBGEMM
        + """
packed = ops.qlinear_prepack(weight, None, 1, 4)
x = torch.quantize_per_tensor(torch.ones(1, 8), 0.5, 0, torch.quint8)
result = ops.qlinear(x, packed, 1.0, 1000)
print(result.int_repr()[0, 0], result.q_zero_point())  # prints 255 1000, which means -745; should be an error
""",
        mend="check the zero point against quint8's range, as quantize_per_tensor does",
    ),
    Defect(
        id="qnnpack-sparse-block-size-beyond-32-bits-kills-the-process",
        area="kernels",
        kind="crash",
        summary="qlinear_prepack with a block size of 2**32 ends the process by SIGFPE: it is cut to 32 bits after it was checked.",
        where=QNNPACK_PACK,
        contract='The check there: "Row block size must be > 0."; fbgemm refuses every shape that it has no kernel for.',
        error="ProcessDied",
        match="SIGFPE",
        reproduce=QNNPACK
        + """
ops.qlinear_prepack(weight, None, 1, 2**32)  # the process dies (SIGFPE), should be an error
""",
        mend="refuse block shapes other than 1 x 4 and 8 x 1, or check them after the conversion",
    ),
    Defect(
        id="qnnpack-sparse-unpacks-no-bias-as-zeros",
        area="kernels",
        kind="corrupted state",
        summary=(
            "A weight packed without bias is unpacked with a bias of zeros: bias() of a layer without one is a tensor, and its "
            "state_dict has one."
        ),
        where="aten/src/ATen/native/ao_sparse/quantized/cpu/qlinear_unpack.cpp: PackedLinearWeightQnnp::unpack",
        contract=(
            "qlinear_unpack returns `Tensor? B_origin`, and fbgemm None; the class keeps orig_bias_ apart for this (comment in "
            "qnnpack_utils.h)."
        ),
        error="AssertionError",
        match="is not None : the bias of a weight packed without one",
        reproduce=QNNPACK
        + """
print(ops.qlinear_unpack(ops.qlinear_prepack(weight, None, 1, 4))[1])  # prints eight zeros, should be None
""",
        mend="return orig_bias_",
    ),
    Defect(
        id="qnnpack-sparse-unpacks-an-empty-weight-with-another-scale",
        area="kernels",
        kind="wrong result",
        summary="A weight without rows is unpacked with scale 1 and zero point -128, whatever it had.",
        where="aten/src/ATen/native/ao_sparse/quantized/cpu/qlinear_unpack.cpp: PackedLinearWeightQnnp::unpack",
        contract="qlinear_unpack names its results W_origin and B_origin: what was packed; fbgemm returns it.",
        error="AssertionError",
        match="scale and zero point of an empty weight",
        reproduce=QNNPACK
        + """
unpacked = ops.qlinear_unpack(ops.qlinear_prepack(weight[:0], None, 1, 4))[0]
print(unpacked.q_scale(), unpacked.q_zero_point())  # prints 1.0 -128, should be 0.5 0
""",
        mend="keep scale and zero point of a weight per tensor once more than there are rows, or refuse an empty weight",
        cause=NO_FEATURES,
    ),
    Defect(
        id="static-sparse-linear-refuses-its-own-state-dict",
        area="kernels",
        kind="crash",
        summary="load_state_dict(state_dict()) of the static Linear raises KeyError: it expects an op_type that it never saves.",
        where=STATIC + "_load_from_state_dict",
        contract="nn.Module: load_state_dict accepts what state_dict of the same class returns.",
        error="KeyError",
        match="op_type",
        reproduce=LAYERS
        + """
layer = Linear(8, 8, 1, 4)
layer.load_state_dict(layer.state_dict())  # KeyError: 'op_type', should load
""",
        mend="save op_type, or do not ask for it",
    ),
    Defect(
        id="dynamic-sparse-linear-refuses-its-own-state-dict",
        area="kernels",
        kind="crash",
        summary=(
            'load_state_dict(state_dict()) of the dynamic Linear raises ValueError: its op_type "sparse_dynamic" is passed to '
            'int(), compared with "sparse", and then a weight and a bias are taken out that are not there. No state can be loaded.'
        ),
        where=DYNAMIC + "_load_from_state_dict",
        contract="nn.Module: load_state_dict accepts what state_dict of the same class returns.",
        error="ValueError",
        match="invalid literal for int.*sparse_dynamic",
        reproduce=LAYERS
        + """
layer = dynamic.Linear(8, 8, 1, 4)
layer.load_state_dict(layer.state_dict())  # ValueError: invalid literal for int(), should load
""",
        mend="compare op_type with self._op_type, and leave weight and bias to the packed parameters",
    ),
    Defect(
        id="sparse-mappings-of-pruning-cannot-be-converted-with",
        area="kernels",
        kind="crash",
        summary=(
            "BaseSparsifier.convert raises AttributeError with both mappings that torch.ao.pruning exports: it calls from_dense, "
            "and the layers they name have from_float only."
        ),
        where="torch.ao.pruning._mappings: get_static_sparse_quantized_mapping, get_dynamic_sparse_quantized_mapping",
        contract='convert: "mapping: a dictionary that maps from source module type to target module type"; no others are exported.',
        error="AttributeError",
        match="from_dense",
        reproduce="""
import torch
from torch.ao.pruning import WeightNormSparsifier, get_static_sparse_quantized_mapping
model, sparsifier = torch.nn.Sequential(torch.nn.Linear(8, 8)), WeightNormSparsifier()
sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
sparsifier.convert(model, get_static_sparse_quantized_mapping())  # AttributeError: from_dense, should convert
""",
        mend="give the sparse quantized layers a from_dense",
    ),
    Defect(
        id="dynamic-from-float-refuses-linear-relu",
        area="kernels",
        kind="crash",
        summary="dynamic.Linear.from_float has a branch for nni.LinearReLU that cannot be reached: the type was refused before.",
        where=DYNAMIC + "from_float",
        contract="The branch `if type(mod) is nni.LinearReLU: mod = mod[0]`; the dense dynamic Linear accepts it.",
        error="AssertionError",
        match="from_float only works for Linear",
        reproduce=FROM_FLOAT
        + """
fused = torch.ao.nn.intrinsic.LinearReLU(linear, nn.ReLU())
fused.qconfig = linear.qconfig
dynamic.Linear.from_float(fused)  # AssertionError, should convert
""",
        mend="accept nni.LinearReLU in the check of the type",
    ),
    Defect(
        id="copied-sparse-layer-is-no-whole-module",
        area="kernels",
        kind="corrupted state",
        summary=(
            "After copy.deepcopy a sparse layer, and every model that holds one, fails in eval(), train(), to(), modules() and "
            "torch.jit.script: its packed parameters have lost _modules, _parameters, hooks and every other attribute."
        ),
        where=PARAMS + "__getstate__, __setstate__",
        contract="copy.deepcopy of an nn.Module is an nn.Module; the dense LinearPackedParams survives it.",
        error="AttributeError",
        match="LinearPackedParams.*_modules",
        reproduce=LAYERS
        + """
import copy
model = nn.Sequential(Linear(8, 8, 1, 4))
copy.deepcopy(model).eval()  # AttributeError: no attribute '_modules', should work
""",
        mend="call nn.Module.__init__ in __setstate__, or keep the rest of __dict__ in the state",
        cause=GETSTATE,
    ),
    Defect(
        id="loaded-sparse-layer-has-no-state-dict",
        area="kernels",
        kind="corrupted state",
        summary="After torch.save and torch.load a sparse layer, and every model that holds one, fails in state_dict().",
        where=PARAMS + "__getstate__, __setstate__",
        contract="torch.save of a whole nn.Module; the dense quantized Linear survives it.",
        error="AttributeError",
        match="LinearPackedParams.*_state_dict",
        reproduce=LAYERS
        + """
import io
buffer = io.BytesIO()
torch.save(Linear(8, 8, 1, 4), buffer)
buffer.seek(0)
torch.load(buffer, weights_only=False).state_dict()  # AttributeError, should work
""",
        mend="call nn.Module.__init__ in __setstate__, or keep the rest of __dict__ in the state",
        cause=GETSTATE,
    ),
    Defect(
        id="copied-sparse-layer-loses-hooks",
        area="kernels",
        kind="corrupted state",
        summary="The packed parameters of a sparse layer come out of copy.deepcopy without the hooks registered on them.",
        where=PARAMS + "__getstate__, __setstate__",
        contract="copy.deepcopy of an nn.Module keeps its hooks, and its other attributes.",
        error="AttributeError",
        match="_forward_hooks",
        reproduce=LAYERS
        + """
import copy
packed = LinearPackedParams()
packed.register_forward_hook(print)
print(len(copy.deepcopy(packed)._forward_hooks))  # AttributeError, should be 1
""",
        mend="keep the rest of __dict__ in the state",
        cause=GETSTATE,
    ),
    Defect(
        id="sparse-packed-params-crash-on-missing-keys",
        area="kernels",
        kind="crash",
        summary="load_state_dict of the packed parameters raises KeyError for a missing key, with strict=False too.",
        where=PARAMS + "_load_from_state_dict",
        contract="nn.Module.load_state_dict: not strict it returns missing_keys, strict it raises RuntimeError with a list of them.",
        error="KeyError",
        match="dtype",
        reproduce=LAYERS
        + """
print(LinearPackedParams().load_state_dict({}, strict=False))  # KeyError: 'dtype', should list missing_keys
""",
        mend="append to missing_keys what is not there",
        cause=STRICT,
    ),
    Defect(
        id="static-sparse-linear-crashes-on-missing-keys",
        area="kernels",
        kind="crash",
        summary="load_state_dict of the static Linear raises KeyError for a missing key, with strict=False too.",
        where=STATIC + "_load_from_state_dict",
        contract="nn.Module.load_state_dict: not strict it returns missing_keys, strict it raises RuntimeError with a list of them.",
        error="KeyError",
        match="scale",
        reproduce=LAYERS
        + """
print(Linear(8, 8, 1, 4).load_state_dict({}, strict=False))  # KeyError: 'scale', should list missing_keys
""",
        mend="append to missing_keys what is not there",
        cause=STRICT,
    ),
    Defect(
        id="sparse-packed-params-ignore-unexpected-keys",
        area="kernels",
        kind="corrupted state",
        summary="load_state_dict of the packed parameters accepts a state with keys it does not know, although it is strict.",
        where=PARAMS + "_load_from_state_dict",
        contract="nn.Module.load_state_dict: strict=True, the default, raises for unexpected keys.",
        error="AssertionError",
        match="not raised",
        reproduce=LAYERS
        + """
packed = LinearPackedParams()
print(packed.load_state_dict({**packed.state_dict(), "weigth": 1}))  # prints that all keys match, should raise
""",
        mend="pass strict on to super()._load_from_state_dict",
        cause=STRICT,
    ),
    Defect(
        id="static-sparse-linear-ignores-unexpected-keys",
        area="kernels",
        kind="corrupted state",
        summary="load_state_dict of the static Linear accepts a state with keys it does not know, although it is strict.",
        where=STATIC + "_load_from_state_dict",
        contract="nn.Module.load_state_dict: strict=True, the default, raises for unexpected keys.",
        error="AssertionError",
        match="not raised",
        reproduce=LAYERS
        + """
layer = Linear(8, 8, 1, 4)
print(layer.load_state_dict({**layer.state_dict(), "op_type": "", "sclae": 1}))  # prints that all keys match, should raise
""",
        mend="pass strict on to super()._load_from_state_dict",
        cause=STRICT,
    ),
    Defect(
        id="sparse-layer-loads-a-weight-of-another-shape",
        area="kernels",
        kind="corrupted state",
        summary=(
            "Packed parameters take the weight of a layer with other features without a word; the layer's in_features, "
            "out_features and repr go on naming the old ones."
        ),
        where=PARAMS + "_load_from_state_dict",
        contract='nn.Module.load_state_dict raises "size mismatch" for a tensor of another shape.',
        error="AssertionError",
        match="features that the layer names",
        reproduce=LAYERS
        + """
layer, other = Linear(12, 4, 1, 4), Linear(8, 8, 1, 4)
layer.load_state_dict({**other.state_dict(), "op_type": ""})
print(layer, layer.weight().shape)  # prints in_features=12, out_features=4 and [8, 8]; should raise or agree
""",
        mend="compare the shapes, and append to error_msgs",
    ),
    Defect(
        id="static-set-weight-bias-keeps-the-old-features",
        area="kernels",
        kind="corrupted state",
        summary="set_weight_bias of the static Linear leaves in_features and out_features as they were when the weight has other ones.",
        where=STATIC + "set_weight_bias",
        contract="set_weight_bias of the dynamic Linear sets both from the weight's shape.",
        error="AssertionError",
        match="features of the new weight",
        reproduce=LAYERS
        + """
layer = Linear(12, 4, 1, 4)
layer.set_weight_bias(torch.quantize_per_tensor(torch.ones(8, 8), 1.0, 0, torch.qint8), None, 1, 4)
print(layer.in_features, layer.out_features)  # prints 12 4, should be 8 8
""",
        mend="set both, as the dynamic Linear does",
    ),
    Defect(
        id="sparse-packed-params-load-any-dtype",
        area="kernels",
        kind="corrupted state",
        summary="load_state_dict of the packed parameters takes over any dtype from the state, while the weight stays qint8.",
        where=PARAMS + "_load_from_state_dict",
        contract='The constructor: "Linear prepacking only supports QINT8" (NotImplementedError).',
        error="AssertionError",
        match="dtype of the packed parameters",
        reproduce=LAYERS
        + """
packed = LinearPackedParams()
packed.load_state_dict({**packed.state_dict(), "dtype": torch.float16})
print(packed.dtype)  # prints torch.float16, should be torch.qint8 or an error
""",
        mend="check the dtype as the constructor does",
    ),
    Defect(
        id="nested-block-patterns-do-not-unwind",
        area="kernels",
        kind="corrupted state",
        summary=(
            "Nested LinearBlockSparsePattern contexts leave the process-wide pattern changed: there is one place for the former "
            "pattern, which the inner context overwrites."
        ),
        where=PATTERN + "__init__, __exit__",
        contract="A context manager restores what it found; it holds an RLock, which has no other use than nesting.",
        error="AssertionError",
        match="after both blocks",
        reproduce=PATTERNS
        + """
with Pattern(8, 1):
    with Pattern(1, 4):
        print(Pattern.block_size())
print(Pattern.block_size())  # prints (8, 1), should be (1, 4)
""",
        mend="keep the former pattern in the instance",
    ),
    Defect(
        id="block-pattern-takes-effect-before-it-is-entered",
        area="kernels",
        kind="corrupted state",
        summary=(
            "LinearBlockSparsePattern(8, 1) changes the process-wide pattern and takes the lock when it is constructed; if it is "
            "never entered, both stay so for good, and every other thread waits for ever."
        ),
        where=PATTERN + "__init__",
        contract="The context manager protocol: __enter__ begins, __exit__ ends.",
        error="AssertionError",
        match="before the block",
        reproduce=PATTERNS
        + """
pattern = Pattern(8, 1)
print(Pattern.block_size())  # prints (8, 1), should be (1, 4)
""",
        mend="move everything but the check of the shape to __enter__",
        cause=ENTERING,
    ),
    Defect(
        id="block-pattern-cannot-be-entered-again",
        area="kernels",
        kind="crash",
        summary=(
            "A LinearBlockSparsePattern that is entered a second time has no effect in its block and raises RuntimeError at the end "
            "of it: it releases a lock that it does not hold."
        ),
        where=PATTERN + "__enter__, __exit__",
        contract="The context manager protocol: __enter__ begins, __exit__ ends.",
        error="AssertionError",
        match="the second block",
        reproduce=PATTERNS
        + """
pattern = Pattern(8, 1)
with pattern:
    pass
with pattern:  # RuntimeError: cannot release un-acquired lock
    print(Pattern.block_size())  # prints (1, 4), should be (8, 1)
""",
        mend="move everything but the check of the shape to __enter__",
        cause=ENTERING,
    ),
    Defect(
        id="block-pattern-shows-in-other-threads",
        area="kernels",
        kind="wrong result",
        summary=(
            "block_size(), and so dynamic.Linear.from_float, sees the pattern of another thread's context: a conversion that runs "
            "beside it gets that block shape."
        ),
        where=PATTERN + "block_size",
        contract="The class takes a lock so that a pattern is its thread's own; reading does not take it.",
        error="AssertionError",
        match="another thread's pattern",
        reproduce=PATTERNS
        + """
import threading
with Pattern(8, 1):
    thread = threading.Thread(target=lambda: print(Pattern.block_size()))  # prints (8, 1), should be (1, 4)
    thread.start()
    thread.join()
""",
        mend="keep the pattern in threading.local or a ContextVar",
    ),
    Defect(
        id="dynamic-from-float-cannot-take-a-mask",
        area="kernels",
        kind="crash",
        summary="dynamic.Linear.from_float raises RuntimeError for a qconfig with a mask of more than one element.",
        where=DYNAMIC + "from_float",
        contract='Comment there: "It is important to multiply by the mask BEFORE calling the `weight_observer`".',
        error="RuntimeError",
        match="Boolean value of Tensor with more than one value is ambiguous",
        reproduce=FROM_FLOAT
        + """
class WithMask:
    weight, mask = staticmethod(tq.default_weight_observer), torch.ones(8, 8)
linear.qconfig = WithMask
dynamic.Linear.from_float(linear)  # RuntimeError: Boolean value ... is ambiguous, should multiply
""",
        mend="ask `mask is not None` instead of its truth",
    ),
    Defect(
        id="static-from-float-of-a-double-module-cannot-run",
        area="kernels",
        kind="crash",
        summary="Linear.from_float converts a double or bfloat16 module without complaint; the layer raises at its first forward.",
        where=STATIC + "from_float",
        contract="from_float quantizes weight.float(), to take modules of other dtypes.",
        error="RuntimeError",
        match="expected scalar type Float but found Double",
        reproduce=FROM_FLOAT
        + """
layer = Linear.from_float(linear.double())
layer(torch.quantize_per_tensor(torch.ones(1, 8), 0.5, 0, torch.quint8))  # RuntimeError, should run
""",
        mend="pass mod.bias.float(), or let prepack refuse or convert a bias that is not float32",
        cause=FLOAT_BIAS,
    ),
    Defect(
        id="dynamic-from-float-of-a-double-module-cannot-run",
        area="kernels",
        kind="crash",
        summary="dynamic.Linear.from_float converts a double or bfloat16 module without complaint; the layer raises at its first forward.",
        where=DYNAMIC + "from_float",
        contract="from_float quantizes weight.float(), to take modules of other dtypes.",
        error="RuntimeError",
        match="expected scalar type Float but found Double",
        reproduce=FROM_FLOAT
        + """
torch.backends.quantized.engine = "qnnpack"
layer = dynamic.Linear.from_float(linear.double())
layer(torch.ones(1, 8))  # RuntimeError, should run
""",
        mend="pass mod.bias.float(), or let prepack refuse or convert a bias that is not float32",
        cause=FLOAT_BIAS,
    ),
    Defect(
        id="converted-sparse-layer-follows-the-float-bias",
        area="kernels",
        kind="corrupted state",
        summary=(
            "A layer made by from_float shares the float module's bias: training that module on, or anything else in place, "
            "changes the converted layer, whose weight stays."
        ),
        where="aten/src/ATen/native/ao_sparse/quantized/cpu/qlinear_prepack.cpp; " + STATIC + "from_float, " + DYNAMIC + "from_float",
        contract='from_float: "Create a quantized sparse module from a float module"; the weight is a copy.',
        error="AssertionError",
        match="bias of the converted layer",
        reproduce=FROM_FLOAT
        + """
layer = Linear.from_float(linear)
nn.init.constant_(linear.bias, 99.0)
print(layer.bias())  # prints 99s, should be the bias at the time of the conversion
""",
        mend="pack bias.detach().clone()",
        cause=BIAS_ALIAS,
    ),
    Defect(
        id="sparse-state-dict-holds-a-bias-that-requires-grad",
        area="kernels",
        kind="corrupted state",
        summary="state_dict() of a converted layer holds the float module's nn.Parameter itself as bias, which requires grad.",
        where=PARAMS + "_save_to_state_dict",
        contract="nn.Module.state_dict: tensors are detached from autograd unless keep_vars=True.",
        error="AssertionError",
        match="requires grad",
        reproduce=FROM_FLOAT
        + """
print(Linear.from_float(linear).state_dict()["_packed_params._packed_params"][1].requires_grad)  # prints True, should be False
""",
        mend="detach the bias when packing, or in _save_to_state_dict unless keep_vars",
        cause=BIAS_ALIAS,
    ),
    Defect(
        id="static-from-float-ignores-precomputed-qparams",
        area="kernels",
        kind="wrong result",
        summary="Linear.from_float(use_precomputed_fake_quant=True) observes the weight again, which changes what was precomputed.",
        where=STATIC + "from_float",
        contract=(
            'The dense Linear.from_float: "use_precomputed_fake_quant (bool): if True, the module will reuse min/max values from '
            'the precomputed fake quant module."'
        ),
        error="AssertionError",
        match="the precomputed scale",
        reproduce=FROM_FLOAT
        + """
observer = tq.MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
observer(torch.tensor([-0.01, 0.01]))
linear.qconfig = tq.QConfig(activation=tq.default_observer, weight=lambda: observer)
before = observer.calculate_qparams()[0].item()
after = Linear.from_float(linear, use_precomputed_fake_quant=True).weight().q_scale()
print(before, after)  # prints two scales, should be the first one twice
""",
        mend="call the weight observer only if not use_precomputed_fake_quant, as the dense Linear does",
    ),
    Defect(
        id="loaded-sparse-params-share-the-bias-of-the-state",
        area="kernels",
        kind="corrupted state",
        summary=(
            "load_state_dict of the packed parameters takes the bias tensor of the state itself: two layers loaded from one state, "
            "and the layer that it came from, share it."
        ),
        where=PARAMS + "_load_from_state_dict",
        contract="nn.Module.load_state_dict copies; the weight is a copy.",
        error="AssertionError",
        match="bias of the loaded parameters",
        reproduce=LAYERS
        + """
packed = LinearPackedParams()
state = packed.state_dict()
state["_packed_params"] = (packed._weight_bias()[0], torch.zeros(1), 1, 4)
packed.load_state_dict(state)
state["_packed_params"][1].fill_(7)
print(packed._weight_bias()[1])  # prints 7, should be 0
""",
        mend="pack bias.detach().clone()",
        cause=BIAS_ALIAS,
    ),
    Defect(
        id="refused-weight-changes-the-features-of-a-dynamic-layer",
        area="kernels",
        kind="corrupted state",
        summary=(
            "dynamic.Linear.set_weight_bias sets in_features and out_features before it packs: when packing refuses the weight or "
            "bias, the layer keeps the old weight under the new features."
        ),
        where=DYNAMIC + "set_weight_bias",
        contract="A call that raises leaves the object as it was; in_features and out_features name the weight's shape.",
        error="AssertionError",
        match="after the refusal",
        reproduce=LAYERS
        + """
layer, weight = dynamic.Linear(8, 8, 1, 4), torch.quantize_per_tensor(torch.ones(3, 5), 1.0, 0, torch.qint8)
try:
    layer.set_weight_bias(weight, torch.zeros(9), 1, 4)
except RuntimeError:
    print(layer, layer.weight().shape)  # prints in_features=5, out_features=3 and [8, 8]; should be 8, 8
""",
        mend="pack first, then set both",
    ),
    Defect(
        id="fbgemm-weight-in-the-dynamic-kernel-is-an-internal-error",
        area="kernels",
        kind="crash",
        summary=(
            "sparse::qlinear_dynamic with a weight that fbgemm packed raises an internal assertion that asks to report a bug, and "
            "blames a fused ReLU of qnnpack."
        ),
        where="aten/src/ATen/native/ao_sparse/quantized/cpu/fbgemm_utils.h: PackedLinearWeight::apply_dynamic",
        contract='The reverse case: TORCH_CHECK, "Static quantized sparse linear unimplemented on QNNPACK".',
        error="AssertionError",
        match="INTERNAL ASSERT FAILED",
        reproduce=FBGEMM
        + """
packed = ops.qlinear_prepack(weight, None, 1, 4)
torch.backends.quantized.engine = "qnnpack"
ops.qlinear_dynamic(torch.ones(2, 8), packed)  # INTERNAL ASSERT FAILED ... qnnpack, should say fbgemm has no such kernel
""",
        mend='TORCH_CHECK(false, "Dynamic quantized sparse linear unimplemented on FBGEMM")',
    ),
    Defect(
        id="from-float-advises-an-option-that-does-nothing",
        area="kernels",
        kind="crash",
        summary=(
            "Without sparse_params Linear.from_float advises squash_mask(params_to_save=...). The option is called params_to_keep; "
            "squash_mask takes the advised one without a word, does nothing with it, and from_float fails again."
        ),
        where=STATIC + "from_float",
        contract='The message: "Make sure you have provided arguments in the `sparsifier.squash_mask(params_to_save=...)` method."',
        error="AssertionError",
        match="params_to_save",
        reproduce="""
import torch
from torch.ao.pruning import WeightNormSparsifier
model, sparsifier = torch.nn.Sequential(torch.nn.Linear(8, 8)), WeightNormSparsifier()
sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
sparsifier.squash_mask(params_to_save=("sparse_block_shape",))
print(hasattr(model[0], "sparse_params"))  # prints False, should be True
""",
        mend="name params_to_keep in the message, and let squash_mask refuse options that it does not know",
    ),
    Defect(
        id="static-sparse-scale-is-saved-in-the-default-dtype",
        area="kernels",
        kind="wrong result",
        summary=(
            "state_dict() of the static Linear holds its output scale in the default dtype of the moment: under float16 or bfloat16 "
            "it is another number."
        ),
        where=STATIC + "_save_to_state_dict",
        contract="What is saved is the layer's state; scale is a Python float.",
        error="AssertionError",
        match="the saved scale",
        reproduce=LAYERS
        + """
layer = Linear(8, 8, 1, 4)
layer.scale = 0.0225
torch.set_default_dtype(torch.bfloat16)
print(layer.state_dict()["scale"].item())  # prints 0.0224609375, should be 0.0225
""",
        mend="torch.tensor(self.scale, dtype=torch.float64)",
    ),
]
