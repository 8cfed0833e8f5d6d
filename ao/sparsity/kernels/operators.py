"""The operators torch.ops.sparse.qlinear*: packing and multiplying, static and dynamic."""

import contextlib
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
    scales_of,
    stored_input,
)

import numpy as np
import torch
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize as over, subtest

from ao.sparsity.testing import build
from ao.sparsity.testing.child import run_in_child
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.oracles import quantized as oracle

# Leading dimensions of the input, in_features, out_features: one element, ragged, ranks 2 to 4, empty, wider than a tile.
SHAPES = [
    ((1,), 1, 1),
    ((3,), 5, 3),
    ((1,), 4, 9),
    ((2, 3), 8, 8),
    ((2, 1, 3), 17, 10),
    ((0,), 8, 4),
    ((2, 0), 8, 4),
    ((37,), 67, 41),
]


def _two_of(names, number):
    """Two neighbouring names, others for the next number, so that all have their turn."""
    names = list(names)
    return names[number % len(names)], names[(number + 2) % len(names)]


def _run_static(stored, x_scale, x_zero_point, weight, bias, y_scale, y_zero_point, relu=False):
    packed = torch.ops.sparse.qlinear_prepack(weight, None if bias is None else float_tensor(bias), *BLOCK)
    op = torch.ops.sparse.qlinear_relu if relu else torch.ops.sparse.qlinear
    return op(quantized_input(stored, x_scale, x_zero_point), packed, y_scale, y_zero_point)


@instantiate_parametrized_tests
class TestQuantizedSparseKernels(KernelCase):
    """torch.ops.sparse.qlinear* against the dense kernels and against an integer model of quantized linear."""

    def test_sparse_qlinear(self):
        """sparse::qlinear: equals the dense quantized kernel on the same weight, on every engine that has it."""
        if not build.engines_with("pack"):
            self.skipTest("packed weights (no fbgemm, no qnnpack)")
        stored, real, bias = stored_input((5,), 12, 127), real_input((5,), 12), float_tensor(bias_of(9))
        for engine in build.engines():
            for per_channel in (False, True):
                weight = quantized_weight(oracle.block_sparse(9, 12, BLOCK, KEPT["a chessboard of blocks"]), scales_of(per_channel, 9))
                with build.quantized_engine(engine):
                    for mode, x, parameters in (
                        ("static", quantized_input(stored, 0.5, 3), (64.0, 7)),
                        ("dynamic", float_tensor(real), ()),
                    ):
                        with self.subTest(engine=engine, mode=mode, per_channel=per_channel):
                            dense_op, sparse_op = {
                                "static": (torch.ops.quantized.linear, torch.ops.sparse.qlinear),
                                "dynamic": (torch.ops.quantized.linear_dynamic, torch.ops.sparse.qlinear_dynamic),
                            }[mode]
                            if build.sparse_qlinear_refusal(engine, mode) is not None:
                                with self.assertRaises((RuntimeError, NotImplementedError)):
                                    sparse_op(x, torch.ops.sparse.qlinear_prepack(weight, bias, *BLOCK), *parameters)
                                continue
                            dense = dense_op(x, torch.ops.quantized.linear_prepack(weight, bias), *parameters)
                            sparse = sparse_op(x, torch.ops.sparse.qlinear_prepack(weight, bias, *BLOCK), *parameters)
                            self.assertExact(sparse, dense)

    def test_static_equals_integer_model(self):
        """sparse::qlinear(_relu): int32 sums, halves rounded to even, clamped to quint8, over shapes, scales, bias and ReLU."""
        for engine in self.engines("static", relu=True):
            for number, (leading, columns, rows) in enumerate(SHAPES):
                for kept in _two_of(KEPT, number):
                    w = oracle.block_sparse(rows, columns, BLOCK, KEPT[kept])
                    stored = stored_input(leading, columns, 127)
                    for per_channel, bias, relu in (
                        (False, None, False),
                        (True, bias_of(rows), False),
                        (number % 2 == 0, bias_of(rows), True),
                    ):
                        case = (stored, 0.5, 3 + number), (64.0, 100 if number % 2 else 0)
                        scale = scales_of(per_channel, rows)
                        with self.subTest(engine=engine, x=stored.shape, w=w.shape, kept=kept, per_channel=per_channel, relu=relu):
                            with build.quantized_engine(engine):
                                result = _run_static(*case[0], quantized_weight(w, scale), bias, *case[1], relu)
                            expected = oracle.static_linear(*case[0], w, scale, bias, *case[1], relu)
                            self.assertExact(result.int_repr(), torch.tensor(expected, dtype=torch.uint8))

    def test_static_rounds_halves_to_even_and_clamps(self):
        """Requantization: 0.5, 1.5, 2.5 become 0, 2, 2; what lies beyond 0 .. 255 becomes its end."""
        for engine in self.engines("static"):
            stored, w = np.array([[0], [1], [2], [3], [5], [127]]), np.array([[1], [-1], [100]])
            with self.subTest(engine=engine), build.quantized_engine(engine):
                result = _run_static(stored, 1.0, 0, quantized_weight(w), None, 2.0, 10).int_repr().tolist()
                self.assertEqual(result, [[10, 10, 10], [10, 10, 60], [11, 9, 110], [12, 8, 160], [12, 8, 255], [74, 0, 255]])

    def test_static_result_carries_the_parameters_asked_for(self):
        """sparse::qlinear: a contiguous quint8 tensor with the given scale and zero point; the arguments are left alone."""
        for engine in self.engines("static"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                x, weight, bias = quantized_input(stored_input((2, 3), 8, 127), 0.5, 3), quantized_weight(np.ones((4, 8))), torch.ones(4)
                packed = torch.ops.sparse.qlinear_prepack(weight, bias, *BLOCK)
                result = torch.ops.sparse.qlinear(x, packed, 0.125, 9)
                self.assertTupleEqual((result.dtype, result.q_scale(), result.q_zero_point()), (torch.quint8, 0.125, 9))
                self.assertTupleEqual((tuple(result.shape), result.is_contiguous()), ((2, 3, 4), True))
                self.assertEqual(x.int_repr(), stored_input((2, 3), 8, 127).astype(np.uint8))
                self.assertTupleEqual((weight.int_repr().unique().tolist(), bias.tolist()), ([1], [1, 1, 1, 1]))

    def test_dynamic_equals_integer_model(self):
        """sparse::qlinear_dynamic: the input spread over 0 .. 255, int32 sums, real output, over shapes, scales and bias."""
        for engine in self.engines("dynamic"):
            for number, (leading, columns, rows) in enumerate(SHAPES):
                x = real_input(leading, columns, zero_point=(0, 255, 100)[number % 3] if 0 not in leading and columns > 1 else 0)
                for kept in _two_of(KEPT, number):
                    w = oracle.block_sparse(rows, columns, BLOCK, KEPT[kept])
                    for per_channel, bias in ((False, None), (True, bias_of(rows)), (False, bias_of(rows))):
                        scale = scales_of(per_channel, rows)
                        with self.subTest(engine=engine, x=x.shape, w=w.shape, kept=kept, per_channel=per_channel):
                            with build.quantized_engine(engine):
                                weight = quantized_weight(w, scale)
                                packed = torch.ops.sparse.qlinear_prepack(weight, None if bias is None else float_tensor(bias), *BLOCK)
                                result = torch.ops.sparse.qlinear_dynamic(float_tensor(x), packed)
                            expected = oracle.dynamic_linear(x, w, scale, bias=bias) if x.size else np.zeros((*leading, rows))
                            self.assertExact(result, float_tensor(expected))

    def test_dynamic_quantizes_by_the_range_of_the_input_and_zero(self):
        """sparse::qlinear_dynamic: constant, all-positive, all-negative and all-zero inputs come through without loss."""
        w = oracle.block_sparse(3, 4, BLOCK, KEPT["every block"])
        for engine in self.engines("dynamic"):
            for value in (0.0, 51.0, -51.0):
                with self.subTest(engine=engine, value=value), build.quantized_engine(engine):
                    packed = torch.ops.sparse.qlinear_prepack(quantized_weight(w), float_tensor([1, 2, 3]), *BLOCK)
                    result = torch.ops.sparse.qlinear_dynamic(torch.full((2, 4), value), packed)
                    self.assertExact(result, float_tensor([value * w.sum(axis=1) + [1, 2, 3]] * 2))

    def test_weight_zero_points(self):
        """Packing: a weight's zero point is honoured where the engine supports it, and refused where not."""
        w = oracle.block_sparse(9, 12, BLOCK, KEPT["a chessboard of blocks"], low=-50, high=50)
        for engine in self.engines("pack"):
            for scale, zero_point in ((0.25, 5), (scales_of(True, 9), list(range(-4, 5)))):
                weight = quantized_weight(w, scale, zero_point)
                with self.subTest(engine=engine, zero_point=zero_point), build.quantized_engine(engine):
                    if build.sparse_qlinear_refusal(engine, "dynamic") is not None:
                        with self.assertRaisesRegex(RuntimeError, "zero point"):
                            torch.ops.sparse.qlinear_prepack(weight, None, *BLOCK)
                        continue
                    packed, x = torch.ops.sparse.qlinear_prepack(weight, None, *BLOCK), real_input((3,), 12)
                    self.assertExact(torch.ops.sparse.qlinear_unpack(packed)[0], weight)
                    expected = oracle.dynamic_linear(x, w, scale, zero_point)
                    self.assertExact(torch.ops.sparse.qlinear_dynamic(float_tensor(x), packed), float_tensor(expected))

    def test_columns_of_blocks_run_where_the_build_has_them(self):
        """sparse::qlinear_dynamic with 8 x 1 blocks: the integer model again, ragged rows included."""
        for engine in self.engines("dynamic", COLUMN_BLOCK):
            for rows in (8, 19):
                w, x = oracle.block_sparse(rows, 6, COLUMN_BLOCK, KEPT["a chessboard of blocks"]), real_input((5,), 6)
                with self.subTest(engine=engine, rows=rows), build.quantized_engine(engine):
                    packed = torch.ops.sparse.qlinear_prepack(quantized_weight(w, 0.25), float_tensor(bias_of(rows)), *COLUMN_BLOCK)
                    result = torch.ops.sparse.qlinear_dynamic(float_tensor(x), packed)
                    self.assertExact(result, float_tensor(oracle.dynamic_linear(x, w, 0.25, bias=bias_of(rows))))

    def test_strided_operands(self):
        """Kernels: a transposed or strided input, weight or quantized weight gives what its contiguous copy gives."""
        w = oracle.block_sparse(8, 12, BLOCK, KEPT["a chessboard of blocks"])
        wide = np.repeat(w, 2, axis=1)
        weights = {"transposed": quantized_weight(w.T.copy(), 0.25).t(), "strided": quantized_weight(wide, 0.25)[:, ::2]}
        stored, real = stored_input((5,), 12, 127), real_input((5,), 12)
        for engine in self.engines("pack"):
            for name, weight in weights.items():
                with self.subTest(engine=engine, weight=name), build.quantized_engine(engine):
                    packed = torch.ops.sparse.qlinear_prepack(weight, None, *BLOCK)
                    self.assertExact(torch.ops.sparse.qlinear_unpack(packed)[0].int_repr(), torch.tensor(w, dtype=torch.int8))
                    if build.sparse_qlinear_refusal(engine, "static") is None:
                        x = quantized_input(stored.T.copy(), 0.5, 3).t()
                        expected = oracle.static_linear(stored, 0.5, 3, w, 0.25, None, 64.0, 100)
                        result = torch.ops.sparse.qlinear(x, packed, 64.0, 100)
                        self.assertExact(result.int_repr(), torch.tensor(expected, dtype=torch.uint8))
                    if build.sparse_qlinear_refusal(engine, "dynamic") is None:
                        expected = oracle.dynamic_linear(real, w, 0.25)
                        self.assertExact(torch.ops.sparse.qlinear_dynamic(float_tensor(real.T.copy()).t(), packed), float_tensor(expected))

    def test_threads_do_not_change_the_result(self):
        """Kernels: one thread and two give the same numbers, at a size that is worth dividing."""
        w = oracle.block_sparse(100, 130, BLOCK, KEPT["a chessboard of blocks"])
        stored, real = stored_input((70,), 130, 127), real_input((70,), 130)
        threads = torch.get_num_threads()
        self.addCleanup(torch.set_num_threads, threads)
        for engine in self.engines("pack"):
            with build.quantized_engine(engine):
                packed = torch.ops.sparse.qlinear_prepack(quantized_weight(w, 0.25), None, *BLOCK)
                for number in (1, 2):
                    torch.set_num_threads(number)
                    with self.subTest(engine=engine, threads=number):
                        if build.sparse_qlinear_refusal(engine, "static") is None:
                            result = torch.ops.sparse.qlinear(quantized_input(stored, 0.5, 3), packed, 64.0, 100)
                            expected = oracle.static_linear(stored, 0.5, 3, w, 0.25, None, 64.0, 100)
                            self.assertExact(result.int_repr(), torch.tensor(expected, dtype=torch.uint8))
                        if build.sparse_qlinear_refusal(engine, "dynamic") is None:
                            result = torch.ops.sparse.qlinear_dynamic(float_tensor(real), packed)
                            self.assertExact(result, float_tensor(oracle.dynamic_linear(real, w, 0.25)))

    def test_prepack_refuses_what_it_cannot_pack(self):
        """sparse::qlinear_prepack: only a 2-D qint8 weight, a bias of one number per output, and positive block sizes."""
        integers = torch.ones(8, 8)
        cases = {
            "quint8 weight": (torch.quantize_per_tensor(integers, 1.0, 0, torch.quint8), None, BLOCK),
            "qint32 weight": (torch.quantize_per_tensor(integers, 1.0, 0, torch.qint32), None, BLOCK),
            "float weight": (integers, None, BLOCK),
            "1-D weight": (quantized_weight(integers[0]), None, BLOCK),
            "3-D weight": (quantized_weight(integers[None]), None, BLOCK),
            "short bias": (quantized_weight(integers), torch.zeros(7), BLOCK),
            "long bias": (quantized_weight(integers), torch.zeros(9), BLOCK),
            "2-D bias": (quantized_weight(integers), torch.zeros(8, 1), BLOCK),
            "0-D bias": (quantized_weight(integers), torch.tensor(0.0), BLOCK),
            "no rows in a block": (quantized_weight(integers), None, (0, 4)),
            "no columns in a block": (quantized_weight(integers), None, (1, 0)),
            "negative block": (quantized_weight(integers), None, (-1, 4)),
        }
        for engine in self.engines("pack"):
            for name, (weight, bias, block) in cases.items():
                with self.subTest(engine=engine, case=name), build.quantized_engine(engine):
                    with self.assertRaises((RuntimeError, IndexError, NotImplementedError)):
                        torch.ops.sparse.qlinear_prepack(weight, bias, *block)

    def test_static_refuses_what_it_cannot_multiply(self):
        """sparse::qlinear: only a quint8 input, per tensor, with in_features columns and two dimensions or more."""
        x = stored_input((2,), 8, 127)
        cases = {
            "float": torch.ones(2, 8),
            "qint8": quantized_weight(x),
            "per channel": torch.quantize_per_channel(torch.ones(2, 8), torch.ones(8), torch.zeros(8), 1, torch.quint8),
            "a column less": quantized_input(x[:, 1:]),
            "a column more": quantized_input(np.hstack([x, x[:, :1]])),
            "1-D": quantized_input(x[0]),
        }
        for engine in self.engines("static", relu=True):
            with build.quantized_engine(engine):
                packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((4, 8))), None, *BLOCK)
                for name, wrong in cases.items():
                    for op in (torch.ops.sparse.qlinear, torch.ops.sparse.qlinear_relu):
                        with self.subTest(engine=engine, case=name, op=op), self.assertRaises((RuntimeError, NotImplementedError)):
                            op(wrong, packed, 1.0, 0)

    def test_dynamic_refuses_what_it_cannot_multiply(self):
        """sparse::qlinear_dynamic: only a finite float32 input with in_features columns and two dimensions or more."""
        cases = {
            "quint8": quantized_input(np.ones((2, 8))),
            "double": torch.ones(2, 8, dtype=torch.float64),
            "half": torch.ones(2, 8, dtype=torch.float16),
            "integers": torch.ones(2, 8, dtype=torch.int64),
            "a column less": torch.ones(2, 7),
            "a column more": torch.ones(2, 9),
            "1-D": torch.ones(8),
            "NaN": torch.full((2, 8), float("nan")),
            "infinite": torch.full((2, 8), float("inf")),
        }
        for engine in self.engines("dynamic"):
            with build.quantized_engine(engine):
                packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((4, 8))), None, *BLOCK)
                for name, wrong in cases.items():
                    with self.subTest(engine=engine, case=name), self.assertRaises((RuntimeError, NotImplementedError)):
                        torch.ops.sparse.qlinear_dynamic(wrong, packed)

    def test_engine_without_a_kernel_refuses(self):
        """Engines: what an engine lacks (mode, block shape, ReLU) is an error, never another result."""
        if not build.engines():
            self.skipTest("refusals (no quantized engine)")
        x, real = quantized_input(np.ones((2, 8))), torch.ones(2, 8)
        calls = {
            ("static", False): lambda packed: torch.ops.sparse.qlinear(x, packed, 1.0, 0),
            ("static", True): lambda packed: torch.ops.sparse.qlinear_relu(x, packed, 1.0, 0),
            ("dynamic", False): lambda packed: torch.ops.sparse.qlinear_dynamic(real, packed),
            ("dynamic", True): lambda packed: torch.ops.sparse.qlinear_relu_dynamic(real, packed),
        }
        for engine in build.engines():
            for (mode, relu), call in calls.items():
                for block in (BLOCK, COLUMN_BLOCK, (2, 2)):
                    with self.subTest(engine=engine, mode=mode, relu=relu, block=block), build.quantized_engine(engine):
                        refusal = build.sparse_qlinear_refusal(engine, mode, block, relu)
                        if refusal is None:
                            packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((8, 8))), None, *block)
                            result = call(packed)
                            self.assertEqual(result.dequantize() if result.is_quantized else result, torch.full((2, 8), 8.0))
                        else:
                            with self.assertRaises((RuntimeError, NotImplementedError)):
                                call(torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((8, 8))), None, *block))

    @known_defect("qnnpack-sparse-keeps-the-first-input-scale")
    def test_dynamic_is_a_function_of_its_arguments(self):
        """sparse::qlinear_dynamic: a result does not depend on the inputs that came before."""
        self.skip_unless_runs("qnnpack", "dynamic")
        with build.quantized_engine("qnnpack"):
            packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((8, 8)), 0.5), None, *BLOCK)
            results = [torch.ops.sparse.qlinear_dynamic(torch.full((1, 8), x), packed)[0, 0].item() for x in (1.0, 10.0, 1.0, 10.0)]
        self.assertEqual(str(results), "[4.0, 40.0, 4.0, 40.0]")

    def test_dynamic_follows_scales_that_do_not_come_back(self):
        """sparse::qlinear_dynamic: inputs of ever other scales, by a fresh packed weight or one that was used, come out right."""
        for engine in self.engines("dynamic"):
            with build.quantized_engine(engine):
                packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((8, 8)), 0.5), None, *BLOCK)
                results = [torch.ops.sparse.qlinear_dynamic(torch.full((1, 8), x), packed)[0, 0].item() for x in (1.0, 10.0, 2.0, 2.0)]
                self.assertEqual((engine, results), (engine, [4.0, 40.0, 8.0, 8.0]))

    @known_defect("qnnpack-sparse-mixes-up-two-threads")
    def test_dynamic_may_run_in_two_threads(self):
        """Inference (CPU threading notes of torch's documentation): two threads that share one packed weight get what each gets alone."""
        self.skip_unless_runs("qnnpack", "dynamic")
        wrong = run_in_child(_wrong_results_in_two_threads, "qnnpack")
        self.assertEqual(wrong, 0, msg="wrong results of two threads")

    def test_static_may_run_in_two_threads(self):
        """Inference: two threads that share one packed weight get what each gets alone, from the static kernels."""
        for engine in self.engines("static"):
            self.assertEqual(run_in_child(_wrong_static_results_in_two_threads, engine), 0, msg=engine)

    @over(
        "engine",
        [
            subtest("fbgemm", decorators=[known_defect("fbgemm-prepack-takes-axis-1-for-axis-0")]),
            subtest("qnnpack", decorators=[known_defect("qnnpack-prepack-takes-axis-1-for-axis-0")]),
        ],
    )
    def test_scales_along_columns_are_kept_or_refused(self, engine):
        """qlinear_unpack names its results W_origin and B_origin: a weight with scales along axis 1 comes out as it was, or is refused."""
        self.skip_unless_packs(engine)
        scales, zero_points = torch.tensor([0.5, 2.0]), torch.zeros(2, dtype=torch.int64)
        weight = torch.quantize_per_channel(torch.full((2, 2), 2.0), scales, zero_points, 1, torch.qint8)
        outcome = _unpacked_or_refused(engine, weight, lambda unpacked: unpacked.dequantize().tolist())
        self.assertIn(outcome, ("[[2.0, 2.0], [2.0, 2.0]]", "refused"))

    @known_defect("fbgemm-sparse-without-inputs-returns-garbage")
    def test_static_without_in_features_returns_the_bias(self):
        """sparse::qlinear: without columns to multiply, the result is the bias, as nn.functional.linear has it."""
        self.skip_unless_runs("fbgemm", "static")
        result = run_in_child(_static_without_in_features, "fbgemm")
        self.assertEqual(result, [list(range(100, 164))] * 2, msg="not the bias")

    def test_static_without_in_features_has_its_shape(self):
        """sparse::qlinear: without columns to multiply, the result has the shape, dtype and parameters asked for."""
        for engine in self.engines("static"):
            with build.quantized_engine(engine):
                packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((5, 0))), None, *BLOCK)
                result = torch.ops.sparse.qlinear(quantized_input(np.ones((2, 0))), packed, 0.5, 7)
            found = tuple(result.shape), result.dtype, result.q_scale(), result.q_zero_point()
            self.assertEqual(found, ((2, 5), torch.quint8, 0.5, 7))

    def test_dynamic_without_out_features_returns_nothing(self):
        """sparse::qlinear_dynamic: without rows in the weight, the result is empty, in one thread at least."""
        for engine in self.engines("dynamic"):
            self.assertEqual(run_in_child(_dynamic_of_shape, engine, 0, 8), [[], []])

    @known_defect("qnnpack-sparse-without-inputs-kills-the-process")
    def test_dynamic_without_in_features_returns_the_bias(self):
        """sparse::qlinear_dynamic: without columns to multiply, the result is the bias, as nn.functional.linear has it."""
        self.skip_unless_runs("qnnpack", "dynamic")
        result = run_in_child(_dynamic_of_shape, "qnnpack", 8, 0)
        self.assertEqual(result, [list(range(8))] * 2, msg="not the bias")

    @known_defect("qnnpack-sparse-reads-a-strided-bias-as-contiguous")
    def test_dynamic_with_a_strided_bias(self):
        """qlinear_prepack: a bias that is a slice with a step is added as it reads."""
        self.skip_unless_runs("qnnpack", "dynamic")
        with build.quantized_engine("qnnpack"):
            packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((8, 8))), torch.arange(16.0)[::2], *BLOCK)
            result = torch.ops.sparse.qlinear_dynamic(torch.zeros(1, 8), packed)
        self.assertEqual(str(result[0].int().tolist()), "[0, 2, 4, 6, 8, 10, 12, 14]")

    def test_static_with_a_strided_bias(self):
        """qlinear_prepack: a bias that is a slice with a step, or expanded, is added as it reads."""
        for engine in self.engines("static"):
            for bias in (torch.arange(16.0)[::2], torch.tensor([3.0]).expand(8)):
                with self.subTest(engine=engine, stride=bias.stride()), build.quantized_engine(engine):
                    packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((8, 8))), bias, *BLOCK)
                    result = torch.ops.sparse.qlinear(quantized_input(np.zeros((1, 8))), packed, 1.0, 0)
                    self.assertExact(result.dequantize(), bias[None].clone())

    @known_defect("static-sparse-result-beyond-int32-becomes-zero")
    def test_static_saturates_whatever_the_size(self):
        """Requantization: a result of 2 ** 31 steps or more saturates at 255."""
        self.skip_unless_runs("fbgemm", "static")
        with build.quantized_engine("fbgemm"):
            bias = [2.0**31, 1e10, 1e20]
            result = _run_static(np.ones((1, 8)), 1.0, 0, quantized_weight(np.ones((3, 8))), bias, 1.0, 0).int_repr().tolist()
        self.assertEqual(str(result), "[[255, 255, 255]]")

    def test_static_saturates_within_int32(self):
        """Requantization: results of a few steps less than 2 ** 31 saturate at 255, and any negative one at 0."""
        for engine in self.engines("static"):
            with build.quantized_engine(engine):
                bias = [2.0**30, -(2.0**30), -(2.0**31), -1e20]
                result = _run_static(np.ones((1, 8)), 1.0, 0, quantized_weight(np.ones((4, 8))), bias, 1.0, 0).int_repr().tolist()
                self.assertEqual((engine, result), (engine, [[255, 0, 0, 0]]))

    @known_defect("static-sparse-takes-any-output-zero-point")
    def test_static_refuses_a_zero_point_beyond_quint8(self):
        """sparse::qlinear: an output zero point that quint8 cannot hold is an error, as in torch.quantize_per_tensor."""
        self.skip_unless_runs("fbgemm", "static")
        accepted = []
        with build.quantized_engine("fbgemm"):
            for zero_point in (-1, 0, 255, 256, 2**31):
                with contextlib.suppress(RuntimeError):
                    _run_static(np.ones((1, 8)), 1.0, 0, quantized_weight(np.ones((2, 8))), None, 1.0, zero_point)
                    accepted.append(zero_point)
        self.assertEqual(str(accepted), "[0, 255]")

    @known_defect("fbgemm-weight-in-the-dynamic-kernel-is-an-internal-error")
    def test_dynamic_refuses_a_weight_of_fbgemm_as_such(self):
        """Engines: a kernel refuses a weight that was packed for an engine without it, and does not call that PyTorch's bug."""
        self.skip_unless_packs("fbgemm", "qnnpack")
        self.skip_unless_runs("qnnpack", "dynamic")
        with build.quantized_engine("fbgemm"):
            packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((8, 8))), None, *BLOCK)
        with build.quantized_engine("qnnpack"), self.assertRaises(RuntimeError) as caught:
            torch.ops.sparse.qlinear_dynamic(torch.ones(2, 8), packed)
        self.assertNotIn("INTERNAL ASSERT FAILED", str(caught.exception))

    def test_static_refuses_a_weight_of_qnnpack_as_such(self):
        """Engines: the static kernel refuses a weight that qnnpack packed, and does not call that PyTorch's bug."""
        self.skip_unless_packs("fbgemm", "qnnpack")
        with build.quantized_engine("qnnpack"):
            packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((8, 8))), None, *BLOCK)
        with build.quantized_engine("fbgemm"), self.assertRaises(RuntimeError) as caught:
            torch.ops.sparse.qlinear(quantized_input(np.ones((2, 8))), packed, 1.0, 0)
        self.assertNotIn("INTERNAL ASSERT FAILED", str(caught.exception))

    @known_defect("qnnpack-sparse-block-size-beyond-32-bits-kills-the-process")
    def test_qnnpack_prepack_refuses_huge_blocks(self):
        """qlinear_prepack: a block size beyond 32 bits is an error."""
        self.skip_unless_packs("qnnpack")
        with self.assertRaisesRegex(RuntimeError, "block"):
            run_in_child(_prepack_with_blocks, "qnnpack", (1, 2**32))

    def test_fbgemm_prepack_refuses_huge_blocks(self):
        """qlinear_prepack: a block size beyond 32 bits is an error."""
        self.skip_unless_packs("fbgemm")
        with self.assertRaisesRegex(RuntimeError, "block"):
            run_in_child(_prepack_with_blocks, "fbgemm", (1, 2**32))

    @over("engine", ["fbgemm", subtest("qnnpack", decorators=[known_defect("qnnpack-sparse-unpacks-no-bias-as-zeros")])])
    def test_no_bias_stays_none(self, engine):
        """qlinear_unpack: without a bias its place is None, on every engine."""
        self.skip_unless_packs(engine)
        with build.quantized_engine(engine):
            packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((3, 8))), None, *BLOCK)
            bias = torch.ops.sparse.qlinear_unpack(packed)[1]
        self.assertEqual(str(bias), "None")

    @over("engine", ["fbgemm", subtest("qnnpack", decorators=[known_defect("qnnpack-sparse-unpacks-an-empty-weight-with-another-scale")])])
    def test_an_empty_weight_is_unpacked_as_it_was(self, engine):
        """qlinear_unpack names its results W_origin and B_origin: a weight without rows keeps its scale and zero point, or is refused."""
        self.skip_unless_packs(engine)
        weight = quantized_weight(np.ones((0, 8)), 0.5)
        outcome = _unpacked_or_refused(engine, weight, lambda found: (tuple(found.shape), found.q_scale(), found.q_zero_point()))
        self.assertIn(outcome, ("((0, 8), 0.5, 0)", "refused"))

    def test_every_scheme_runs_rightly_or_is_refused(self):
        """qlinear_prepack: what torch can quantize a weight to is unpacked as it was, or refused, whichever dtype, scheme and axis."""
        numbers = torch.arange(64.0).reshape(8, 8) / 16 - 2
        scales, offsets = torch.full((8,), 0.25), torch.zeros(8)
        per_tensor, per_channel, floats = "per tensor", "per channel", "per channel with float zero points"
        makers = {
            per_tensor: lambda dtype: torch.quantize_per_tensor(numbers, 0.25, 0, dtype),
            per_channel: lambda dtype: torch.quantize_per_channel(numbers, scales, offsets.long(), 0, dtype),
            floats: lambda dtype: torch.quantize_per_channel(numbers, scales, offsets + 0.5, 0, dtype),
        }
        cases = [(per_tensor, dtype) for dtype in (torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4)]
        cases += [(per_channel, dtype) for dtype in (torch.qint8, torch.quint8, torch.qint32)]
        cases += [(floats, dtype) for dtype in (torch.qint8, torch.quint4x2)]
        welcome = [(per_tensor, torch.qint8), (per_channel, torch.qint8)]
        for engine in self.engines("pack"):
            packed = []
            for scheme, dtype in cases:
                with self.subTest(engine=engine, scheme=scheme, dtype=dtype), build.quantized_engine(engine):
                    weight = makers[scheme](dtype)
                    try:
                        unpacked = torch.ops.sparse.qlinear_unpack(torch.ops.sparse.qlinear_prepack(weight, None, *BLOCK))[0]
                    except (RuntimeError, NotImplementedError):
                        continue
                    self.assertExact(unpacked, weight)
                    packed.append((scheme, dtype))
            self.assertEqual([case for case in welcome if case not in packed], [], msg=f"what {engine} does not pack")


def _unpacked_or_refused(engine, weight, show):
    """``show`` of the weight after packing and unpacking, as text, or ``refused``."""
    with build.quantized_engine(engine):
        try:
            packed = torch.ops.sparse.qlinear_prepack(weight, None, *BLOCK)
        except RuntimeError:
            return "refused"
        return str(show(torch.ops.sparse.qlinear_unpack(packed)[0]))


def _wrong_in_two_threads(multiply, inputs, calls):
    """Number of wrong results that two threads get from ``multiply``, each with an input of its own, until there is one."""
    wrong, start = [], threading.Barrier(len(inputs))

    def run(x, expected):
        start.wait()
        for number in range(calls):
            if wrong:
                break
            if not torch.equal(multiply(x), expected):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(x, multiply(x))) for x in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong)


def _wrong_results_in_two_threads(engine, calls=5000):
    torch.backends.quantized.engine = engine
    packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((64, 64)), 0.5), None, *BLOCK)
    inputs = torch.ones(64, 64), torch.ones(64, 64)
    inputs[1][:, ::2] = 0  # the same range, so that both are quantized alike
    return _wrong_in_two_threads(lambda x: torch.ops.sparse.qlinear_dynamic(x, packed), inputs, calls)


def _wrong_static_results_in_two_threads(engine, calls=200):
    torch.backends.quantized.engine = engine
    packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((64, 64)), 0.5), None, *BLOCK)
    inputs = [quantized_input(np.full((64, 64), number)) for number in (1, 2)]
    return _wrong_in_two_threads(lambda x: torch.ops.sparse.qlinear(x, packed, 1.0, 0).int_repr(), inputs, calls)


def _static_without_in_features(engine):
    """The result as integers; memory of its size was filled with other numbers and freed just before."""
    torch.backends.quantized.engine = engine
    packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((64, 0))), torch.arange(100.0, 164.0), *BLOCK)
    x = quantized_input(np.ones((2, 0)))
    poison = [torch.full((2, 64), 7, dtype=torch.uint8) for _ in range(64)]
    del poison
    return torch.ops.sparse.qlinear(x, packed, 1.0, 0).int_repr().tolist()


def _dynamic_of_shape(engine, rows, columns):
    torch.backends.quantized.engine = engine
    packed = torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((rows, columns))), torch.arange(float(rows)), *BLOCK)
    return torch.ops.sparse.qlinear_dynamic(torch.ones(2, columns), packed).tolist()


def _prepack_with_blocks(engine, block):
    torch.backends.quantized.engine = engine
    torch.ops.sparse.qlinear_prepack(quantized_weight(np.ones((8, 8))), None, *block)
