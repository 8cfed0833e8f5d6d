"""Mends of the sparse quantized layers and of the context that chooses their block shape; the kernels themselves are compiled."""

from audit.edits import Edit, Function, Imports

LINEAR = "torch.ao.nn.sparse.quantized.linear"
DYNAMIC = "torch.ao.nn.sparse.quantized.dynamic.linear"
PATTERN = "torch.ao.nn.sparse.quantized.utils"

LOAD_LINEAR = "Linear._load_from_state_dict"
LOAD_PARAMS = "LinearPackedParams._load_from_state_dict"

MENDS = {
    "bias-is-packed-as-the-callers-own-tensor": [
        Edit(
            LINEAR,
            "LinearPackedParams.set_weight_bias",
            "self._packed_params = torch",
            "if bias is not None:\n    bias = bias.detach().clone()\nself._packed_params = torch",
        ),
    ],
    "block-pattern-acts-when-it-is-made": [
        Edit(
            PATTERN,
            "LinearBlockSparsePattern.__init__",
            "LinearBlockSparsePattern.rlock.acquire()",
            "self.shape = row_block_size, col_block_size\nreturn",
        ),
        Function(
            PATTERN,
            "LinearBlockSparsePattern.__enter__",
            """
            def __enter__(self) -> None:
                pattern = LinearBlockSparsePattern
                pattern.rlock.acquire()
                pattern.prev_row_block_size, pattern.prev_col_block_size = pattern.row_block_size, pattern.col_block_size
                pattern.row_block_size, pattern.col_block_size = self.shape
            """,
        ),
    ],
    "block-pattern-shows-in-other-threads": [
        Edit(PATTERN, "LinearBlockSparsePattern", "rlock = threading.RLock()", "rlock = threading.RLock()\nmade = threading.local()"),
        Edit(
            PATTERN,
            "LinearBlockSparsePattern.__init__",
            "LinearBlockSparsePattern.rlock.acquire()",
            "LinearBlockSparsePattern.rlock.acquire()\nLinearBlockSparsePattern.made.here = True",
        ),
        Function(
            PATTERN,
            "LinearBlockSparsePattern.block_size",
            """
            @staticmethod
            def block_size() -> tuple[int, int]:
                pattern = LinearBlockSparsePattern
                if not getattr(pattern.made, "here", None):
                    return 1, 4
                return pattern.row_block_size, pattern.col_block_size
            """,
        ),
    ],
    "dynamic-from-float-cannot-take-a-mask": [
        Edit(DYNAMIC, "Linear.from_float", 'getattr(mod.qconfig, "mask", False)', 'getattr(mod.qconfig, "mask", None) is not None'),
    ],
    "dynamic-from-float-refuses-linear-relu": [
        Edit(DYNAMIC, "Linear.from_float", "is not cls._FLOAT_MODULE", "not in (cls._FLOAT_MODULE, nni.LinearReLU)"),
    ],
    "dynamic-linear-loads-no-state": [
        Edit(DYNAMIC, LOAD_LINEAR, 'int(state_dict[prefix + "op_type"])', 'state_dict[prefix + "op_type"]'),
        Edit(DYNAMIC, LOAD_LINEAR, 'op_type != "sparse"', "op_type != self._op_type"),
        Edit(DYNAMIC, LOAD_LINEAR, 'weight = state_dict.pop(prefix + "weight")', ""),
        Edit(DYNAMIC, LOAD_LINEAR, 'bias = state_dict.pop(prefix + "bias")', ""),
        Edit(DYNAMIC, LOAD_LINEAR, 'prefix + "_packed_params.weight": weight,', ""),
        Edit(DYNAMIC, LOAD_LINEAR, 'prefix + "_packed_params.bias": bias,', ""),
    ],
    "from-float-advises-another-option": [
        Edit(LINEAR, "Linear.from_float", "params_to_save", "params_to_keep"),
    ],
    "from-float-passes-a-double-bias-on": [
        Edit(LINEAR, "Linear.from_float", "mod.bias,", "None if mod.bias is None else mod.bias.float(),"),
        Edit(DYNAMIC, "Linear.from_float", "mod.bias,", "None if mod.bias is None else mod.bias.float(),"),
    ],
    "mappings-of-pruning-name-layers-without-from-dense": [
        item
        for module in (LINEAR, DYNAMIC)
        for item in (
            Imports(module, "from torch.nn.utils.parametrize import type_before_parametrizations"),
            Edit(module, "Linear.from_float", "type(mod)", "type_before_parametrizations(mod)", after="def from_float"),
            Function(module, "Linear.from_dense", "@classmethod\ndef from_dense(cls, mod):\n    return cls.from_float(mod)"),
        )
    ],
    "nested-block-patterns-do-not-unwind": [
        Edit(
            PATTERN,
            "LinearBlockSparsePattern.__init__",
            "LinearBlockSparsePattern.rlock.acquire()",
            "LinearBlockSparsePattern.rlock.acquire()\nself.former = LinearBlockSparsePattern.block_size()",
        ),
        Function(
            PATTERN,
            "LinearBlockSparsePattern.__exit__",
            """
            def __exit__(self, exc_type, exc_value, backtrace) -> None:
                LinearBlockSparsePattern.row_block_size, LinearBlockSparsePattern.col_block_size = self.former
                LinearBlockSparsePattern.rlock.release()
            """,
        ),
    ],
    "packed-params-copies-are-no-whole-modules": [
        Function(LINEAR, "LinearPackedParams.__getstate__", "def __getstate__(self):\n    return vars(self)"),
        Function(
            LINEAR,
            "LinearPackedParams.__setstate__",
            """
            def __setstate__(self, state):
                if isinstance(state, tuple):  # what earlier releases saved
                    state = {**vars(torch.nn.Module()), **dict(zip(("_packed_params", "training", "dtype"), state))}
                super().__setstate__(state)
            """,
        ),
    ],
    "packed-params-take-keys-without-looking": [
        Edit(
            LINEAR,
            LOAD_PARAMS,
            'self.dtype = state_dict.pop(prefix + "dtype")',
            'absent = [prefix + name for name in ("dtype", "_packed_params") if prefix + name not in state_dict]\n'
            "if absent:\n    missing_keys.extend(absent)\n    return\n"
            'self.dtype = state_dict.pop(prefix + "dtype")',
        ),
    ],
    "static-linear-takes-keys-without-looking": [
        Edit(
            LINEAR,
            LOAD_LINEAR,
            'self.scale = float(state_dict[prefix + "scale"])',
            'missing_keys.extend(prefix + name for name in ("scale", "zero_point") if prefix + name not in state_dict)\n'
            'self.scale = float(state_dict.pop(prefix + "scale", self.scale))',
        ),
        Edit(LINEAR, LOAD_LINEAR, 'state_dict.pop(prefix + "scale")', ""),
        Edit(LINEAR, LOAD_LINEAR, 'int(state_dict[prefix + "zero_point"])', 'int(state_dict.pop(prefix + "zero_point", self.zero_point))'),
        Edit(LINEAR, LOAD_LINEAR, 'state_dict.pop(prefix + "zero_point")', ""),
    ],
    "packed-params-are-never-strict": [Edit(LINEAR, LOAD_PARAMS, "False,", "strict,")],
    "static-linear-is-never-strict": [Edit(LINEAR, LOAD_LINEAR, "False,", "strict,")],
    "packed-params-load-any-dtype": [
        Edit(
            LINEAR,
            LOAD_PARAMS,
            'self.dtype = state_dict.pop(prefix + "dtype")',
            'if state_dict[prefix + "dtype"] != torch.qint8:\n'
            '    raise NotImplementedError("Linear prepacking only supports QINT8")\n'
            'self.dtype = state_dict.pop(prefix + "dtype")',
        ),
    ],
    "packed-params-load-any-shape": [
        Edit(
            LINEAR,
            LOAD_LINEAR,
            "super()._load_from_state_dict(",
            'packed = state_dict.get(prefix + "_packed_params._packed_params")\n'
            "if packed is not None and packed[0].shape != (self.out_features, self.in_features):\n"
            '    raise RuntimeError(f"size mismatch for {prefix}_packed_params")\n'
            "super()._load_from_state_dict(",
        ),
    ],
    "refused-weight-changes-the-features": [
        Edit(
            DYNAMIC,
            "Linear.set_weight_bias",
            "self.out_features = w.shape[0]",
            "self._packed_params.set_weight_bias(w, b, row_block_size, col_block_size)\nself.out_features = w.shape[0]",
        ),
    ],
    "static-from-float-ignores-precomputed-qparams": [
        Edit(
            LINEAR,
            "Linear.from_float",
            "weight_post_process(weight)",
            "if not use_precomputed_fake_quant:\n    weight_post_process(weight)",
        ),
    ],
    "static-linear-asks-for-an-op-type": [
        Edit(LINEAR, LOAD_LINEAR, 'state_dict.pop(prefix + "op_type")', ""),
    ],
    "static-scale-is-saved-in-the-default-dtype": [
        Edit(LINEAR, "Linear._save_to_state_dict", "torch.tensor(self.scale)", "torch.tensor(self.scale, dtype=torch.float64)"),
    ],
    "static-set-weight-bias-keeps-the-old-features": [
        Edit(
            LINEAR,
            "Linear.set_weight_bias",
            "self._packed_params.set_weight_bias(w, b, row_block_size, col_block_size)",
            "self._packed_params.set_weight_bias(w, b, row_block_size, col_block_size)\nself.out_features, self.in_features = w.shape",
        ),
    ],
}

JOINT = {
    ("block-pattern-acts-when-it-is-made", "block-pattern-shows-in-other-threads", "nested-block-patterns-do-not-unwind"): [
        Function(
            PATTERN,
            "LinearBlockSparsePattern",
            """
            class LinearBlockSparsePattern:
                rlock = threading.RLock()
                patterns = threading.local()

                def __init__(self, row_block_size: int = 1, col_block_size: int = 4):
                    if not _is_valid_linear_block_sparse_pattern(row_block_size, col_block_size):
                        raise AssertionError(
                            f"Invalid linear block sparse pattern: row_block_size={row_block_size}, col_block_size={col_block_size}"
                        )
                    self.shape = row_block_size, col_block_size

                def __enter__(self) -> None:
                    self.rlock.acquire()
                    self.patterns.__dict__.setdefault("stack", []).append(self.shape)

                def __exit__(self, exc_type, exc_value, backtrace) -> None:
                    self.patterns.stack.pop()
                    self.rlock.release()

                @staticmethod
                def block_size() -> tuple[int, int]:
                    stack = getattr(LinearBlockSparsePattern.patterns, "stack", [])
                    return stack[-1] if stack else (1, 4)
            """,
        ),
    ],
}

NATIVE = {
    "qnnpack-keeps-the-first-input-scale": "quantized::linear_dynamic on the same weight gives 4, 40, 4, 40.",
    "qnnpack-runs-one-operator-in-two-threads": "The static kernels pass the same assertion in test_static_may_run_in_two_threads.",
    "prepack-takes-axis-1-for-axis-0": "The assertion accepts a refusal.",
    "fbgemm-writes-nothing-without-inputs": "FBGEMM_ENABLE_INSTRUCTIONS=AVX2 passes the same assertion.",
    "qnnpack-runs-without-inputs": "FBGEMM's AVX2 kernel passes the assertion of test_static_without_in_features_returns_the_bias.",
    "qnnpack-unpacks-an-empty-weight-with-another-scale": "fbgemm passes the same assertion.",
    "qnnpack-reads-a-strided-bias-as-contiguous": "The static kernel passes the assertion of test_static_with_a_strided_bias.",
    "static-result-beyond-int32-becomes-zero": "The integer model of oracles/quantized.py clamps before it converts, and gives 255.",
    "static-takes-any-output-zero-point": "torch.quantize_per_tensor refuses the same zero points.",
    "fbgemm-weight-in-the-dynamic-kernel": "The static kernel passes the assertion of test_static_refuses_a_weight_of_qnnpack_as_such.",
    "qnnpack-cuts-block-sizes-to-32-bits": "fbgemm passes the same assertion.",
    "qnnpack-unpacks-no-bias-as-zeros": "fbgemm passes the same assertion.",
    "copied-packed-weight-shares-its-bias": "pickle passes the same assertion.",
    "fbgemm-ignores-the-version-of-a-saved-weight": "qnnpack passes the same assertion.",
    "fbgemm-misreads-the-indices-that-qnnpack-saved": "qnnpack passes the same assertion on what fbgemm saved.",
    "loaded-qnnpack-weight-runs-only-after-packing-another": "A process that has packed a weight before gives the same number.",
    "qnnpack-zero-weight-cannot-be-saved": "fbgemm passes the same assertion.",
}
