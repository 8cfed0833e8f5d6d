"""The masks over activations on cases small enough to check by hand."""

import unittest

import numpy as np

from ao.sparsity.testing.oracles import activations

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


class TestActivations(unittest.TestCase):
    def test_select_keeps_the_dimension(self):
        """One column, one row, the last column, two columns, everything."""
        cases = (
            ((1, 1), [[2.0], [5.0]]),
            ((0, 0), [[1.0, 2.0, 3.0]]),
            ((2, -1), [[3.0], [6.0]]),
            (([0, 2], 1), [[1.0, 3.0], [4.0, 6.0]]),
            ((None, None), X.tolist()),
        )
        for arguments, expected in cases:
            self.assertEqual(activations.select(X, *arguments).tolist(), expected)

    def test_aggregate_folds_from_the_first(self):
        """No neutral element takes part: 8 - 2 - 1, and the maximum of negative numbers."""
        numbers = [np.array([8.0]), np.array([2.0]), np.array([1.0])]
        self.assertEqual(activations.aggregate(numbers, np.subtract).tolist(), [5.0])
        self.assertEqual(activations.aggregate([-x for x in numbers], np.maximum).tolist(), [-1.0])

    def test_masks_of_everything_and_of_features(self):
        """Column means of X + X are 5, 7, 9."""
        steps = (lambda a, b: a + b, lambda x: x.mean(0), lambda x: (x > 6).astype(float))
        self.assertEqual(activations.masks([X, X], *steps).tolist(), [0.0, 1.0, 1.0])
        by_feature = activations.masks([X, X], *steps, features=[0, 2], dim=1)
        self.assertEqual([mask.tolist() for mask in by_feature], [[0.0], [1.0]])

    def test_sparsified_leaves_its_argument_and_other_features(self):
        """Column 0 is zeroed, column 2 kept, column 1 not asked for."""
        before = X.copy()
        result = activations.sparsified(X, [np.zeros(1), np.ones(1)], [0, 2], 1)
        self.assertEqual(result.tolist(), [[0.0, 2.0, 3.0], [0.0, 5.0, 6.0]])
        self.assertEqual(activations.sparsified(X, np.array([1.0, 0.0, 1.0])).tolist(), [[1.0, 0.0, 3.0], [4.0, 0.0, 6.0]])
        self.assertEqual(X.tolist(), before.tolist())


if __name__ == "__main__":
    unittest.main()
