"""BaseDataSparsifier: data of every type, their masks, groups, copies and states."""

import contextlib
import copy
import importlib.util
import io
import itertools
import pickle
import sys
import time
import unittest.mock
import warnings

from ao.sparsity.testing.base import on_every_device  # first: it asks whether there is a torch to validate

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.testing import build
from ao.sparsity.testing.known_defects import known_defect

with warnings.catch_warnings():
    from torch.ao.pruning import FakeSparsity
    from torch.ao.pruning._experimental.data_scheduler import BaseDataScheduler
    from torch.ao.pruning._experimental.data_sparsifier import (
        BaseDataSparsifier,
        DataNormSparsifier,
        base_data_sparsifier,
    )

from ao.sparsity.data_sparsifier.cases import (
    RowSparsifier,
    Doubling,
    counting,
    as_tensor,
    as_parameter,
    EMBEDDINGS,
    EVERY_TYPE,
    silenced,
    elsewhere,
    refusal,
    parametrizations,
    DataSparsifierTestCase,
    first_row_zero,
)


@instantiate_parametrized_tests
class TestBaseDataSparsifier(DataSparsifierTestCase):
    """BaseDataSparsifier through a sparsifier that zeroes rows."""

    def build(self, data_list):
        return RowSparsifier(data_list, level=0.5)

    def test_tensors(self):
        """The class docstring: the masks of raw tensors are owned by the sparsifier, the data stays the caller's."""
        self.check_life(self.build, as_tensor, first_row_zero, {"level": 0.5})

    def test_nn_parameters(self):
        """The class docstring: the masks of parameters are owned by the sparsifier, the data stays the caller's."""
        self.check_life(self.build, as_parameter, first_row_zero, {"level": 0.5})

    def test_nn_embeddings(self):
        """The class docstring: for embeddings and embedding bags the data is the module's weight."""
        for make in EMBEDDINGS:
            with self.subTest(type=make.__name__):
                self.check_life(self.build, make, first_row_zero, {"level": 0.5})

    def test_constructor_without_data_starts_empty(self):
        """data_list defaults to None: nothing is attached, the keyword arguments are the defaults of what follows."""
        for sparsifier in (RowSparsifier(level=0.5), RowSparsifier(None, level=0.5), RowSparsifier([], level=0.5)):
            self.assertEqual((dict(sparsifier.data_groups), dict(sparsifier.state)), ({}, {}))
            self.assertEqual((sparsifier.defaults, sparsifier.groups), ({"level": 0.5}, []))
            self.assertTrue(sparsifier.enable_mask_update)
            self.assertEqual(list(sparsifier._container.state_dict()), [])
            sparsifier.step()
            self.assertEqual(sparsifier.calls, [])
        self.assertEqual(RowSparsifier().defaults, {})

    def test_base_class_is_abstract(self):
        """update_mask is an abstract method."""
        with self.assertRaisesRegex(TypeError, "abstract.*update_mask"):
            BaseDataSparsifier()

    def test_update_mask_of_the_base_class_does_nothing(self):
        """update_mask is abstract without a body: a subclass may call it and finds the masks as they were."""

        class Calling(RowSparsifier):
            """Calls the abstract method before its own work."""

            def update_mask(self, name, data, **config):
                BaseDataSparsifier.update_mask(self, name, data, **config)

        sparsifier = Calling([("a", counting(2, 2))], level=0.5)
        sparsifier.step()
        self.assertMask(sparsifier, "a", np.ones((2, 2)))

    def test_import_respects_warning_options(self):
        """Python's -W decides alone: with it, importing the module adds no warning filter."""
        spec = base_data_sparsifier.__spec__
        with warnings.catch_warnings(), unittest.mock.patch.object(sys, "warnoptions", ["error"]):
            before = list(warnings.filters)
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
            self.assertEqual(warnings.filters, before)

    def test_import_hides_no_first_warning(self):
        """Comment: the import is to suppress repeated warnings, so a first one is shown."""
        spec, text = base_data_sparsifier.__spec__, f"first {time.perf_counter_ns()}"  # one that no earlier test has shown
        with warnings.catch_warnings(record=True) as caught, unittest.mock.patch.object(sys, "warnoptions", []):
            warnings.simplefilter("always")
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
            warnings.warn(text, stacklevel=1)
        self.assertEqual([str(warning.message) for warning in caught], [text])

    def test_life_draws_and_prints_nothing(self):
        """The data alone decide, and nothing is verbose: no random number is drawn, nothing is printed."""
        state = torch.get_rng_state()
        with contextlib.redirect_stdout(io.StringIO()) as out:
            sparsifier = RowSparsifier()
            sparsifier.add_data("a", counting(2, 2))
            sparsifier.step()
            sparsifier.squash_mask()
        self.assertTrue(torch.equal(torch.get_rng_state(), state), "random numbers were drawn")
        self.assertEqual(out.getvalue(), "")

    def test_prepare_is_undefined(self):
        """A data sparsifier prepares no model: prepare() raises NotImplementedError."""
        sparsifier = RowSparsifier()
        arguments = (nn.Linear(2, 2), None) if build.TORCH_VERSION >= (2, 6) else ()
        with self.assertRaisesRegex(NotImplementedError, "^this function is undefined"):
            sparsifier.prepare(*arguments)

    def test_config_of_add_data_overrides_the_defaults(self):
        """The class docstring: the defaults fill in only the keys that the configuration lacks."""
        sparsifier = RowSparsifier(level=0.5, rows=1)
        sparsifier.add_data("a", counting(2, 2), level=0.25, other="x")
        sparsifier.add_data("b", counting(2, 2))
        self.assertEqual(sparsifier.data_groups["a"], {"level": 0.25, "rows": 1, "other": "x"})
        self.assertEqual(sparsifier.data_groups["b"], {"level": 0.5, "rows": 1})
        self.assertEqual(sparsifier.defaults, {"level": 0.5, "rows": 1})

    def test_defaults_are_copied_for_data_that_is_added(self):
        """add_data() copies the defaults: changing one group's value changes neither the defaults nor another group."""
        sparsifier = RowSparsifier(shape=[1, 4])
        sparsifier.add_data("a", counting(2, 2))
        sparsifier.add_data("b", counting(2, 2))
        sparsifier.data_groups["a"]["shape"][0] = 9
        self.assertEqual((sparsifier.defaults["shape"], sparsifier.data_groups["b"]["shape"]), ([1, 4], [1, 4]))

    def test_other_types_are_refused(self):
        """SUPPORTED_TYPES: tensor, parameter, embedding, embedding bag, and no subclass; the error names the type."""

        class Table(nn.Embedding):
            """Not one of the supported types."""

        for data in (None, 1.0, [[1.0]], np.ones((2, 2)), nn.Linear(2, 2), Table(2, 2)):
            with self.subTest(type=type(data)):
                sparsifier = RowSparsifier()
                with self.assertRaisesRegex(AssertionError, refusal(f"{type(data).__name__}.*not supported")):
                    sparsifier.add_data("a", data)
                self.assertEqual((dict(sparsifier.data_groups), dict(sparsifier.state)), ({}, {}))

    def test_mask_and_parametrization_come_from_the_config(self):
        """A mask and a parametrization class in the configuration are used instead of ones and FakeSparsity."""
        mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        sparsifier = RowSparsifier()
        shown = sparsifier.add_data("a", counting(2, 2), mask=mask, parametrization=Doubling)
        self.assertIs(sparsifier.get_mask("a"), mask)
        self.assertMask(sparsifier, "a", [[1, 0], [0, 1]])
        self.assertValues(shown, [[2, 0], [0, 8]])
        self.assertIs(type(parametrizations(sparsifier, "a")[0]), Doubling)
        sparsifier.add_data("b", counting(2, 2))
        self.assertIs(type(parametrizations(sparsifier, "b")[0]), FakeSparsity)

    def test_first_mask_is_ones_like_the_data(self):
        """Before the first step() nothing is masked; the mask takes dtype and device from the data, not from the defaults."""
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            with self.subTest(dtype=dtype):
                data = torch.ones(2, 3, dtype=dtype)
                with elsewhere():
                    sparsifier = RowSparsifier([("a", data)])
                    shown = sparsifier.get_data("a", return_original=False)
                self.assertEqual((shown.dtype, shown.device.type, shown.shape), (dtype, "cpu", data.shape))
                self.assertFalse(sparsifier.get_mask("a").requires_grad)
                self.assertMask(sparsifier, "a", np.ones((2, 3)))

    def test_replacing_keeps_the_mask_and_the_config(self):
        """add_data(), notes 1, 2 and 4: the new data takes over mask and configuration, with what is specified changed."""
        for make in EVERY_TYPE:
            with self.subTest(type=make.__name__), silenced():
                old, old_weight = make()
                new, new_weight = make()
                sparsifier = RowSparsifier([("other", counting(2, 2)), ("a", old)], level=0.5, rows=2)
                sparsifier.data_groups["a"]["level"] = 0.75
                sparsifier.step()
                mask = sparsifier.get_mask("a")
                shown = sparsifier.add_data("a", new, more=1)
                self.assertIs(sparsifier.get_mask("a"), mask)
                self.assertIs(sparsifier.get_data("a"), new_weight)
                self.assertMask(sparsifier, "a", np.repeat([0, 0, 1, 1], 4).reshape(4, 4))
                self.assertEqual(sparsifier.data_groups["a"], {"level": 0.75, "rows": 2, "more": 1})
                self.assertValues(shown, [[0] * 4, [0] * 4, [9, 10, 11, 12], [13, 14, 15, 16]])
                self.assertValues(old_weight, counting(4, 4), "the replaced data is changed")
                self.assertEqual(sorted(sparsifier.state), ["a", "other"])

    def test_replacing_config_is_a_copy(self):
        """The configuration of the replaced data is copied, as the defaults are."""
        sparsifier = RowSparsifier()
        sparsifier.add_data("a", counting(2, 2), shape=[1, 4])
        kept = sparsifier.data_groups["a"]
        with silenced():
            sparsifier.add_data("a", counting(2, 2))
        sparsifier.data_groups["a"]["shape"][0] = 9
        self.assertEqual(kept["shape"], [1, 4])

    def test_replacing_without_the_mask_starts_afresh(self):
        """add_data(), note 2: with reuse_mask=False the mask is all ones, or the one given, and any shape is allowed."""
        with silenced():
            sparsifier = RowSparsifier([("a", counting(4, 4))], rows=3)
            sparsifier.step()
            sparsifier.add_data("a", counting(4, 4), reuse_mask=False)
            self.assertMask(sparsifier, "a", np.ones((4, 4)), "same shape")
            sparsifier.step()
            sparsifier.add_data("a", counting(2, 3), reuse_mask=False, rows=1)
            self.assertMask(sparsifier, "a", np.ones((2, 3)), "another shape")
            self.assertEqual(sparsifier.data_groups["a"], {"rows": 1})
            sparsifier.step()
            self.assertMask(sparsifier, "a", [[0] * 3, [1] * 3], "stepped")
            sparsifier.add_data("a", counting(2, 2), reuse_mask=False, mask=torch.eye(2))
            self.assertMask(sparsifier, "a", np.eye(2), "mask given")

    def test_replacing_by_another_shape_needs_a_new_mask(self):
        """add_data(), note 3: with the mask reused the shape must stay; a refusal leaves the old data as it was."""
        for shape in ((2, 4), (4,), (1, 4, 4)):
            with self.subTest(shape=shape), silenced():
                data = counting(4, 4)
                sparsifier = RowSparsifier([("a", data)])
                with self.assertRaisesRegex(AssertionError, refusal("^to retain the old mask, the shape")):
                    sparsifier.add_data("a", counting(*shape))
                self.assertIs(sparsifier.get_data("a"), data)
                self.assertMask(sparsifier, "a", np.ones((4, 4)))

    def test_replacing_warns_at_the_caller(self):
        """Replacing data warns once, at the line that calls add_data(); adding data does not."""
        sparsifier = RowSparsifier()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sparsifier.add_data("a", counting(2, 2))
            sparsifier.add_data("b", counting(2, 2))
            self.assertEqual([str(warning.message) for warning in caught], [])
            sparsifier.add_data("a", counting(2, 2))
        self.assertEqual(len(caught), 1, caught)
        self.assertRegex(str(caught[0].message), "^Replacing existing data of the same name")
        self.assertIs(caught[0].category, UserWarning)
        if build.TORCH_VERSION >= (2, 13):  # in 2.9 still the package's own line
            self.assertEqual(caught[0].filename, __file__)

    def test_unknown_names_are_refused(self):
        """get_data() and get_mask() raise ValueError for a name that was never added, and add nothing by asking."""
        sparsifier = RowSparsifier([("a", counting(2, 2))])
        for ask in (sparsifier.get_data, sparsifier.get_mask, lambda name: sparsifier.get_data(name, return_original=False)):
            with self.assertRaisesRegex(ValueError, "^data with specified name does not exist$"):
                ask("b")
        self.assertEqual((list(sparsifier.data_groups), list(sparsifier.state)), (["a"], ["a"]))

    def test_get_data_is_the_original_by_default(self):
        """get_data(): the data without its mask by default, the sparse version on request."""
        data = counting(2, 2)
        sparsifier = RowSparsifier([("a", data)])
        sparsifier.step()
        self.assertIs(sparsifier.get_data("a"), data)
        self.assertIs(sparsifier.get_data("a", True), data)
        self.assertValues(sparsifier.get_data("a", False), [[0, 0], [3, 4]])

    def test_original_is_gone_after_squashing(self):
        """get_data(): squashed data has no original, only its sparse version; the mask can still be asked for."""
        sparsifier = RowSparsifier([("a", counting(2, 2)), ("b", counting(2, 2))])
        sparsifier.step()
        sparsifier.squash_mask(names=["a"])
        with self.assertRaisesRegex(ValueError, "^mask squashed - original"):
            sparsifier.get_data("a")
        self.assertValues(sparsifier.get_data("a", return_original=False), [[0, 0], [3, 4]])
        self.assertMask(sparsifier, "a", [[0, 0], [1, 1]])
        self.assertValues(sparsifier.get_data("b"), counting(2, 2), "data that was not squashed")

    def test_step_hands_over_name_data_and_config(self):
        """step() calls update_mask with every name, its original data and its configuration, without recording gradients."""
        first, second = nn.Parameter(counting(2, 2)), counting(2, 2)
        sparsifier = RowSparsifier([("a", first)], rows=1, level=0.5)
        sparsifier.add_data("b", second, rows=2, note="x")
        sparsifier.step()
        self.assertEqual([call[0] for call in sparsifier.calls], ["a", "b"])
        self.assertIs(sparsifier.calls[0][1], first)
        self.assertIs(sparsifier.calls[1][1], second)
        self.assertEqual([call[2] for call in sparsifier.calls], [{"rows": 1, "level": 0.5}, {"rows": 2, "level": 0.5, "note": "x"}])
        self.assertEqual([call[3] for call in sparsifier.calls], [False, False])
        self.assertTrue(torch.is_grad_enabled())

    def test_disabled_mask_update_makes_step_do_nothing(self):
        """enable_mask_update: while it is False, step() leaves all masks."""
        sparsifier = RowSparsifier([("a", counting(2, 2))])
        sparsifier.enable_mask_update = False
        sparsifier.step()
        self.assertEqual(sparsifier.calls, [])
        self.assertMask(sparsifier, "a", np.ones((2, 2)))
        sparsifier.enable_mask_update = True
        sparsifier.step()
        self.assertMask(sparsifier, "a", [[0, 0], [1, 1]])

    def test_gradients_pass_through_the_mask(self):
        """Masking is a parametrization: the data keeps its gradient where the mask is one and gets none elsewhere."""
        for make in (as_parameter, *EMBEDDINGS):
            with self.subTest(type=make.__name__):
                data, weight = make((2, 2))
                sparsifier = RowSparsifier([("a", data)])
                sparsifier.step()
                (3 * sparsifier.get_data("a", return_original=False)).sum().backward()
                self.assertValues(weight.grad, [[0, 0], [3, 3]])

    def test_data_stays_attached(self):
        """The data is attached: what the caller writes into it is seen, masked, by the sparsifier."""
        for make in EVERY_TYPE:
            with self.subTest(type=make.__name__):
                data, weight = make((2, 2))
                sparsifier = RowSparsifier([("a", data)])
                sparsifier.step()
                with torch.no_grad():
                    weight.mul_(-10)
                self.assertValues(sparsifier.get_data("a"), [[-10, -20], [-30, -40]])
                self.assertValues(sparsifier.get_data("a", return_original=False), [[0, 0], [-30, -40]])

    def test_one_tensor_may_have_two_names(self):
        """Names are independent: the same parameter under two names has two masks, and squashing applies both."""
        weight = nn.Parameter(counting(3, 2))
        sparsifier = RowSparsifier([("a", weight)])
        sparsifier.add_data("b", weight, mask=torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]), rows=0)
        sparsifier.step()
        self.assertValues(sparsifier.get_data("a", return_original=False), [[0, 0], [3, 4], [5, 6]])
        self.assertValues(sparsifier.get_data("b", return_original=False), [[1, 2], [3, 4], [5, 0]])
        sparsifier.squash_mask()
        self.assertValues(weight, [[0, 0], [3, 4], [5, 0]])

    def test_squash_mask_of_some_names(self):
        """squash_mask(): accepts names to squash; the others stay masked, with their data."""
        first, second = counting(2, 2), counting(2, 2)
        sparsifier = RowSparsifier([("a", first), ("b", second)])
        sparsifier.step()
        sparsifier.squash_mask(names=[])
        self.assertTrue(is_parametrized(sparsifier._container, "a"), "no name was given")
        names = ["b"]
        sparsifier.squash_mask(names=names)
        self.assertEqual(names, ["b"], "the caller's list")
        self.assertValues(second, [[0, 0], [3, 4]])
        self.assertValues(first, counting(2, 2), "not squashed")
        self.assertTrue(is_parametrized(sparsifier._container, "a"))
        with self.assertRaises(ValueError):
            sparsifier.squash_mask(names=["unknown"])

    def test_squash_mask_can_leave_the_data_dense(self):
        """leave_parametrized: True by default; with False the mask is taken off without being applied."""
        for make in EVERY_TYPE:
            with self.subTest(type=make.__name__):
                data, weight = make((2, 2))
                sparsifier = RowSparsifier([("a", data)])
                sparsifier.step()
                sparsifier.squash_mask(leave_parametrized=False)
                self.assertIs(sparsifier.get_data("a", return_original=False), weight)
                self.assertValues(weight, counting(2, 2))
                self.assertFalse(is_parametrized(sparsifier._container, "a"))

    def test_squash_mask_ignores_arguments_of_other_sparsifiers(self):
        """The signature takes further arguments, so that a loop over sparsifiers can pass the same ones to all."""
        data = counting(2, 2)
        sparsifier = RowSparsifier([("a", data)])
        sparsifier.step()
        sparsifier.squash_mask("positional", params_to_keep=("level",))
        self.assertValues(data, [[0, 0], [3, 4]])

    def test_state_dict_holds_masks_groups_and_container(self):
        """state_dict(): name -> mask (sparse COO), the configuration groups, and the data of the container."""
        weight = nn.Parameter(counting(2, 2))
        sparsifier = RowSparsifier([("a", weight)], level=0.5)
        sparsifier.step()
        state = sparsifier.state_dict()
        self.assertEqual(sorted(state), ["_container", "data_groups", "state"])
        self.assertEqual(list(state["state"]), ["a"])
        mask = state["state"]["a"]["mask"]
        self.assertEqual(mask.layout, torch.sparse_coo)
        self.assertValues(mask.to_dense(), [[0, 0], [1, 1]])
        self.assertEqual(dict(state["data_groups"]), {"a": {"level": 0.5}})
        self.assertEqual(list(state["_container"]), ["parametrizations.a.original"])
        self.assertValues(state["_container"]["parametrizations.a.original"], counting(2, 2))
        self.assertEqual(sparsifier.get_mask("a").layout, torch.strided, "saving changes the live mask")
        sparsifier.add_data("b", counting(3, 2))
        state = sparsifier.state_dict()
        self.assertEqual([state["state"][name]["mask"].layout for name in "ab"], [torch.sparse_coo] * 2)
        loaded = RowSparsifier()
        loaded.load_state_dict(state)
        self.assertEqual([loaded.get_mask(name).layout for name in "ab"], [torch.strided] * 2)

    def test_delete_data_forgets_it(self):
        """_delete_data(): "Detaches some data from the sparsifier": its mask, configuration and place in the container."""
        sparsifier = RowSparsifier([("a", counting(2, 2)), ("b", counting(3, 2))])
        sparsifier._delete_data("a")
        self.assertEqual((list(sparsifier.state), list(sparsifier.data_groups)), (["b"], ["b"]))
        self.assertFalse(hasattr(sparsifier._container, "a"))

    def test_state_dict_masks_are_snapshots(self):
        """state_dict(): masks and whatever else the state holds are copies, later steps do not change them."""
        sparsifier = RowSparsifier([("a", counting(2, 2))])
        sparsifier.state["a"]["history"] = [1]
        state = sparsifier.state_dict()
        sparsifier.step()
        sparsifier.state["a"]["history"].append(2)
        self.assertValues(state["state"]["a"]["mask"].to_dense(), np.ones((2, 2)))
        self.assertEqual(state["state"]["a"]["history"], [1])

    def test_state_dict_after_squashing_holds_the_sparse_data(self):
        """Squashed data is saved under its own name, restored without a parametrization, and saved again from there."""
        sparsifier = RowSparsifier([("a", counting(2, 2)), ("b", counting(2, 2))])
        sparsifier.step()
        sparsifier.squash_mask(names=["a"])
        state = sparsifier.state_dict()
        self.assertEqual(sorted(state["_container"]), ["a", "parametrizations.b.original"])
        loaded = RowSparsifier()
        loaded.load_state_dict(state)
        again = loaded.state_dict()["_container"]
        self.assertEqual(sorted(again), ["a", "parametrizations.b.original"], "saved again")
        self.assertValues(again["a"], [[0, 0], [3, 4]], "saved again")
        self.assertFalse(is_parametrized(loaded._container, "a"))
        self.assertValues(loaded.get_data("a", return_original=False), [[0, 0], [3, 4]])
        self.assertMask(loaded, "a", [[0, 0], [1, 1]])
        self.assertValues(loaded.get_data("b"), counting(2, 2))
        self.assertValues(loaded.get_data("b", return_original=False), [[0, 0], [3, 4]])

    def test_strict_load_restores_exactly_the_saved_state(self):
        """load_state_dict(strict=True), the default: the sparsifier is reset, nothing of what it had before remains."""
        for arguments in ({}, {"strict": True}):
            with self.subTest(arguments=arguments):
                saved = RowSparsifier([("a", counting(2, 2)), ("b", counting(4, 3))], level=0.5)
                saved.step()
                sparsifier = RowSparsifier([("b", counting(5, 5)), ("c", counting(2, 2))], level=0.9)
                sparsifier.load_state_dict(saved.state_dict(), **arguments)
                self.assertEqual((list(sparsifier.data_groups), list(sparsifier.state)), (["a", "b"], ["a", "b"]))
                self.assertEqual(sparsifier.data_groups["b"], {"level": 0.5})
                self.assertEqual(sparsifier.defaults, {"level": 0.9}, "the defaults belong to the sparsifier, not to the state")
                self.assertEqual(sorted(sparsifier._container.state_dict()), ["parametrizations.a.original", "parametrizations.b.original"])
                for name in "ab":
                    self.assertMask(sparsifier, name, first_row_zero(saved.get_mask(name)), "loaded")
                    self.assertEqual(sparsifier.get_mask(name).layout, torch.strided)

    def test_loaded_sparsifier_goes_on(self):
        """After load_state_dict() the sparsifier steps, takes more data and squashes as the saved one would."""
        saved = RowSparsifier([("a", counting(4, 2))])
        saved.step()
        sparsifier = RowSparsifier()
        sparsifier.load_state_dict(saved.state_dict())
        sparsifier.data_groups["a"]["rows"] = 2
        sparsifier.add_data("b", counting(2, 2))
        sparsifier.step()
        self.assertMask(sparsifier, "a", [[0, 0], [0, 0], [1, 1], [1, 1]])
        self.assertMask(sparsifier, "b", [[0, 0], [1, 1]])
        sparsifier.squash_mask()
        self.assertValues(sparsifier.get_data("a", return_original=False), [[0, 0], [0, 0], [5, 6], [7, 8]])

    def test_load_copies_the_state(self):
        """load_state_dict(): the state given is neither changed nor shared, it can be loaded again."""
        for strict in (True, False):
            with self.subTest(strict=strict):
                saved = RowSparsifier([("a", counting(2, 2))], shape=[1, 4])
                saved.step()
                state = saved.state_dict()
                first, second = RowSparsifier(), RowSparsifier()
                first.load_state_dict(state, strict=strict)
                first.data_groups["a"]["shape"][0] = 9
                first.get_mask("a").fill_(7)
                first.get_data("a").fill_(7)
                self.assertEqual(state["data_groups"]["a"]["shape"], [1, 4])
                self.assertEqual(state["state"]["a"]["mask"].layout, torch.sparse_coo)
                second.load_state_dict(state, strict=strict)
                self.assertMask(second, "a", [[0, 0], [1, 1]], "loaded again")
                self.assertValues(second.get_data("a"), counting(2, 2))
                self.assertValues(saved.get_data("a"), counting(2, 2))

    def test_incomplete_state_is_refused(self):
        """load_state_dict(): RuntimeError, naming the data, where its configuration or its values are missing."""
        for strict, missing in itertools.product((True, False), ("data_groups", "_container")):
            with self.subTest(strict=strict, missing=missing):
                state = RowSparsifier([("lonely", counting(2, 2))]).state_dict()
                state[missing] = {}
                with self.assertRaisesRegex(RuntimeError, "lonely"):
                    RowSparsifier().load_state_dict(state, strict=strict)

    def test_lenient_load_keeps_the_data_added_before(self):
        """load_state_dict(strict=False): data added before is not erased; the data of the state comes in addition."""
        saved = RowSparsifier([("a", counting(4, 2))], level=0.5)
        saved.step()
        data = counting(2, 2)
        sparsifier = RowSparsifier([("b", data)], level=0.9)
        mask = sparsifier.get_mask("b")
        sparsifier.load_state_dict(saved.state_dict(), strict=False)
        self.assertEqual((sorted(sparsifier.data_groups), sorted(sparsifier.state)), (["a", "b"], ["a", "b"]))
        self.assertEqual({**sparsifier.data_groups}, {"a": {"level": 0.5}, "b": {"level": 0.9}})
        self.assertIs(sparsifier.get_data("b"), data)
        self.assertIs(sparsifier.get_mask("b"), mask)
        self.assertMask(sparsifier, "a", first_row_zero(np.ones((4, 2))))
        self.assertValues(sparsifier.get_data("a"), counting(4, 2))
        sparsifier.step()
        self.assertMask(sparsifier, "b", [[0, 0], [1, 1]])

    def test_copies_are_equal_and_independent(self):
        """deepcopy and pickle: equal data, masks, groups and defaults, sharing none with the original."""
        for how, duplicate in (("deepcopy", copy.deepcopy), ("pickle", lambda original: pickle.loads(pickle.dumps(original)))):
            with self.subTest(how=how):
                original = RowSparsifier([("a", counting(2, 2)), ("b", counting(3, 2))], shape=[1, 4])
                original.step()
                original.squash_mask(names=["b"])
                other = duplicate(original)
                self.assertIs(type(other), RowSparsifier)
                self.assertEqual(other.defaults, {"shape": [1, 4]})
                self.assertEqual(dict(other.data_groups), {"a": {"shape": [1, 4]}, "b": {"shape": [1, 4]}})
                self.assertMask(other, "a", [[0, 0], [1, 1]])
                self.assertEqual(other.get_mask("a").layout, torch.strided)
                self.assertValues(other.get_data("b", return_original=False), [[0, 0], [3, 4], [5, 6]])
                other.get_mask("a").fill_(7)
                other.get_data("a").fill_(7)
                other.data_groups["a"]["shape"][0] = 7
                other.defaults["shape"][0] = 7
                self.assertMask(original, "a", [[0, 0], [1, 1]])
                self.assertValues(original.get_data("a"), counting(2, 2))
                self.assertEqual((original.data_groups["a"]["shape"], original.defaults["shape"]), ([1, 4], [1, 4]))

    def test_saved_state_restores_from_a_file(self):
        """state_dict() "returns the state": torch.save and torch.load bring it back."""
        saved = RowSparsifier([("a", counting(2, 2))], level=0.5)
        saved.step()
        file = io.BytesIO()
        torch.save(saved.state_dict(), file)
        file.seek(0)
        sparsifier = RowSparsifier()
        sparsifier.load_state_dict(torch.load(file, weights_only=False))
        self.assertMask(sparsifier, "a", [[0, 0], [1, 1]])
        self.assertEqual(dict(sparsifier.data_groups), {"a": {"level": 0.5}})

    def test_repr_lists_the_groups(self):
        """repr: the class and, for each data group, its name and its configuration in alphabetical order."""
        sparsifier = RowSparsifier([("first", counting(2, 2))], level=0.5)
        sparsifier.add_data("second", counting(2, 2), beta=(1, 4), alpha=None)
        sparsifier.data_groups["second"]["data"] = "never shown"
        self.assertExpectedInline(
            repr(sparsifier),
            """\
RowSparsifier (
\tData Group
\t    name: first
\t    level: 0.5

\tData Group
\t    name: second
\t    alpha: None
\t    beta: (1, 4)
\t    level: 0.5
)""",
        )
        self.assertExpectedInline(repr(RowSparsifier()), """RowSparsifier ()""")

    @on_every_device
    def test_masks_live_on_the_device_of_the_data(self, device):
        """Masks, sparse data and saved state stay on the device of the data; a load brings them back there."""
        sparsifier = RowSparsifier([("a", counting(2, 2).to(device)), ("b", nn.Embedding(2, 2, device=device))])
        sparsifier.step()
        loaded = RowSparsifier()
        loaded.load_state_dict(sparsifier.state_dict())
        for case in (sparsifier, loaded, copy.deepcopy(sparsifier)):
            for tensor in (case.get_mask("a"), case.get_data("b"), case.get_data("a", return_original=False)):
                self.assertEqual(tensor.device.type, device)
            self.assertMask(case, "a", [[0, 0], [1, 1]])

    def named(self, names="a"):
        """RowSparsifier with a 2 x 2 tensor for each letter of ``names``."""
        return RowSparsifier([(name, counting(2, 2)) for name in names])

    @known_defect("data-sparsifier-import-overrides-warning-filters")
    def test_import_leaves_the_warning_filters(self):
        """Importing a library does not change the process's warning filters."""
        spec = base_data_sparsifier.__spec__
        with warnings.catch_warnings(), unittest.mock.patch.object(sys, "warnoptions", []):
            warnings.simplefilter("ignore")
            before = list(warnings.filters)
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
            self.assertTrue(warnings.filters == before, f"warning filters after the import: {warnings.filters[:2]}, before: {before[:2]}")

    @known_defect("data-list-groups-share-the-defaults")
    def test_data_list_copies_the_defaults(self):
        """Groups made from data_list own their configuration, as those made by add_data() do."""
        sparsifier = RowSparsifier([("a", counting(2, 2)), ("b", counting(2, 2))], shape=[1, 4])
        sparsifier.data_groups["a"]["shape"][0] = 9
        self.assertTrue(sparsifier.data_groups["b"]["shape"] == [1, 4], f"another group's value is now {sparsifier.data_groups['b']}")
        self.assertEqual(sparsifier.defaults, {"shape": [1, 4]})

    @known_defect("data-cannot-be-named-like-module-attributes")
    def test_every_name_is_accepted(self):
        """A name is only a name: none is reserved by the module that holds the data."""
        for name in ("values", "keys", "items", "training", "forward", "parametrizations"):
            with self.subTest(name=name):
                sparsifier, names = self.named(), (name, f"{name}_")
                for each in names:
                    self.assertValues(sparsifier.add_data(each, counting(2, 2)), counting(2, 2))
                sparsifier.step()
                with silenced():
                    sparsifier.add_data(name, counting(2, 2, start=5))
                loaded, squashed = RowSparsifier(), RowSparsifier()
                loaded.load_state_dict(sparsifier.state_dict())
                for case in (sparsifier, loaded):
                    self.assertValues(torch.cat([case.get_data(each) for each in names]), [[5, 6], [7, 8], [1, 2], [3, 4]])
                    for each in names:
                        self.assertValues(case.get_mask(each), [[0, 0], [1, 1]])
                sparsifier.squash_mask()
                squashed.load_state_dict(sparsifier.state_dict())
                for case in (sparsifier, loaded, squashed):
                    shown = [case.get_data(each, return_original=False) for each in names]
                    self.assertValues(torch.cat(shown), [[0, 0], [7, 8], [0, 0], [3, 4]])

    @known_defect("replacing-data-drops-its-parametrization")
    def test_replacing_keeps_the_parametrization(self):
        """add_data(), note 4: the configuration of the replaced data is used, its parametrization included."""
        sparsifier = RowSparsifier()
        sparsifier.add_data("a", counting(2, 2), parametrization=Doubling)
        with silenced():
            sparsifier.add_data("a", counting(2, 2))
        kind = type(parametrizations(sparsifier, "a")[0])
        self.assertTrue(kind is Doubling, f"the parametrization of the replaced data was Doubling, now it is {kind}")

    @known_defect("reused-mask-keeps-the-old-dtype")
    def test_replacing_by_another_dtype_reuses_the_mask(self):
        """add_data(), note 3: to reuse the mask the shape must be the same, nothing else."""
        sparsifier = self.named()
        with silenced():
            shown = sparsifier.add_data("a", counting(2, 2).half())
        self.assertEqual(shown.dtype, torch.float16)

    @known_defect("first-mask-promotes-converted-data")
    def test_data_may_be_converted_before_the_first_step(self):
        """The sparse data has the dtype of the data, also after module.half()."""
        embedding = nn.Embedding(2, 2)
        sparsifier = RowSparsifier([("a", embedding)])
        embedding.half()
        dtype = sparsifier.get_data("a", return_original=False).dtype
        self.assertTrue(dtype == torch.float16, f"the dtype of the sparse data is {dtype}, that of the data torch.float16")
        sparsifier.squash_mask()
        self.assertEqual(embedding.weight.dtype, torch.float16)

    @known_defect("failed-replacement-loses-the-old-data")
    def test_refused_replacement_leaves_the_old_data(self):
        """A replacement that raises leaves data, mask and configuration as they were."""
        sparsifier = self.named()
        data = sparsifier.get_data("a")
        with silenced(), self.assertRaises(AssertionError):
            sparsifier.add_data("a", counting(2, 2), reuse_mask=False, mask=torch.ones(3, 3))
        self.assertTrue("a" in sparsifier.data_groups, "the old data is lost")
        self.assertIs(sparsifier.get_data("a"), data)
        self.assertMask(sparsifier, "a", np.ones((2, 2)))

    @known_defect("refused-data-stays-in-the-container")
    def test_refused_data_leaves_nothing(self):
        """Data that add_data() refuses is in no group, and in no saved state."""
        sparsifier = RowSparsifier()
        with self.assertRaises(AssertionError):
            sparsifier.add_data("a", counting(2, 2), mask=torch.ones(3, 3))
        self.assertEqual((dict(sparsifier.data_groups), dict(sparsifier.state)), ({}, {}))
        saved = list(sparsifier.state_dict()["_container"])
        self.assertTrue(saved == [], f"the refused data is saved: {saved}")

    @known_defect("squashed-data-cannot-be-replaced")
    def test_squashed_data_is_replaced_under_its_mask(self):
        """add_data(), notes 1 and 2: existing data is replaced and its mask reused, also after squashing."""
        sparsifier = self.named()
        sparsifier.step()
        sparsifier.squash_mask()
        with silenced():
            shown = sparsifier.add_data("a", counting(2, 2))
        self.assertValues(shown, [[0, 0], [3, 4]])

    @known_defect("squashed-data-cannot-be-deleted")
    def test_squashed_data_is_replaced_with_a_new_mask(self):
        """add_data(), note 1: existing data is replaced, also after squashing, whatever is squashed beside it."""
        sparsifier = self.named("ab")
        sparsifier.step()
        sparsifier.squash_mask(names=["a"])
        with silenced():
            shown = sparsifier.add_data("a", counting(2, 2), reuse_mask=False)
        self.assertValues(shown, counting(2, 2))

    @known_defect("squash-after-a-partial-squash-fails")
    def test_the_rest_is_squashed_after_some(self):
        """squash_mask(): names first, then "if none, squashes mask for all the keys"."""
        sparsifier = self.named("ab")
        sparsifier.step()
        sparsifier.squash_mask(names=["a"])
        sparsifier.squash_mask()
        self.assertFalse(is_parametrized(sparsifier._container))

    @known_defect("step-fails-after-a-partial-squash")
    def test_the_rest_steps_after_some_are_squashed(self):
        """squash_mask(names) ends the masking of those names; the others go on."""
        sparsifier = self.named("ab")
        sparsifier.squash_mask(names=["a"])
        sparsifier.step()
        self.assertMask(sparsifier, "b", [[0, 0], [1, 1]])
        self.assertMask(sparsifier, "a", np.ones((2, 2)))

    @known_defect("squash-mask-ignores-sparsified")
    def test_squash_mask_without_sparsifying(self):
        """squash_mask(): "sparsified: if false - does not apply the mask before squashing"."""
        data = counting(2, 2)
        sparsifier = RowSparsifier([("a", data)])
        sparsifier.step()
        sparsifier.squash_mask(sparsified=False)
        self.assertTrue(data.tolist() == [[1, 2], [3, 4]], f"the mask was applied in spite of sparsified=False: {data.tolist()}")

    @known_defect("data-state-dict-shares-the-groups")
    def test_state_dict_groups_are_snapshots(self):
        """state_dict(): the state of this moment, groups included."""
        sparsifier = RowSparsifier([("a", counting(2, 2))], level=0.5)
        state = sparsifier.state_dict()
        sparsifier.data_groups["a"]["level"] = 0.9
        saved = state["data_groups"]["a"]["level"]
        self.assertTrue(saved == 0.5, f"the saved level was 0.5 and is now {saved}")
        self.assertIn("a", state["data_groups"])

    @known_defect("data-sparsifier-state-needs-an-unsafe-load")
    def test_state_dict_loads_with_the_defaults_of_torch_load(self):
        """state_dict() holds tensors and numbers: torch.load reads it as it is."""
        file = io.BytesIO()
        torch.save(RowSparsifier([("a", counting(2, 2))], level=0.5).state_dict(), file)
        file.seek(0)
        sparsifier = RowSparsifier()
        sparsifier.load_state_dict(torch.load(file))
        self.assertMask(sparsifier, "a", np.ones((2, 2)))

    @known_defect("plain-dict-state-breaks-add-data")
    def test_state_of_plain_dicts_leaves_a_working_sparsifier(self):
        """load_state_dict(): takes a dictionary, and the sparsifier goes on from there."""
        state = {key: dict(value) for key, value in self.named().state_dict().items()}
        sparsifier = RowSparsifier()
        sparsifier.load_state_dict(state)
        sparsifier.add_data("later", counting(2, 2))
        self.assertMask(sparsifier, "later", np.ones((2, 2)))

    @known_defect("copied-data-sparsifier-cannot-step")
    def test_copies_step(self):
        """A copy does what its original does: it steps, with the same norm, also where a scheduler counts the original's steps."""

        class Constant(BaseDataScheduler):
            def get_schedule_param(self):
                return self.base_param

        data = torch.tensor([[3.0, 3, 3, 3], [0, 0, 0, 11]])
        for duplicate in (copy.deepcopy, lambda original: pickle.loads(pickle.dumps(original))):
            for scheduled in (False, True):
                original = DataNormSparsifier([("a", data)], norm="L2")
                if scheduled:
                    Constant(original, "sparsity_level")
                other = duplicate(original)
                other.step()
                self.assertMask(other, "a", [[0] * 4, [1] * 4])
                self.assertMask(original, "a", np.ones((2, 4)))

    @known_defect("copied-data-no-longer-requires-gradients")
    def test_copies_keep_parameters(self):
        """A copy of a parameter is a parameter that requires gradients."""
        sparsifier = RowSparsifier([("a", nn.Parameter(counting(2, 2)))])
        loaded = RowSparsifier()
        loaded.load_state_dict(sparsifier.state_dict())
        ways = {"deepcopy": copy.deepcopy(sparsifier), "pickle": pickle.loads(pickle.dumps(sparsifier)), "load_state_dict": loaded}
        found = {way: other.get_data("a") for way, other in ways.items()}
        lost = [way for way, data in found.items() if not (type(data) is nn.Parameter and data.requires_grad)]
        self.assertEqual(str(lost), "[]", msg="ways that lose parameters")

    @known_defect("loading-drops-the-parametrization")
    def test_load_restores_the_parametrization(self):
        """load_state_dict(): "restored exactly to the state", with the parametrization of each data's configuration."""
        sparsifier = RowSparsifier()
        sparsifier.add_data("a", counting(2, 2), parametrization=Doubling)
        loaded = RowSparsifier()
        loaded.load_state_dict(sparsifier.state_dict())
        kind = type(parametrizations(loaded, "a")[0])
        self.assertTrue(kind is Doubling, f"the parametrization of the loaded data was Doubling, now it is {kind}")

    @known_defect("data-named-parametrization-cannot-be-loaded")
    def test_data_named_parametrization_is_loaded(self):
        """A name that add_data() accepts can be saved and loaded."""
        sparsifier = RowSparsifier([("parametrization", counting(2, 2))])
        loaded = RowSparsifier()
        loaded.load_state_dict(sparsifier.state_dict())
        self.assertMask(loaded, "parametrization", np.ones((2, 2)))

    @known_defect("refused-load-empties-the-data-sparsifier")
    def test_refused_load_leaves_the_sparsifier(self):
        """A state that load_state_dict() refuses changes nothing."""
        emptied = []
        for missing in ("data_groups", "_container"):
            sparsifier = self.named()
            data = sparsifier.get_data("a")
            with self.assertRaises(RuntimeError):
                sparsifier.load_state_dict({**sparsifier.state_dict(), missing: {}})
            if not is_parametrized(sparsifier._container, "a") or sparsifier.get_data("a") is not data:
                emptied.append(missing)
        self.assertTrue(not emptied, f"refused loads without {emptied} have emptied the container")

    @known_defect("lenient-load-fails-on-common-names")
    def test_lenient_load_keeps_common_names(self):
        """load_state_dict(strict=False): data added before is not erased, also where the state has the same name."""
        sparsifier = self.named("ac")
        data = {name: sparsifier.get_data(name) for name in "ac"}
        saved = self.named("abc")
        saved.step()
        sparsifier.load_state_dict(saved.state_dict(), strict=False)
        for name in "ac":
            self.assertIs(sparsifier.get_data(name), data[name])
            self.assertMask(sparsifier, name, np.ones((2, 2)))
        self.assertMask(sparsifier, "b", [[0, 0], [1, 1]])

    @known_defect("lenient-load-overwrites-squashed-data")
    def test_lenient_load_keeps_squashed_data(self):
        """load_state_dict(strict=False): data added before is not erased, also if it was squashed."""
        sparsifier = RowSparsifier([("a", counting(2, 2, start=5))])
        sparsifier.squash_mask()
        sparsifier.load_state_dict(self.named().state_dict(), strict=False)
        data = sparsifier.get_data("a", return_original=False).tolist()
        self.assertTrue(data == [[5, 6], [7, 8]], f"the data was erased by a lenient load, it is now {data}")

    def test_lenient_load_keeps_the_config_of_common_names(self):
        """load_state_dict(strict=False): data added before keeps its configuration and its mask, also where the state has its name."""
        saved, sparsifier = (RowSparsifier([("a", counting(2, 2))], level=level) for level in (0.5, 0.9))
        saved.squash_mask()
        sparsifier.squash_mask()
        mask = sparsifier.get_mask("a")
        sparsifier.load_state_dict(saved.state_dict(), strict=False)
        self.assertEqual(dict(sparsifier.data_groups), {"a": {"level": 0.9}})
        self.assertIs(sparsifier.get_mask("a"), mask)
