"""Tests of histories: they are the same each time, check after each call, and a failure is told by few calls."""

import unittest

from ao.sparsity.testing.histories import hold


class Counter:
    """Counts; with ``limit`` it is wrong once it has counted so far, ``noise`` does nothing."""

    def __init__(self, played, limit=None):
        self.played, self.limit, self.count = played, limit, 0

    def draw(self, generator):
        return generator.choice([("add", generator.randint(1, 3)), ("noise",)])

    def add(self, number):
        self.played.append(number)
        self.count += number
        if self.limit is not None and self.count >= self.limit:
            raise AssertionError(f"counted to {self.count}")

    def noise(self):
        self.played.append(0)


class TestHistories(unittest.TestCase):
    def test_histories_are_many_long_and_the_same_each_time(self):
        """hold: so many histories of so many calls, from seeds."""
        first, second = [], []
        for played in (first, second):
            hold(lambda played=played: Counter(played), histories=3, length=20)
        self.assertEqual(len(first), 60)
        self.assertEqual(first, second)
        self.assertNotEqual(first[:20], first[20:40])

    def test_a_failure_is_told_by_the_calls_that_are_enough(self):
        """hold: calls that do not matter are left out, and the message has the rest."""
        with self.assertRaisesRegex(AssertionError, "counted to") as caught:
            hold(lambda: Counter([], limit=5), histories=3, length=50)
        self.assertNotIn("noise", str(caught.exception))
        self.assertLessEqual(str(caught.exception).count("add"), 3)


if __name__ == "__main__":
    unittest.main()
