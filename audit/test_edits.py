"""Edits of sources: what they do, how they go together, and what they say where they do not fit."""

import unittest

from audit import edits
from audit.edits import Edit, Function, Imports, Misfit

SOURCE = '''"""A module."""

from __future__ import annotations

import os

LIMIT = 3


def first(x):
    # a remark
    if x:
        return x
    y = x + 1
    return y


class Thing:
    """Holds a thing."""

    size = 1

    @property
    def twice(self):
        return self.size * 2

    def grow(self):
        def step():
            return 1

        self.size += step()
        return self.size
'''


def applied(*items, source=SOURCE):
    return edits.apply(items, {"m": source})["m"]


def changed(*items):
    """The lines that differ, as ``-old`` and ``+new``."""
    old, new = SOURCE.splitlines(), applied(*items).splitlines()
    return [f"-{line.strip()}" for line in old if line not in new] + [f"+{line}" for line in new if line not in old]


class TestEdit(unittest.TestCase):
    def test_edit_replaces_a_fragment_of_its_function_alone(self):
        """The same words elsewhere stay; a function's edits reach what is nested in it, a class's only its own lines."""
        for function, fragment, replacement, expected in (
            ("first", "x + 1", "x + 2", ["-y = x + 1", "+    y = x + 2"]),
            ("Thing.grow", "return 1", "return 2", ["-return 1", "+            return 2"]),
            ("Thing.grow.step", "return 1", "return 2", ["-return 1", "+            return 2"]),
            ("Thing.twice", "@property", "@classmethod", ["-@property", "+    @classmethod"]),
            ("Thing", "size", "length", ["-size = 1", "+    length = 1"]),
            ("", "LIMIT = 3", "LIMIT = 4", ["-LIMIT = 3", "+LIMIT = 4"]),
        ):
            with self.subTest(function=function, fragment=fragment):
                self.assertEqual(changed(Edit("m", function, fragment, replacement)), expected)

    def test_further_lines_are_indented_and_empty_lines_go(self):
        """A replacement is written without the indentation of its place."""
        longer = Edit("m", "first", "y = x + 1", "y = x\nif y:\n    y += 1")
        self.assertIn("    y = x\n    if y:\n        y += 1\n    return y\n", applied(longer))
        self.assertIn("def first(x):\n    if x:\n", applied(Edit("m", "first", "# a remark", "")))

    def test_after_chooses_among_several(self):
        """The first fragment from the given words on."""
        self.assertEqual(changed(Edit("m", "first", "return", "yield", after="y = x")), ["-return y", "+    yield y"])

    def test_what_does_not_fit_is_named(self):
        """Module, function and fragment; why."""
        for item, said in (
            (Edit("m", "first", "nowhere", ""), r"m: first: 'nowhere': it occurs 0 times"),
            (Edit("m", "first", "return", ""), r"m: first: 'return': it occurs 2 times"),
            (Edit("m", "first", "x", "", after="return"), r"m: first: 'x': after 'return', which occurs 2 times"),
            (Edit("m", "second", "x", ""), r"m: second: 'x': there is no such function"),
            (Edit("n", "first", "x", ""), r"n: first: 'x': there is no such module"),
            (Edit("m", "first", "a\nb", ""), r"m: first: .*a part of one line"),
            (Edit("m", "first", "if x:", "if"), r"m: with its edits it is no Python"),
            (Function("m", "Other.method", "def method(self): pass"), r"m: Other\.method: the whole function: there is no Other"),
            (Function("m", "first", "def second(): pass"), r"m: first: the whole function: its source defines \['second'\]"),
            (Function("m", "first", "def first(:"), r"m: first: the whole function: invalid syntax"),
        ):
            with self.subTest(item), self.assertRaisesRegex(Misfit, said):
                applied(item)


class TestFunction(unittest.TestCase):
    def test_function_takes_the_place_of_one(self):
        """With its decorators, and with what is nested in it."""
        new = Function("m", "Thing.grow", "def grow(self):\n    self.size = 9\n")
        self.assertTrue(applied(new).endswith("        return self.size * 2\n\n    def grow(self):\n        self.size = 9\n"))
        scope = {}
        exec(applied(Function("m", "Thing.twice", "    @staticmethod\n    def twice():\n        return 7\n")), scope)
        self.assertEqual(scope["Thing"].twice(), 7)

    def test_function_is_added_where_there_is_none(self):
        """To the end of its class, or of the module."""
        text = applied(
            Function("m", "second", "def second():\n    return first(0)"),
            Function("m", "Thing.more", "def more(self):\n    return self.grow() + second()"),
        )
        scope = {}
        exec(text, scope)
        self.assertEqual(scope["Thing"]().more(), 3)
        self.assertIn("        return self.size\n\n    def more(self):\n", text)

    def test_items_go_together(self):
        """Whole functions first, then the edits in their order, in the new text too; the same item twice is once."""
        edit = Edit("m", "first", "x + 5", "x + 6")
        function = Function("m", "first", "def first(x):\n    return x + 5\n")
        scope = {}
        exec(applied(edit, edit, function, Edit("m", "first", "+ 6", "+ 7")), scope)
        self.assertEqual(scope["first"](0), 7)
        with self.assertRaisesRegex(Misfit, "another one was put in its place already"):
            applied(function, Function("m", "first", "def first(x):\n    return 0\n"))


class TestImports(unittest.TestCase):
    def test_imports_stand_before_the_first_one(self):
        """Not before those of the future; the same line is put once."""
        text = applied(Imports("m", "import abc"), Imports("m", "import abc\nimport copy"))
        self.assertIn(
            "from __future__ import annotations\n\nimport abc\nimport copy\nimport os\n",
            text.replace("import copy\nimport abc", "import abc\nimport copy"),
        )


class TestConditions(unittest.TestCase):
    def test_conditions_compare_releases(self):
        """Numbers, not text; the build's suffix is no part of them."""
        for condition, version, expected in (
            ("", "2.13.0+cpu", True),
            (">=2.3", "2.13.0+cpu", True),
            (">=2.3,<2.13", "2.13.0", False),
            (">=2.3,<2.13", "2.9.1+cu128", True),
            ("==2.13", "2.13.0a0+git12", True),
            (">2.13", "2.13.0", False),
            ("<=2.13", "2.13.0", True),
        ):
            with self.subTest(condition=condition, version=version):
                self.assertIs(edits.holds(condition, version), expected)
        with self.assertRaisesRegex(edits.AuditError, "not a condition"):
            edits.holds("~2.3", "2.3.0")


if __name__ == "__main__":
    unittest.main()
