# Owner(s): ["module: sparse"]
"""FakeSparsity, the parametrization that multiplies a tensor by a mask, and what it does to a module that has it."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

import copy
import warnings

from ao.sparsity.testing.base import TestCase, on_every_device  # first: it asks whether there is a torch to validate

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize as over, subtest

from ao.sparsity.testing import build
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.linear import distinct_weight, linear

from torch.ao.pruning import FakeSparsity

WEIGHT = [[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]]
MASK = [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
PRODUCT = [[1.0, 0.0, 3.0], [0.0, 0.0, -6.0]]


def masked_linear(mask=MASK, **options):
    """An nn.Linear(3, 2) with WEIGHT under a FakeSparsity of ``mask``; and that parametrization."""
    layer = linear(torch.tensor(WEIGHT, **options), bias=True)
    fake = FakeSparsity(torch.as_tensor(mask, **options))
    parametrize.register_parametrization(layer, "weight", fake)
    return layer, fake


@instantiate_parametrized_tests
class TestFakeSparsity(TestCase):
    def test_masking_logic(self):
        """Class docstring: the tensor with a mask applied to it, their elementwise product, in any dtype."""
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            for mask_dtype in (dtype, torch.bool):
                with self.subTest(dtype=dtype, mask_dtype=mask_dtype):
                    fake = FakeSparsity(torch.tensor(MASK).to(mask_dtype))
                    self.assertEqual(fake(torch.tensor(WEIGHT, dtype=dtype)), torch.tensor(PRODUCT, dtype=dtype))
        self.assertEqual(FakeSparsity(torch.tensor([0.5, 2.0]))(torch.tensor([4.0, 4.0])), torch.tensor([2.0, 8.0]))

    @over(
        "shape",
        [subtest((2, 3), name="transposed"), subtest((3, 1), name="broadcast"), subtest((6,), name="flat"), subtest((), name="scalar")],
    )
    def test_masking_logic_refuses_another_shape(self, shape):
        """The mask belongs to one tensor: another shape is refused, with both shapes, even where it would broadcast."""
        with self.assertRaises(AssertionError) as caught:
            FakeSparsity(torch.ones(3, 2))(torch.ones(shape))
        if not build.BARE_ASSERTS:
            for each in ((3, 2), shape):
                self.assertIn(str(torch.Size(each)), str(caught.exception))

    def test_mask_is_the_given_tensor_and_a_buffer(self):
        """Class docstring Note: the reference to the mask does not change; it is a buffer, so that it moves with the module."""
        mask = torch.tensor(MASK)
        fake = FakeSparsity(mask)
        self.assertIs(fake.mask, mask)
        self.assertEqual([name for name, buffer in fake.named_buffers() if buffer is mask], ["mask"])
        self.assertEqual(list(fake.parameters()), [])

    def test_contents_of_the_mask_may_change(self):
        """Class docstring Note: the contents of the mask can change, and count from the next use on."""
        layer, fake = masked_linear()
        for change in (lambda: fake.mask.fill_(0), lambda: setattr(fake.mask, "data", torch.ones(2, 3))):
            mask = fake.mask
            change()
            self.assertIs(fake.mask, mask)
            self.assertEqual(layer.weight, mask * torch.tensor(WEIGHT))

    def test_weights_parametrized(self):
        """A module with it computes with the masked weight, and keeps the parameter that an optimizer already holds."""
        layer = linear(torch.tensor(WEIGHT), bias=True)
        parameter = layer.weight
        fake = FakeSparsity(torch.tensor(MASK))
        parametrize.register_parametrization(layer, "weight", fake)
        self.assertTrue(parametrize.is_parametrized(layer, "weight"))
        self.assertFalse(parametrize.is_parametrized(layer, "bias"))
        self.assertIs(layer.parametrizations.weight[0], fake)
        self.assertIs(layer.parametrizations.weight.original, parameter)
        self.assertEqual(layer.weight, torch.tensor(PRODUCT))
        self.assertEqual(layer(torch.tensor([[1.0, 10.0, 100.0]])), torch.tensor([[302.0, -599.0]]))

    def test_gradients_of_masked_entries_are_zero(self):
        """The chain rule of mask * weight: a masked entry gets no gradient, so training leaves it as it is."""
        layer, _ = masked_linear()
        original = layer.parametrizations.weight.original
        layer(torch.tensor([[1.0, 2.0, 4.0]])).sum().backward()
        self.assertEqual(original.grad, torch.tensor([[1.0, 0.0, 4.0], [0.0, 0.0, 4.0]]))

    def test_masks_chain(self):
        """Parametrizations chain: under two masks an entry survives if both keep it."""
        layer, _ = masked_linear()
        parametrize.register_parametrization(layer, "weight", FakeSparsity(torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])))
        self.assertEqual(layer.weight, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -6.0]]))

    def test_state_dict_preserved(self):
        """Comment in state_dict: the module does not store the masks; the weights travel, the masks do not."""
        layer, fake = masked_linear()
        self.assertEqual(fake.state_dict(), {})
        self.assertEqual(fake.state_dict(destination={}, prefix="x.", keep_vars=True), {})
        state = layer.state_dict()
        self.assertEqual(sorted(state), ["bias", "parametrizations.weight.original"])
        other, _ = masked_linear(torch.zeros(2, 3))
        with torch.no_grad():
            other.parametrizations.weight.original.zero_()
        other.load_state_dict(state, strict=False)
        self.assertEqual(other.parametrizations.weight.original.detach(), torch.tensor(WEIGHT))
        self.assertEqual(other.weight, torch.zeros(2, 3))
        with torch.no_grad():
            other.parametrizations.weight[0].mask.copy_(torch.tensor(MASK))
        self.assertEqual(other.weight, layer.weight)

    @known_defect("prepared-model-rejects-its-own-state-dict")
    def test_state_dict_loads_into_the_module_it_came_from(self):
        """nn.Module.load_state_dict(strict=True): the keys match those returned by this module's state_dict()."""
        layer, _ = masked_linear()
        missing, unexpected = layer.load_state_dict(layer.state_dict())
        self.assertEqual((missing, unexpected), ([], []), "keys missing and unexpected")

    def test_removal_bakes_in_the_mask_or_gives_back_the_original(self):
        """remove_parametrizations(leave_parametrized): the masked weight stays, or the dense one returns; same Parameter."""
        for leave, expected in ((True, PRODUCT), (False, WEIGHT)):
            with self.subTest(leave_parametrized=leave):
                layer, _ = masked_linear()
                parameter = layer.parametrizations.weight.original
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=leave)
                self.assertIs(layer.weight, parameter)
                self.assertEqual(layer.weight.detach(), torch.tensor(expected))
                self.assertIs(type(layer), nn.Linear)

    def test_copy_is_independent(self):
        """copy.deepcopy: a copy has the mask's values in a tensor of its own."""
        layer, fake = masked_linear()
        twin = copy.deepcopy(layer)
        fake.mask.zero_()
        self.assertEqual(layer.weight, torch.zeros(2, 3))
        self.assertEqual(twin.weight, torch.tensor(PRODUCT))

    def test_jit_trace(self):
        """A traced module computes what the eager one does, for inputs other than the one of the trace."""
        self.skip_without_torchscript()
        layer, _ = masked_linear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(layer, torch.ones(1, 3))
        x = distinct_weight(4, 3)
        self.assertEqual(traced(x), layer(x))
        self.assertEqual(traced(x), x @ torch.tensor(PRODUCT).T + 1)

    @on_every_device
    def test_mask_moves_with_the_module(self, device):
        """Module.to: the mask is a buffer, so it follows the weight to a device and a floating point dtype."""
        dtype = torch.float32 if device == "mps" else torch.float64
        layer, fake = masked_linear()
        layer.to(device, dtype)
        self.assertEqual((fake.mask.device.type, fake.mask.dtype), (device, dtype))
        self.assertEqual(layer.weight.cpu(), torch.tensor(PRODUCT, dtype=dtype))
        layer.to("meta")
        self.assertEqual((fake.mask.device.type, fake.mask.dtype), ("meta", dtype))
