"""Tests of the conditions under which a known defect is certain to show."""

import unittest
from unittest import mock

from ao.sparsity.testing import conditions


class TestConditions(unittest.TestCase):
    def played(self, **facts):
        return mock.patch.dict(conditions.FACTS, {name: lambda value=value: value for name, value in facts.items()})

    def test_versions_are_compared_as_numbers(self):
        """3.9 is older than 3.14, which is not older than itself."""
        for python, text, expected in (
            ("3.9", "python < 3.14", True),
            ("3.14", "python < 3.14", False),
            ("3.14", "python >= 3.14", True),
            ("3.14", "python != 3.14", False),
        ):
            with self.subTest(python=python, condition=text), self.played(python=python):
                self.assertEqual([condition.holds() for condition in conditions.parse(text)], [expected])

    def test_all_of_several_are_parsed(self):
        """Several conditions are joined by ``and``; an empty text has none."""
        with self.played(fbgemm="avx512", platform="win32"):
            self.assertEqual([condition.holds() for condition in conditions.parse("fbgemm = avx512 and platform = linux")], [True, False])
        self.assertEqual(conditions.parse(""), ())

    def test_an_unknown_fact_meets_no_condition(self):
        """What nobody knows here makes nothing certain, whichever way it is asked."""
        with self.played(fbgemm=None):
            for text in ("fbgemm = avx512", "fbgemm != avx512"):
                self.assertFalse(conditions.parse(text)[0].holds(), text)

    def test_what_is_no_condition_is_refused_with_the_facts(self):
        """A typing error in a page is found when the register is read."""
        for text in ("fbgem = avx512", "fbgemm", "python ~ 3.14", "python < 3.14, torch > 2.1"):
            with self.subTest(text=text), self.assertRaisesRegex(ValueError, "is no condition: .*the facts are torch, python"):
                conditions.parse(text)

    def test_every_fact_answers_with_text(self):
        """Each fact can be asked on this machine, and answers with text or with None."""
        for name, fact in conditions.FACTS.items():
            with self.subTest(fact=name):
                self.assertIsInstance(fact(), (str, type(None)))

    def test_fbgemm_minds_its_own_variable_alone(self):
        """FBGEMM_ENABLE_INSTRUCTIONS lowers the answer; ATEN_CPU_CAPABILITY is torch's and does not."""
        flags = frozenset({"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl"})
        for variables, expected in (
            ({}, "avx512"),
            ({"ATEN_CPU_CAPABILITY": "avx2"}, "avx512"),
            ({"FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"}, "avx2"),
        ):
            with (
                self.subTest(**variables),
                mock.patch.dict("os.environ", variables),
                mock.patch.object(conditions, "_processor_flags", lambda: flags),
                mock.patch.object(conditions.build, "engines", lambda: ["fbgemm"]),
            ):
                self.assertEqual(conditions.FACTS["fbgemm"](), expected)


if __name__ == "__main__":
    unittest.main()
