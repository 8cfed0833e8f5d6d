"""Mistakes in the sparse quantized layers."""

from audit.edits import Edit
from audit.history import mistake

LINEAR = "torch.ao.nn.sparse.quantized.linear"
DYNAMIC = "torch.ao.nn.sparse.quantized.dynamic.linear"
UTILS = "torch.ao.nn.sparse.quantized.utils"

Q = """
import torch.ao.nn.sparse.quantized as sq
import torch.ao.nn.sparse.quantized.dynamic as sqd
import torch.ao.quantization as tq
from torch.ao.nn.sparse.quantized.utils import LinearBlockSparsePattern as Pattern
torch.backends.quantized.engine = 'fbgemm'
def floats(shape=(1, 4), bias=True):
    torch.manual_seed(4)
    m = nn.Linear(8, 8, bias=bias)
    m.sparse_params = {'sparse_block_shape': shape}
    m.qconfig = tq.QConfig(tq.default_observer, tq.default_weight_observer)
    m.activation_post_process = tq.default_observer(); m.activation_post_process(torch.linspace(-1, 2, 8))
    return m
def dyn():
    m = floats(); m.qconfig = tq.default_dynamic_qconfig
    return m
x = torch.quantize_per_tensor(torch.linspace(-1, 1, 16).reshape(2, 8), 0.02, 60, torch.quint8)
def shown(t): return [round(v, 4) for v in t.dequantize().flatten().tolist()[:8]]
"""

MISTAKES = [
    mistake(
        "observer-sees-a-weight-without-signs",
        LINEAR,
        "Linear.from_float",
        "weight_post_process(weight)",
        "weight_post_process(weight.abs())",
        Q
        + """
class Seen(tq.MinMaxObserver):
    def forward(self, x):
        print(float(x.min()) < 0)
        return super().forward(x)
m = floats()
m.qconfig = tq.QConfig(tq.default_observer, Seen.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric))
sq.Linear.from_float(m)
""",
    ),
    mistake(
        "static-layer-loses-its-bias-argument",
        LINEAR,
        "Linear.__init__",
        "bias=True,",
        "",
        Q + "print(type(said(sq.Linear, 4, 4, 1, 4, bias=False)).__name__)",
    ),
    mistake(
        "static-layer-has-a-bias-though-told-not-to",
        LINEAR,
        "Linear.__init__",
        "if bias:",
        "if bias is not None:",
        Q + "print(sq.Linear(4, 4, 1, 4, bias=False).bias())",
    ),
    mistake(
        "static-layer-turns-its-widths-round",
        LINEAR,
        "Linear.__init__",
        "[out_features, in_features]",
        "[in_features, out_features]",
        Q + "print(type(said(lambda: sq.Linear(4, 8, 1, 4).weight().shape)).__name__, said(lambda: sq.Linear(4, 8, 1, 4).weight().shape))",
    ),
    mistake(
        "static-output-scale-is-lost",
        LINEAR,
        "Linear.from_float",
        "qlinear.scale = float(act_scale)",
        "pass",
        Q + "print(sq.Linear.from_float(floats()).scale)",
    ),
    mistake(
        "static-output-zero-point-is-lost",
        LINEAR,
        "Linear.from_float",
        "qlinear.zero_point = int(act_zp)",
        "pass",
        Q + "print(sq.Linear.from_float(floats()).zero_point)",
    ),
    mistake(
        "static-argument-for-fake-quant-is-gone",
        LINEAR,
        "Linear.from_float",
        ", use_precomputed_fake_quant=False",
        "",
        Q + "print(type(said(sq.Linear.from_float, floats(), use_precomputed_fake_quant=False)).__name__)",
    ),
    mistake(
        "static-subclasses-are-taken",
        LINEAR,
        "Linear.from_float",
        "if type(mod) is not cls._FLOAT_MODULE:",
        "if not isinstance(mod, cls._FLOAT_MODULE):",
        Q + "class Mine(nn.Linear): pass\nm = floats(); m.__class__ = Mine; print(type(said(sq.Linear.from_float, m)).__name__)",
    ),
    mistake(
        "static-block-shape-is-turned-round",
        LINEAR,
        "Linear.from_float",
        '["sparse_block_shape"][0]',
        '["sparse_block_shape"][1]',
        Q + "print(said(lambda: sq.Linear.from_float(floats())._weight_bias()[2:]))",
    ),
    mistake(
        "static-block-shape-may-be-a-number",
        LINEAR,
        "Linear.from_float",
        "if not isinstance(sparse_block_shape, (tuple, list)):",
        "if sparse_block_shape is None:",
        Q + "print(said(sq.Linear.from_float, floats(4)))",
    ),
    mistake(
        "static-block-shape-may-be-longer",
        LINEAR,
        "Linear.from_float",
        "if len(sparse_block_shape) != 2:",
        "if len(sparse_block_shape) < 2:",
        Q + "print(type(said(sq.Linear.from_float, floats((1, 4, 1)))).__name__)",
    ),
    mistake(
        "static-weight-is-quantized-before-it-is-observed",
        LINEAR,
        "Linear.from_float",
        "weight_post_process(weight)",
        "weight_post_process(weight[:1])",
        Q + "print(shown(sq.Linear.from_float(floats()).weight()))",
    ),
    mistake(
        "static-bias-is-lost", LINEAR, "Linear.from_float", "mod.bias,", "None,", Q + "print(sq.Linear.from_float(floats()).bias() is None)"
    ),
    mistake(
        "static-forward-forgets-the-zero-point",
        LINEAR,
        "Linear.forward",
        "self.scale, self.zero_point",
        "self.scale, 0",
        Q + "print(shown(sq.Linear.from_float(floats())(x)))",
    ),
    mistake(
        "static-scale-is-not-saved",
        LINEAR,
        "Linear._save_to_state_dict",
        'destination[prefix + "scale"] = torch.tensor(self.scale)',
        "pass",
        Q + "print(sorted(sq.Linear(4, 4, 1, 4).state_dict()))",
    ),
    mistake(
        "static-prefix-is-forgotten",
        LINEAR,
        "Linear._save_to_state_dict",
        'destination[prefix + "zero_point"]',
        'destination["zero_point"]',
        Q + "print(sorted(nn.Sequential(sq.Linear(4, 4, 1, 4)).state_dict()))",
    ),
    mistake(
        "static-name-is-the-classes",
        LINEAR,
        "Linear._get_name",
        'return "SparseQuantizedLinear"',
        "return cls.__name__",
        Q + "print(sq.Linear(4, 4, 1, 4))",
    ),
    mistake(
        "static-set-ignores-the-block",
        LINEAR,
        "Linear.set_weight_bias",
        "(w, b, row_block_size, col_block_size)",
        "(w, b, 1, 4)",
        Q + "m = sq.Linear(8, 8, 1, 4); m.set_weight_bias(m.weight(), None, 8, 1); print(m._weight_bias()[2:])",
    ),
    mistake(
        "packed-blocks-come-back-in-the-other-order",
        LINEAR,
        "LinearPackedParams._weight_bias",
        "block_sizes[0], block_sizes[1]",
        "block_sizes[1], block_sizes[0]",
        Q + "print(sq.Linear(8, 8, 1, 4)._weight_bias()[2:])",
    ),
    mistake(
        "packed-default-block-is-another",
        LINEAR,
        "LinearPackedParams.__init__",
        "row_block_size=1, col_block_size=4",
        "row_block_size=8, col_block_size=1",
        Q + "from torch.ao.nn.sparse.quantized.linear import LinearPackedParams as P\nprint(P()._weight_bias()[2:])",
    ),
    mistake(
        "packed-needs-no-block",
        LINEAR,
        "LinearPackedParams.set_weight_bias",
        "if row_block_size is None or col_block_size is None:",
        "if row_block_size is None and col_block_size is None:",
        Q + "from torch.ao.nn.sparse.quantized.linear import LinearPackedParams as P\n"
        "p = P(); print(str(said(p.set_weight_bias, p._weight_bias()[0], None, 1, None))[:40])",
    ),
    mistake(
        "packed-dtype-is-not-saved",
        LINEAR,
        "LinearPackedParams._save_to_state_dict",
        'destination[prefix + "dtype"] = self.dtype',
        "pass",
        Q + "print(sorted(sq.Linear(4, 4, 1, 4)._packed_params.state_dict()))",
    ),
    mistake(
        "packed-load-forgets-the-bias",
        LINEAR,
        "LinearPackedParams._load_from_state_dict",
        "self.set_weight_bias(weight, bias, row_block_size, col_block_size)",
        "self.set_weight_bias(weight, None, row_block_size, col_block_size)",
        Q + "a = sq.Linear.from_float(floats())._packed_params; b = sq.Linear(8, 8, 1, 4)._packed_params\n"
        "b.load_state_dict(a.state_dict()); print(b._weight_bias()[1] is None)",
    ),
    mistake(
        "packed-takes-newer-versions",
        LINEAR,
        "LinearPackedParams._load_from_state_dict",
        "if version is not None and version > self._version:",
        "if version is None:",
        Q
        + "a = sq.Linear(8, 8, 1, 4)._packed_params; d = a.state_dict(); d._metadata['']['version'] = 9; print(said(a.load_state_dict, d))",
    ),
    mistake(
        "packed-forward-copies",
        LINEAR,
        "LinearPackedParams.forward",
        "return x",
        "return x.clone()",
        Q + "p = sq.Linear(8, 8, 1, 4)._packed_params; t = torch.ones(1); print(p(t) is t)",
    ),
    mistake(
        "packed-copy-is-in-training",
        LINEAR,
        "LinearPackedParams.__getstate__",
        "self.training, self.dtype",
        "True, self.dtype",
        Q + "print(copied(sq.Linear(8, 8, 1, 4).eval())._packed_params.training)",
    ),
    mistake(
        "dynamic-layer-has-a-bias-though-told-not-to",
        DYNAMIC,
        "Linear.__init__",
        "if bias:",
        "if bias is not None:",
        Q + "print(sqd.Linear(4, 4, 1, 4, bias=False).bias())",
    ),
    mistake(
        "dynamic-argument-for-fake-quant-is-gone",
        DYNAMIC,
        "Linear.from_float",
        ", use_precomputed_fake_quant=False",
        "",
        Q + "print(type(said(sqd.Linear.from_float, dyn(), use_precomputed_fake_quant=False)).__name__)",
    ),
    mistake(
        "dynamic-ignores-the-pattern",
        DYNAMIC,
        "Linear.from_float",
        "LinearBlockSparsePattern.block_size()",
        "(1, 4)",
        Q + "with Pattern(8, 1): print(said(lambda: sqd.Linear.from_float(dyn())._weight_bias()[2:]))",
    ),
    mistake(
        "dynamic-bias-is-lost",
        DYNAMIC,
        "Linear.from_float",
        "(qweight, mod.bias, row",
        "(qweight, None, row",
        Q + "print(sqd.Linear.from_float(dyn()).bias() is None)",
    ),
    mistake(
        "dynamic-needs-its-own-observer",
        DYNAMIC,
        "Linear.from_float",
        "weight_observer = default_dynamic_qconfig.weight()",
        "weight_observer = None",
        Q + "m = dyn(); m.qconfig = None; print(type(said(sqd.Linear.from_float, m)).__name__)",
    ),
    mistake(
        "dynamic-set-forgets-the-widths",
        DYNAMIC,
        "Linear.set_weight_bias",
        "self.out_features = w.shape[0]",
        "pass",
        Q + "m = sqd.Linear(8, 8, 1, 4); m.set_weight_bias(sqd.Linear(8, 4, 1, 4).weight(), None, 1, 4); print(m.out_features)",
    ),
    mistake(
        "dynamic-op-type-is-another",
        DYNAMIC,
        "Linear",
        '_op_type = "sparse_dynamic"',
        '_op_type = "sparse"',
        Q + "print(sqd.Linear(8, 8, 1, 4).state_dict()['op_type'])",
    ),
    mistake(
        "dynamic-name-is-the-static-one",
        DYNAMIC,
        "Linear._get_name",
        '"SparseQuantizedDynamicLinear"',
        '"SparseQuantizedLinear"',
        Q + "print(sqd.Linear(8, 8, 1, 4))",
    ),
    mistake(
        "dynamic-repr-forgets-the-scheme",
        DYNAMIC,
        "Linear.extra_repr",
        ", qscheme={self.weight().qscheme()}",
        "",
        Q + "print(sqd.Linear(8, 8, 1, 4))",
    ),
    mistake(
        "dynamic-weight-is-observed-in-part",
        DYNAMIC,
        "Linear.from_float",
        "weight_observer(weight)",
        "weight_observer(weight[:1])",
        Q + "print(shown(sqd.Linear.from_float(dyn()).weight()))",
    ),
    mistake(
        "pattern-takes-any-block",
        UTILS,
        "LinearBlockSparsePattern.__init__",
        "if not _is_valid_linear_block_sparse_pattern(row_block_size, col_block_size):",
        "if row_block_size < 1:",
        Q + "print(type(said(Pattern, 2, 2)).__name__)",
    ),
    mistake(
        "pattern-knows-one-block-alone",
        UTILS,
        "_is_valid_linear_block_sparse_pattern",
        "row_block_size == 8 and col_block_size == 1",
        "False",
        Q + "print(type(said(Pattern, 8, 1)).__name__)",
    ),
    mistake(
        "pattern-outlives-its-block",
        UTILS,
        "LinearBlockSparsePattern.__exit__",
        "LinearBlockSparsePattern.prev_col_block_size",
        "LinearBlockSparsePattern.col_block_size",
        Q + "with Pattern(8, 1): pass\nprint(Pattern.block_size())",
    ),
    mistake(
        "pattern-is-not-let-go",
        UTILS,
        "LinearBlockSparsePattern.__exit__",
        "LinearBlockSparsePattern.rlock.release()",
        "pass",
        Q + "import threading\nwith Pattern(8, 1): pass\n"
        "t = threading.Thread(target=lambda: print(Pattern.rlock.acquire(blocking=False))); t.start(); t.join()",
    ),
    mistake(
        "pattern-comes-back-in-the-other-order",
        UTILS,
        "LinearBlockSparsePattern.block_size",
        "LinearBlockSparsePattern.row_block_size,",
        "LinearBlockSparsePattern.col_block_size,",
        Q + "print(Pattern.block_size())",
    ),
    mistake(
        "packed-params-pickle-in-another-order",
        LINEAR,
        "LinearPackedParams.__getstate__",
        "self._packed_params, self.training, self.dtype",
        "self._packed_params, self.dtype, self.training",
        Q + "print([type(part).__name__ for part in sq.LinearPackedParams().__getstate__()])",
        Edit(
            LINEAR,
            "LinearPackedParams.__setstate__",
            "self._packed_params, self.training, self.dtype",
            "self._packed_params, self.dtype, self.training",
        ),
    ),
    mistake(
        "static-zero-point-is-saved-as-a-float",
        LINEAR,
        "Linear._save_to_state_dict",
        "torch.tensor(self.zero_point)",
        "torch.tensor(float(self.zero_point))",
        Q + "print(sq.Linear(8, 8, 1, 4).state_dict()['zero_point'].dtype)",
    ),
    mistake(
        "dynamic-from-float-changes-the-weight",
        DYNAMIC,
        "Linear.from_float",
        "weight = mod.weight",
        "weight = mod.weight.detach_()",
        Q + "m = dyn(); sqd.Linear.from_float(m); print(m.weight.requires_grad)",
    ),
    mistake(
        "static-from-float-detaches-the-weight",
        LINEAR,
        "Linear.from_float",
        "weight = mod.weight",
        "weight = mod.weight.detach_()",
        Q + "m = floats(); sq.Linear.from_float(m); print(m.weight.requires_grad)",
    ),
    mistake(
        "static-from-float-switches-to-eval",
        LINEAR,
        "Linear.from_float",
        "weight = mod.weight",
        "weight = mod.eval().weight",
        Q + "m = floats(); sq.Linear.from_float(m); print(m.training)",
    ),
    mistake(
        "dynamic-from-float-switches-to-eval",
        DYNAMIC,
        "Linear.from_float",
        "weight = mod.weight",
        "weight = mod.eval().weight",
        Q + "m = dyn(); sqd.Linear.from_float(m); print(m.training)",
    ),
    mistake(
        "static-scale-is-saved-as-a-vector",
        LINEAR,
        "Linear._save_to_state_dict",
        "torch.tensor(self.scale)",
        "torch.tensor([self.scale])",
        Q + "print(sq.Linear(8, 8, 1, 4).state_dict()['scale'].shape)",
    ),
    mistake(
        "static-zero-point-is-saved-as-a-vector",
        LINEAR,
        "Linear._save_to_state_dict",
        "torch.tensor(self.zero_point)",
        "torch.tensor([self.zero_point])",
        Q + "print(sq.Linear(8, 8, 1, 4).state_dict()['zero_point'].shape)",
    ),
    mistake(
        "static-zero-point-is-saved-in-a-byte",
        LINEAR,
        "Linear._save_to_state_dict",
        "torch.tensor(self.zero_point)",
        "torch.tensor(self.zero_point, dtype=torch.uint8)",
        Q + "print(sq.Linear(8, 8, 1, 4).state_dict()['zero_point'].dtype)",
    ),
    mistake(
        "static-from-float-of-a-subclass-makes-the-base-class",
        LINEAR,
        "Linear.from_float",
        "qlinear = cls(",
        "qlinear = Linear(",
        Q + "print(type(type('Own', (sq.Linear,), {}).from_float(floats())).__name__)",
    ),
    mistake(
        "static-from-float-ignores-a-float-module-of-a-subclass",
        LINEAR,
        "Linear.from_float",
        "type(mod) is not cls._FLOAT_MODULE",
        "type(mod) is not torch.nn.Linear",
        Q + "own = type('Own', (nn.Linear,), {}); m = floats(); m.__class__ = own\n"
        "print(type(said(type('S', (sq.Linear,), {'_FLOAT_MODULE': own}).from_float, m)).__name__)",
    ),
    mistake(
        "static-from-float-draws-a-random-number",
        LINEAR,
        "Linear.from_float",
        "weight_post_process(weight)",
        "torch.rand(1)\nweight_post_process(weight)",
        Q + "sq.Linear.from_float(floats()); print(torch.rand(1).item())",
    ),
    mistake(
        "static-from-float-prints",
        LINEAR,
        "Linear.from_float",
        "weight_post_process(weight)",
        "print(weight.shape)\nweight_post_process(weight)",
        Q + "sq.Linear.from_float(floats())",
    ),
    mistake(
        "dynamic-from-float-draws-a-random-number",
        DYNAMIC,
        "Linear.from_float",
        "weight_observer(weight)",
        "torch.rand(1)\nweight_observer(weight)",
        Q + "sqd.Linear.from_float(dyn()); print(torch.rand(1).item())",
    ),
]
