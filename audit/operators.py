"""Mutation operators besides mutmut's: the mistakes that refactoring brings.

Each takes a node of libcst and yields what to put in its place. ``OPERATORS`` has the form of mutmut's own list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import libcst as cst
import libcst.matchers as m

#: What an operator puts in the place of its node: one for each mutant.
Nodes = Iterator[cst.CSTNode]

#: Names that stand for modules: ``torch.ones(2)`` is a call of a function, not of a method of a value.
_MODULES = {"torch", "nn", "F", "nnq", "math", "copy", "warnings", "parametrize", "parametrizations", "itertools", "weakref"}

#: Names of the packages that always stand for a number, a text, a torch.dtype, a function or a class: ``copy.deepcopy`` gives back the same
#: object, so the copy would be no mistake.
_IMMUTABLE = {
    "in_features",
    "out_features",
    "row_block_size",
    "col_block_size",
    "prev_row_block_size",
    "prev_col_block_size",
    "feature_dim",
    "last_epoch",
    "s_t",
    "prune_bias",
    "verbose",
    "schedule_param",
    "_op_type",
    "format_string",
    "dtype",
    "data_sparsifier_class",
    "data_scheduler_class",
}

#: Functions within functions that the packages return.
_INNER_FUNCTIONS = {"hook", "wrapper"}

#: Functions whose result does not depend on the order of their two arguments.
_SYMMETRIC = {"min", "max", "logical_or"}

_OPPOSITE = {
    "any": "all",
    "min": "max",
    "ones": "zeros",
    "ones_like": "zeros_like",
    "floor": "ceil",
    "argmin": "argmax",
    "register_forward_hook": "register_forward_pre_hook",
    "keys": "values",
    "append": "extend",
    "sqrt": "square",
    "modules": "children",
    "named_modules": "named_children",
    "rows": "columns",
}
_OPPOSITE |= {b: a for a, b in _OPPOSITE.items()}

_NEGATED: dict[type, Callable[[], cst.BaseCompOp]] = {
    cst.LessThan: cst.GreaterThanEqual,
    cst.LessThanEqual: cst.GreaterThan,
    cst.GreaterThan: cst.LessThanEqual,
    cst.GreaterThanEqual: cst.LessThan,
}


def _parenthesized(node: cst.BaseExpression) -> cst.BaseExpression:
    return node if node.lpar else node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def negated_condition(node: cst.If | cst.While | cst.Assert | cst.CompIf) -> Nodes:
    """``if c`` -> ``if not (c)``; likewise while, assert and the conditions of comprehensions."""
    if not m.matches(node.test, m.UnaryOperation(operator=m.Not())):  # dropping a not is mutmut's
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(), _parenthesized(node.test)))


def deleted_statement(node: cst.Expr | cst.Raise | cst.Del | cst.AugAssign | cst.Assign) -> Nodes:
    """A call, raise, del, augmented assignment, or assignment to an attribute or item, left out."""
    if isinstance(node, cst.Expr) and not isinstance(node.value, cst.Call):
        return  # docstrings
    if isinstance(node, cst.Assign) and not all(m.matches(t.target, m.Attribute() | m.Subscript()) for t in node.targets):
        return  # the name would be missing
    yield cst.Pass()


def returned_nothing(node: cst.Return) -> Nodes:
    """``return x`` -> ``return None``."""
    if node.value is not None and not m.matches(node.value, m.Name("None")):
        yield cst.Return(cst.Name("None"))


def single_operand(node: cst.BooleanOperation) -> Nodes:
    """``a and b`` -> ``a``, ``b``."""
    yield _parenthesized(node.left)
    yield _parenthesized(node.right)


def negated_comparison(node: cst.ComparisonTarget) -> Nodes:
    """``<`` -> ``>=`` and so on."""
    negated = _NEGATED.get(type(node.operator))
    if negated:
        yield node.with_changes(operator=negated())


def other_number(node: cst.Integer | cst.Float) -> Nodes:
    """``n`` -> ``n - 1``, ``-n``."""
    value = node.evaluated_value
    for other in dict.fromkeys((value - 1, -value)):
        if other != value:
            literal = type(node)(repr(abs(other)))
            yield cst.UnaryOperation(cst.Minus(), literal, [cst.LeftParen()], [cst.RightParen()]) if other < 0 else literal


def _root(node: cst.CSTNode) -> str | None:
    while isinstance(node, (cst.Attribute, cst.Call, cst.Subscript)):
        node = node.func if isinstance(node, cst.Call) else node.value
    return node.value if isinstance(node, cst.Name) else None


def skipped_call(node: cst.Call) -> Nodes:
    """``x.clone()`` -> ``x``; ``list(x)`` -> ``x``. Not ``x.keys()``, which iterates as ``x`` does."""
    if m.matches(node.func, m.Attribute(attr=m.Name("keys"))):
        return
    if isinstance(node.func, cst.Attribute) and _root(node.func) not in _MODULES:
        if not m.matches(node.func.value, m.Call(m.Name("super"))):
            yield node.func.value
    elif node.args and not node.args[0].star and not node.args[0].keyword:
        yield _parenthesized(node.args[0].value)


def _name(node: cst.CSTNode) -> str | None:
    """The last name of ``a`` or ``x.a``."""
    name = node.attr if isinstance(node, cst.Attribute) else node
    return name.value if isinstance(name, cst.Name) else None


def _is_its_own_copy(node: cst.Return | cst.Assign) -> bool:
    """Whether the value is one of ``_IMMUTABLE``, as a name or an attribute, an item of a shape, or an inner function that is returned."""
    if isinstance(node.value, cst.Subscript):
        return _name(node.value.value) == "shape"
    return node.value is not None and _name(node.value) in _IMMUTABLE | (_INNER_FUNCTIONS if isinstance(node, cst.Return) else set())


def copied(node: cst.Return | cst.Assign) -> Nodes:
    """``return x``, ``self.a = x``, ``a[i] = x`` with a deep copy of ``x``, but for what is its own copy."""
    if isinstance(node, cst.Assign) and not any(m.matches(t.target, m.Attribute() | m.Subscript()) for t in node.targets):
        return
    named = isinstance(node.value, cst.Name) and node.value.value not in ("None", "True", "False")
    if node.value is not None and (named or isinstance(node.value, (cst.Attribute, cst.Subscript))) and not _is_its_own_copy(node):
        yield node.with_changes(value=cst.Call(cst.parse_expression('__import__("copy").deepcopy'), [cst.Arg(node.value)]))


def other_exception(node: cst.Raise) -> Nodes:
    """``raise ValueError(...)`` -> ``raise Exception(...)``."""
    if isinstance(node.exc, cst.Call) and isinstance(node.exc.func, cst.Name) and node.exc.func.value != "Exception":
        yield node.with_changes(exc=node.exc.with_changes(func=cst.Name("Exception")))


def uncaught(node: cst.ExceptHandler) -> Nodes:
    """A handler that catches nothing."""
    if node.type is not None:
        yield node.with_changes(type=cst.Tuple([]))


def dropped_entry(node: cst.List | cst.Tuple | cst.Set | cst.Dict) -> Nodes:
    """A list, tuple, set or dict literal without one of its entries."""
    if isinstance(node, cst.Tuple) and not node.lpar:
        return  # targets of an assignment, indices
    if isinstance(node, cst.Set) and len(node.elements) == 1:
        return  # there is no literal for the empty set
    for i in range(len(node.elements)):
        rest = [*node.elements[:i], *node.elements[i + 1 :]]
        if isinstance(node, cst.Tuple) and len(rest) == 1:
            rest = [rest[0].with_changes(comma=cst.Comma())]
        yield node.with_changes(elements=rest)


def fewer_rounds(node: cst.For | cst.CompFor) -> Nodes:
    """A loop or comprehension over nothing, and over the first item alone."""
    yield node.with_changes(iter=cst.Tuple([]))
    yield node.with_changes(
        iter=cst.Subscript(
            cst.Call(cst.Name("list"), [cst.Arg(node.iter)]),
            [cst.SubscriptElement(cst.Slice(lower=None, upper=cst.Integer("1")))],
        )
    )


def swapped_arguments(node: cst.Call) -> Nodes:
    """``f(a, b)`` -> ``f(b, a)``, where the order counts."""
    if _name(node.func) in _SYMMETRIC:
        return
    if len(node.args) > 1 and not any(arg.keyword or arg.star for arg in node.args[:2]):
        first, second = node.args[:2]
        if not first.value.deep_equals(second.value):
            yield node.with_changes(
                args=[
                    first.with_changes(value=second.value),
                    second.with_changes(value=first.value),
                    *node.args[2:],
                ]
            )


def open_slice(node: cst.Slice) -> Nodes:
    """``x[a:b]`` -> ``x[:b]``, ``x[a:]``. ``x[0:b]`` is ``x[:b]`` already."""
    for bound in ("lower", "upper"):
        if getattr(node, bound) is not None and not (bound == "lower" and isinstance(node.lower, cst.Integer) and node.lower.value == "0"):
            yield node.with_changes(**{bound: None})


def opposite_name(node: cst.Call) -> Nodes:
    """``any`` <-> ``all``, ``zeros`` <-> ``ones``, ...; ``mul_`` -> ``mul``."""
    name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    if not isinstance(name, cst.Name):
        return
    other = _OPPOSITE.get(name.value)
    if other is None and isinstance(node.func, cst.Attribute) and name.value.endswith("_") and not name.value.startswith("_"):
        other = name.value[:-1]
    if other:
        yield node.with_deep_changes(name, value=other)


OPERATORS = [
    ((cst.If, cst.While, cst.Assert, cst.CompIf), negated_condition),
    ((cst.Expr, cst.Raise, cst.Del, cst.AugAssign, cst.Assign), deleted_statement),
    (cst.Return, returned_nothing),
    (cst.BooleanOperation, single_operand),
    (cst.ComparisonTarget, negated_comparison),
    ((cst.Integer, cst.Float), other_number),
    (cst.Call, skipped_call),
    ((cst.Return, cst.Assign), copied),
    (cst.Raise, other_exception),
    (cst.ExceptHandler, uncaught),
    ((cst.List, cst.Tuple, cst.Set, cst.Dict), dropped_entry),
    ((cst.For, cst.CompFor), fewer_rounds),
    (cst.Call, swapped_arguments),
    (cst.Slice, open_slice),
    (cst.Call, opposite_name),
]
