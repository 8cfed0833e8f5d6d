"""What mutmut's generated files import in place of its wrappers: every function stays as it is, and one of them can be
turned into one of its mutants.

mutmut wraps each function it mutates. A wrapper is a frame more in a traceback and in a warning's stack level, cannot be
scripted and breaks a graph that is compiled; this module exchanges code objects instead, so that a mutant differs from
the original in nothing but the mutation.
"""

import sys
import threading

MutantDict = dict

#: (mutants by name, function) of every function that has mutants; mutmut's files fill the dictionaries.
FUNCTIONS: list = []


def wrap_in_trampoline(mutants, is_classmethod=False):
    """The decorator in mutmut's generated files. Notes the function and leaves it alone."""

    def note(function):
        FUNCTIONS.append((mutants, function))
        return function

    return note


def activate(name):
    """Turn a function into one of its mutants, named as mutmut does; for this process and for good.

    Raises:
        LookupError: nothing imported so far has such a mutant.
    """
    module, _, key = name.rpartition(".")
    for mutants, function in FUNCTIONS:
        if function.__module__ == module and key in mutants:
            mutant = getattr(mutants[key], "__func__", mutants[key])
            _become(function, mutant.__code__)
            function.__defaults__, function.__kwdefaults__ = mutant.__defaults__, mutant.__kwdefaults__
            return
    raise LookupError(name)


def break_all():
    """Make every function with mutants raise an exception, whatever it is called with."""

    def broken(*args, **kwargs):
        raise RuntimeError("broken by the audit")

    for _, function in FUNCTIONS:
        _become(function, broken.__code__)


def _become(function, code):
    old = function.__code__
    # a mutant without its super() lacks the free variable __class__; the function keeps its cell
    function.__code__ = code.replace(co_name=old.co_name, co_freevars=old.co_freevars)


def record(hits):
    """From now on add mutmut's key of every function with mutants that is called, in any thread, to the set ``hits``."""
    keys = {}  # by identity: code objects of different files can be equal
    known = 0

    def profile(frame, event, argument):
        nonlocal known
        if event != "call":
            return
        while known < len(FUNCTIONS):  # more may be imported later on
            mutants, function = FUNCTIONS[known]
            keys[id(function.__code__)] = function.__module__, mutants
            known += 1
        place = keys.get(id(frame.f_code))
        if place:
            mutant = next(key for key in place[1] if key != "_mutmut_orig")
            hits.add(f"{place[0]}.{mutant.partition('__mutmut_')[0]}")

    threading.setprofile(profile)
    sys.setprofile(profile)
