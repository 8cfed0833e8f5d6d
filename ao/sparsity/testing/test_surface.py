"""Tests of the written-down surface: its form, the releases of its lines, and that it tells each change of a signature."""

import sys
import types
import unittest
from unittest import mock

from ao.sparsity.testing.surface import Name, differences, surface

TABLE = """
package.module
    function(x, y=1)
    Class(size)
        old()  # before 2.4
        new(flag=True)  # since 2.4
    Elsewhere
"""


class TestTable(unittest.TestCase):
    def test_a_release_has_its_lines(self):
        """Form: a line holds for the releases that it names, any other for all."""
        for version, method in (((2, 3, 1), ("Class.old", "()")), ((2, 4), ("Class.new", "(flag=True)"))):
            names = [(name.path, name.signature) for name in surface(version, TABLE)]
            self.assertEqual(names, [("function", "(x, y=1)"), ("Class", "(size)"), method, ("Elsewhere", None)])
            self.assertEqual({name.module for name in surface(version, TABLE)}, {"package.module"})

    def test_a_line_of_another_form_is_an_error(self):
        """Form: what is no module, name or method is refused and shown."""
        for line in ("    a-b", "  name(x)", "    name(x)  # from 2.4", "            deep(x)"):
            with self.subTest(line), self.assertRaisesRegex(ValueError, "no line of a surface"):
                surface((2, 13), f"package.module\n{line}")


class TestSignature(unittest.TestCase):
    """What is found is written as in the table."""

    def found(self, path, namespace, written=None):
        """The signature of ``path`` in a module that has the names that ``namespace``, source code, defines."""
        module = types.ModuleType("toy")
        exec(namespace, vars(module))
        with mock.patch.dict(sys.modules, {"toy": module}):
            return Name("toy", path, written).found_signature()

    def test_arguments_are_a_callers(self):
        """Table: without self and cls; annotations do not count."""
        source = (
            "class C:\n    def __init__(self, a: int, *, b=1): pass\n    def m(self, x) -> int: pass\n"
            "    @classmethod\n    def c(cls, x): pass\n    @staticmethod\n    def s(x): pass\n"
        )
        expected = {"C": "(a, *, b=1)", "C.m": "(x)", "C.c": "(x)", "C.s": "(x)"}
        self.assertEqual({path: self.found(path, source) for path in expected}, expected)

    def test_every_kind_of_change_shows(self):
        """Table: a lost argument, another name, order, default or kind is another text."""
        sources = (
            "def f(a, b=1, *args, **kwargs): pass",
            "def f(a, b=1, **kwargs): pass",
            "def f(a, b=2, *args, **kwargs): pass",
            "def f(a, c=1, *args, **kwargs): pass",
            "def f(a, b, *args, **kwargs): pass",
            "def f(a, /, b=1, *args, **kwargs): pass",
            "def f(a, *args, b=1, **kwargs): pass",
        )
        self.assertEqual(len({self.found("f", source) for source in sources}), len(sources))

    def test_what_is_added_behind_and_can_be_left_out_is_no_change(self):
        """Table: callers of the written arguments see nothing of a new optional one, unless it stands before them."""
        written = "(a, b=1, *args)"
        for source, shown in (
            ("a, b=1, *args, c=2, **kwargs", written),
            ("a, b=1, *args, c", "(a, b=1, *args, c)"),
            ("a, c=2, b=1, *args", "(a, c=2, b=1, *args)"),
            ("a, *args, c=2", "(a, *args)"),
        ):
            with self.subTest(source):
                self.assertEqual(self.found("f", f"def f({source}): pass", written), shown)
        self.assertEqual(self.found("f", "def f(a, b=1, c=2): pass", "(a, b=1)"), "(a, b=1)")

    def test_differences_name_what_is_lost_or_other(self):
        """differences: the argument, or that there is no such name; names without arguments are not asked."""
        names = [Name("toy", "f", "(a, b=1)"), Name("toy", "g", "()"), Name("toy", "h", None), Name("toy", "k", "(a)")]
        module = types.ModuleType("toy")
        exec("def f(a, b=2): pass\ndef k(a): pass", vars(module))
        with mock.patch.dict(sys.modules, {"toy": module}):
            self.assertEqual(differences(names), ["f(a, b=2), not f(a, b=1)", "AttributeError: module 'toy' has no attribute 'g', not g()"])

    def test_classes_are_shown_by_name(self):
        """Table: a default that is a class, or a set of them, is written by the classes' names."""
        self.assertEqual(self.found("f", "def f(a=int, b={str, int}, c='x'): pass"), "(a=int, b={int, str}, c='x')")


if __name__ == "__main__":
    unittest.main()
