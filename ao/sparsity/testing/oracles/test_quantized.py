"""The integer model of quantized linear, on cases small enough to check by hand."""

import unittest

import numpy as np

from ao.sparsity.testing.oracles import quantized


class TestQuantizedOracle(unittest.TestCase):
    """Every number here was worked out by hand."""

    def test_accumulate(self):
        """Quantized linear: sum of (x - x_zero_point) * (w - w_zero_point)."""
        x, w = [[3, 5]], [[1, -2], [4, 0]]
        self.assertEqual(quantized.accumulate(x, 3, w).tolist(), [[-4, 0]])
        self.assertEqual(quantized.accumulate(x, 0, w, [1, 2]).tolist(), [[-15, -4]])
        self.assertEqual(quantized.accumulate(np.zeros((0, 2)), 0, w).shape, (0, 2))
        with self.assertRaises(OverflowError):
            quantized.accumulate([[2**20]], 0, [[2**12]])

    def test_requantize(self):
        """Requantization: halves to even, then the zero point, then the clamp."""
        self.assertEqual(quantized.requantize([0.5, 1.5, 2.5, -0.5, -1.5], 1, 10).tolist(), [10, 12, 12, 10, 8])
        self.assertEqual(quantized.requantize([-9, 600], 2, 3).tolist(), [0, 255])

    def test_static_linear(self):
        """Static linear: (acc * scales + bias) / y_scale + y_zero_point; ReLU clamps at the zero point."""
        arguments = ([[3, 5]], 0.5, 3, [[1, -2], [4, 1]], [2, 1])
        self.assertEqual(quantized.static_linear(*arguments, None, 1, 7).tolist(), [[3, 8]])
        self.assertEqual(quantized.static_linear(*arguments, [1, -5], 1, 7).tolist(), [[4, 3]])
        self.assertEqual(quantized.static_linear(*arguments, None, 1, 7, relu=True).tolist(), [[7, 8]])

    def test_dynamic_linear(self):
        """Dynamic linear: the input's range, with zero in it, is spread over 0 .. 255."""
        self.assertEqual(quantized.input_qparams([-127.0, 128.0]), (1.0, 127))
        self.assertEqual(quantized.input_qparams([510.0]), (2.0, 0))
        self.assertEqual(quantized.input_qparams([-51.0]), (0.2, 255))
        self.assertEqual(quantized.input_qparams([0.0]), (0.1, 0))
        result = quantized.dynamic_linear([[-127.0, 128.0]], [[1, 2], [0, 1]], 0.5, bias=[1, 0])
        self.assertEqual(result.tolist(), [[65.5, 64.0]])
        self.assertEqual(quantized.dynamic_linear([[-127.0, 128.0]], [[3, 3]], 1, [2]).tolist(), [[1.0]])

    def test_pack_blocks(self):
        """BCSR: starts of the rows of blocks, columns of the blocks that are kept, their numbers padded to whole blocks."""
        w = [[1, 0, 0, 0, 5], [0, 0, 0, 0, 0]]
        self.assertEqual(quantized.pack_blocks(w, 1, 4), ([0, 2, 2], [0, 1], [1, 0, 0, 0, 5, 0, 0, 0]))
        self.assertEqual(quantized.pack_blocks(w, 2, 1), ([0, 2], [0, 4], [1, 0, 5, 0]))
        self.assertEqual(quantized.pack_blocks([[7, 7], [7, 1]], 1, 2, 7), ([0, 0, 1], [0], [7, 1]))
        self.assertEqual(quantized.pack_blocks([[7], [7]], 1, 1, [7, 6]), ([0, 0, 1], [0], [7]))

    def test_block_sparse(self):
        """Weights for tests: no zero in a kept block, nothing else elsewhere."""
        w = quantized.block_sparse(2, 5, (1, 4), lambda i, j: i == j)
        self.assertEqual(w.tolist(), [[-128, -91, -54, -17, 0], [0, 0, 0, 0, -51]])


if __name__ == "__main__":
    unittest.main()
