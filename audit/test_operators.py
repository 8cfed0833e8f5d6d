"""The project's own mutation operators, each on a line of code."""

import importlib.util
import unittest

#: code -> what the operators together make of it, in any order.
CASES = {
    "if a: b": ["if not (a): b"],
    "while not a: b": [],
    "x = [i for i in y if i]": ["x = [i for i in y if not (i)]", "x = [i for i in () if i]", "x = [i for i in list(y)[:1] if i]"],
    '"a docstring"': [],
    "f()": ["pass"],
    "f(a)": ["pass", "(a)"],
    "x.g()": ["pass", "x"],
    "torch.g()": ["pass"],
    "super().g()": ["pass"],
    "f(a, b=1)": ["pass", "(a)", "f(a, b=0)", "f(a, b=(-1))"],
    "f(a, b)": ["pass", "(a)", "f(b, a)"],
    "f(*a)": ["pass"],
    "del x[y]": ["pass"],
    "x = 3": ["x = 2", "x = (-3)"],
    "x = 0": ["x = (-1)"],
    "x += y": ["pass"],
    "x = y": [],
    "self.x = y": ["pass", 'self.x = __import__("copy").deepcopy(y)'],
    "self.x = None": ["pass"],
    "self.x = dtype": ["pass"],
    "self.x = y.in_features": ["pass"],
    "self.x = y.shape[z]": ["pass"],
    "self.x = y[z]": ["pass", 'self.x = __import__("copy").deepcopy(y[z])'],
    "def f(): return format_string": ["def f(): return None"],
    "def f(): return hook": ["def f(): return None"],
    "self.x = hook": ["pass", 'self.x = __import__("copy").deepcopy(hook)'],
    "raise ValueError(x)": ["pass", "raise Exception(x)", "raise (x)"],
    "x = a and b": ["x = (a)", "x = (b)"],
    "x = a < b": ["x = a >= b"],
    "x = a == b": [],
    "x = [a, b]": ["x = [b]", "x = [a, ]"],
    "x = (a, b)": ["x = (b,)", "x = (a,)"],
    "a, b = x": [],
    "x = {a}": [],
    "x = {a: b}": ["x = {}"],
    "x = max(a, b)": ["x = (a)", "x = min(a, b)"],
    "x = sorted(y.keys())": ["x = (y.keys())", "x = sorted(y.values())"],
    "x = y[0:b]": ["x = y[(-1):b]", "x = y[0:]"],
    "x = y[a:b]": ["x = y[:b]", "x = y[a:]"],
    "x = any(y)": ["x = (y)", "x = all(y)"],
    "x.mul_(y)": ["pass", "x", "x.mul(y)"],
    "x = torch.ones(y)": ["x = (y)", "x = torch.zeros(y)"],
    "def f(): return x": ["def f(): return None", 'def f(): return __import__("copy").deepcopy(x)'],
    "def f(): return None": [],
    "for x in y: z": ["for x in (): z", "for x in list(y)[:1]: z"],
    "try: x\nexcept A: y": ["try: x\nexcept (): y"],
}


def mutations(code):
    """Every mutated version of ``code``."""
    import libcst as cst

    from audit import operators

    module = cst.parse_module(code)
    found = []

    class Visitor(cst.CSTVisitor):
        def on_visit(self, node):
            for kinds, operator in operators.OPERATORS:
                if isinstance(node, kinds):
                    found.extend(module.deep_replace(node, new).code for new in operator(node))
            return True

    module.visit(Visitor())
    return found


class TestOperators(unittest.TestCase):
    def test_operators_make_the_mutations_they_name(self):
        """All mutations of a line, no more and no fewer, each valid Python and different from the line."""
        if importlib.util.find_spec("libcst") is None:
            self.skipTest("the mutation operators (no libcst)")
        for code, expected in CASES.items():
            with self.subTest(code):
                got = mutations(code)
                self.assertCountEqual(got, expected)
                for mutated in got:
                    compile(mutated, code, "exec")
                    self.assertNotEqual(mutated, code)


if __name__ == "__main__":
    unittest.main()
