"""The switch that turns a function into its mutant without a wrapper."""

import importlib
import sys
import threading
import traceback
import types
import unittest
from unittest import mock

from audit.project import OVERLAY_SITE

SOURCE = """
from audit_switch import wrap_in_trampoline as _mutmut_mutated

mutants_double, mutants_init, mutants_make = {}, {}, {}

@_mutmut_mutated(mutants_double)
def double(x, times=2):
    return x * times

def x_double__mutmut_1(x, times=3):
    return x * times

mutants_double["_mutmut_orig"] = double
mutants_double["x_double__mutmut_1"] = x_double__mutmut_1

class Base:
    def __init__(self):
        self.made = True

class Thing(Base):
    @_mutmut_mutated(mutants_init)
    def __init__(self):
        super().__init__()

    def x_init__mutmut_1(self):
        self.made = False

    @classmethod
    @_mutmut_mutated(mutants_make, is_classmethod=True)
    def make(cls):
        return cls()

    @classmethod
    def x_make__mutmut_1(cls):
        return None

mutants_init["x_init__mutmut_1"] = Thing.x_init__mutmut_1
mutants_make["x_make__mutmut_1"] = Thing.x_make__mutmut_1
"""


class TestSwitch(unittest.TestCase):
    def setUp(self):
        patch = mock.patch.dict(sys.modules)
        patch.start()
        self.addCleanup(patch.stop)
        sys.path.insert(0, str(OVERLAY_SITE))
        self.addCleanup(sys.path.remove, str(OVERLAY_SITE))
        sys.modules.pop("audit_switch", None)
        self.switch = importlib.import_module("audit_switch")
        self.module = types.ModuleType("a.thing")
        exec(SOURCE, self.module.__dict__)

    def test_function_becomes_its_mutant_and_keeps_its_identity(self):
        """Code and defaults are the mutant's, also for those who imported the function before; no frame is added."""
        double = self.module.double
        self.assertEqual(double(2), 4)
        self.switch.activate("a.thing.x_double__mutmut_1")
        self.assertIs(self.module.double, double)
        self.assertEqual((double(2), double(2, 5), double.__name__), (6, 10, "double"))
        try:
            double(object())
        except TypeError as error:
            frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        self.assertEqual(frames[1:], ["double"])

    def test_methods_become_their_mutants(self):
        """A method that loses its super(), and a classmethod."""
        self.assertTrue(self.module.Thing.make().made)
        self.switch.activate("a.thing.x_init__mutmut_1")
        self.assertFalse(self.module.Thing.make().made)
        self.switch.activate("a.thing.x_make__mutmut_1")
        self.assertIsNone(self.module.Thing.make())

    def test_unknown_mutant_is_an_error(self):
        """A name that nothing has must not run the original and survive."""
        for name in ("a.thing.x_double__mutmut_2", "b.thing.x_double__mutmut_1"):
            with self.subTest(name), self.assertRaises(LookupError):
                self.switch.activate(name)

    def test_break_all_breaks_every_function(self):
        """Whatever the signature."""
        self.switch.break_all()
        for call in (lambda: self.module.double(1, times=2), self.module.Thing, self.module.Thing.make):
            with self.assertRaisesRegex(RuntimeError, "broken by the audit"):
                call()

    def test_record_notes_what_is_called_in_every_thread(self):
        """Keys as mutmut forms them; what is imported after the recording began is noted too."""
        self.addCleanup(sys.setprofile, sys.getprofile())
        self.addCleanup(threading.setprofile, None)
        hits = set()
        self.switch.FUNCTIONS.clear()
        self.switch.record(hits)
        exec(SOURCE, self.module.__dict__)
        self.module.double(1)
        self.assertEqual(hits, {"a.thing.x_double"})
        thread = threading.Thread(target=self.module.Thing.make)
        thread.start()
        thread.join()
        self.assertEqual(hits, {"a.thing.x_double", "a.thing.x_init", "a.thing.x_make"})


if __name__ == "__main__":
    unittest.main()
