"""The references for structured pruning, on cases small enough to check by hand."""

import unittest

import numpy as np

from ao.sparsity.testing.oracles import structured


class TestStructuredOracles(unittest.TestCase):
    def test_supported_patterns_counts_every_combination(self):
        """42 activations in 10 chains each, 4 flattening chains and 6 without activation."""
        table = structured.supported_patterns()
        self.assertEqual(len(table), 42 * 10 + 4 + 6)
        self.assertEqual(len(set(structured.ACTIVATION_FUNCTIONS)), 21)
        self.assertEqual(len(set(structured.ACTIVATION_MODULES)), 21)
        self.assertEqual(table["nn.Linear", "nn.ReLU", "nn.Linear"], "prune_linear_activation_linear")
        self.assertEqual(table["nn.Conv2d", "F.max_pool2d", "F.relu", "nn.Conv2d"], "prune_conv2d_pool_activation_conv2d")

    def test_saliency_mask_drops_the_smallest_l1_norms(self):
        """L1 norms 3, 2, 4, 1: half of the rows are the second and the last."""
        weight = [[[1, -2]], [[2, 0]], [[-2, 2]], [[0, -1]]]
        self.assertEqual(structured.saliency_mask(weight, 0.5).tolist(), [True, False, True, False])
        self.assertEqual(structured.saliency_mask(weight, 0.49).tolist(), [True, True, True, False])
        self.assertEqual(structured.saliency_mask(weight, 0).tolist(), [True] * 4)
        self.assertEqual(structured.saliency_mask(weight, 1).tolist(), [False] * 4)
        self.assertEqual(int(structured.saliency_mask(np.ones((100, 1)), 0.29).sum()), 71)

    def test_lstm_saliency_mask_drops_rows_gate_by_gate(self):
        """Each gate of two rows loses its own smaller one, although the last gate is the largest."""
        weight = np.array([1, 2, 4, 3, -5, 6, 8, -7])[:, None]
        self.assertEqual(structured.lstm_saliency_mask(weight, 0.5).tolist(), [False, True, True, False, False, True, True, False])

    def test_total_distances_sums_the_distances_to_all_others(self):
        """Points (0, 0), (3, 4), (6, 8): Euclidean 5 and 10, in absolute values 7 and 14."""
        points = [[0, 0], [3, 4], [6, 8]]
        np.testing.assert_allclose(structured.total_distances(points, 2), [15, 10, 15])
        np.testing.assert_allclose(structured.total_distances(points, 1), [21, 14, 21])

    def test_fpgm_mask_drops_the_filter_nearest_to_the_others(self):
        """The middle point goes first; numbers are rounded to the nearest, ties to even, and clamped."""
        for level, pruned in ((-1, 0), (0, 0), (0.1, 0), (0.13, 1), (1, 4), (2, 4)):
            with self.subTest(level=level):
                self.assertEqual((~structured.fpgm_mask([[0.0], [1.0], [5.0], [2.0]], level)).sum(), pruned)
        self.assertEqual(structured.fpgm_mask([[0.0], [2.0], [5.0]], 0.4).tolist(), [True, False, True])
        self.assertEqual((~structured.fpgm_mask(np.arange(5.0)[:, None], 0.5)).sum(), 2)


if __name__ == "__main__":
    unittest.main()
