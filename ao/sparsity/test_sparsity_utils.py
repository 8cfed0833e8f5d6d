# Owner(s): ["module: sparse"]
"""Names of modules and tensors in a model (fully qualified names), in both directions, and the swap of modules."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

from ao.sparsity.testing.base import TestCase, on_every_device  # first: it asks whether there is a torch to validate

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.linear import Nested, linear

from torch.ao.pruning import (
    FakeSparsity,
    fqn_to_module,
    get_arg_info_from_tensor_fqn,
    get_dynamic_sparse_quantized_mapping,
    get_static_sparse_quantized_mapping,
    module_to_fqn,
)
from torch.ao.pruning.sparsifier.utils import module_contains_param, swap_module


class FromDense(nn.Module):
    """Target of a swap: keeps the module that it was made from out of its own submodules."""

    def __init__(self, dense):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.made_from = [dense]

    def forward(self, x, factor=1):
        return x * self.scale * factor

    @classmethod
    def from_dense(cls, dense):
        return cls(dense)


@instantiate_parametrized_tests
class TestSparsityUtilFunctions(TestCase):
    def test_module_to_fqn(self):
        """Docstring: returns the fqn for a module, at any depth; for a shared module the first of its names."""
        model = Nested()
        model.again = model.body.last
        for fqn in ("first", "body", "body.inner", "body.inner.0", "body.inner.1", "body.last"):
            with self.subTest(fqn=fqn):
                self.assertEqual(module_to_fqn(model, model.get_submodule(fqn)), fqn)
        self.assertEqual(module_to_fqn(model.body, model.body.inner[0]), "inner.0")
        model.body.first, model.body.body = linear(torch.ones(1, 1)), linear(torch.ones(1, 1))
        for fqn in ("first", "body.first", "body.body"):
            self.assertEqual(module_to_fqn(model, model.get_submodule(fqn)), fqn, msg="names that end alike")

    def test_module_to_fqn_fail(self):
        """Docstring: None if the module is no descendant of the model, be it equal, an ancestor or of another model."""
        model = Nested()
        for name, stranger in (("twin", Nested().first), ("ancestor", model), ("sibling", model.first)):
            with self.subTest(name):
                self.assertIsNone(module_to_fqn(model.body, stranger))

    def test_module_to_fqn_root(self):
        """The root's own name is the empty string, as in nn.Module.named_modules."""
        for model in (Nested(), linear(torch.ones(1, 1))):
            self.assertEqual(module_to_fqn(model, model), "")

    def test_module_to_fqn_passes_over_a_place_without_a_module(self):
        """nn.Module.register_module takes None: such a place is no module, and those behind it are found."""
        model = nn.Sequential()
        model.register_module("empty", None)
        model.add_module("last", nn.ReLU())
        self.assertEqual(module_to_fqn(model, model.last), "last")

    def test_module_to_fqn_puts_the_prefix_first(self):
        """The argument prefix stands before the name of a descendant, and is empty unless given."""
        model = Nested()
        self.assertEqual(module_to_fqn(model, model.body.last, "model."), "model.body.last")
        self.assertEqual(module_to_fqn(model, model.first, prefix="."), ".first")

    def test_fqn_to_module(self):
        """Docstring: similar to model.get_submodule(path), for every submodule, the root included."""
        model = Nested()
        for fqn, module in model.named_modules():
            with self.subTest(fqn=fqn):
                self.assertIs(fqn_to_module(model, fqn), module)
                self.assertEqual(module_to_fqn(model, fqn_to_module(model, fqn)), fqn)

    def test_fqn_to_module_fail(self):
        """Docstring: None if the path does not correspond to anything, wherever it leaves the model; None has no modules."""
        model = Nested()
        for path in ("second", "first.0", "body.inner.2", "nothing.at.all", ".first", "first.", "first..weight"):
            with self.subTest(path=path):
                self.assertIsNone(fqn_to_module(model, path))
        self.assertIsNone(fqn_to_module(None, "first"))
        self.assertIsNone(fqn_to_module(None, ""))

    def test_fqn_to_module_for_tensors(self):
        """Docstring: works for tensors: parameters, buffers and tensors under a parametrization."""
        model = Nested()
        model.body.register_buffer("level", torch.tensor(0.5))
        parametrize.register_parametrization(model.first, "weight", FakeSparsity(torch.zeros(6, 4)))
        for fqn, tensor in (*model.named_parameters(), *model.named_buffers()):
            with self.subTest(fqn=fqn):
                self.assertIs(fqn_to_module(model, fqn), tensor)
        self.assertEqual(fqn_to_module(model, "first.weight"), torch.zeros(6, 4))

    @known_defect("fqn-to-module-returns-what-is-no-module")
    def test_fqn_to_module_finds_nothing_but_modules_and_tensors(self):
        """Docstring: the corresponding module or tensor, or None: a method, a flag or a size is neither."""
        for path in ("first.in_features", "first.forward", "training", "body.inner.0.weight.shape"):
            with self.subTest(path=path):
                self.assertIsNone(fqn_to_module(Nested(), path), msg=f"{path} is neither a module nor a tensor")

    def test_get_arg_info_from_tensor_fqn(self):
        """Docstring and comments: module, its fqn and the tensor's name, split at the last dot, also where parts repeat."""
        model = Nested()
        model.weight = linear(torch.ones(1, 1))
        model.weight.inner = nn.ModuleDict({"weight": linear(torch.ones(1, 1), bias=True)})
        for tensor_fqn, module_fqn, tensor_name in (
            ("first.weight", "first", "weight"),
            ("body.inner.0.bias", "body.inner.0", "bias"),
            ("first", "", "first"),
            ("weight.weight", "weight", "weight"),
            ("weight.inner.weight.bias", "weight.inner.weight", "bias"),
            ("weight.inner.weight.weight", "weight.inner.weight", "weight"),
        ):
            with self.subTest(tensor_fqn=tensor_fqn):
                info = get_arg_info_from_tensor_fqn(model, tensor_fqn)
                self.assertEqual(sorted(info), ["module", "module_fqn", "tensor_fqn", "tensor_name"])
                self.assertIs(info["module"], model.get_submodule(module_fqn))
                self.assertEqual((info["module_fqn"], info["tensor_name"], info["tensor_fqn"]), (module_fqn, tensor_name, tensor_fqn))
        self.assertIs(get_arg_info_from_tensor_fqn(model.first, "weight")["module"], model.first)

    def test_get_arg_info_from_tensor_fqn_fail(self):
        """A tensor of a module that is not there has the module None; the names are those of the request all the same."""
        for tensor_fqn, module_fqn, tensor_name in (("nothing.weight", "nothing", "weight"), ("first.x.y", "first.x", "y")):
            with self.subTest(tensor_fqn=tensor_fqn):
                self.assertEqual(
                    get_arg_info_from_tensor_fqn(Nested(), tensor_fqn),
                    {"module": None, "module_fqn": module_fqn, "tensor_name": tensor_name, "tensor_fqn": tensor_fqn},
                )

    def test_module_contains_param_looks_at_every_tensor(self):
        """Comment: whether any of the module's tensors has a parametrization that matches; its submodules do not count."""
        layer = linear(torch.ones(2, 2), bias=True)
        self.assertIs(module_contains_param(layer, FakeSparsity), False)
        parametrize.register_parametrization(layer, "bias", nn.Identity())
        self.assertIs(module_contains_param(layer, FakeSparsity), False)
        self.assertIs(module_contains_param(layer, nn.Identity), True)
        parametrize.register_parametrization(layer, "weight", nn.Identity())
        parametrize.register_parametrization(layer, "weight", FakeSparsity(torch.ones(2, 2)))
        self.assertIs(module_contains_param(layer, FakeSparsity), True)
        self.assertIs(module_contains_param(layer, nn.Identity), True)
        self.assertIs(module_contains_param(nn.Sequential(layer), FakeSparsity), False)

    def test_module_contains_param_of_a_derived_class(self):
        """Comment: a parametrization that matches: one of a class derived from the given one does, not one of its base class."""
        own = type("Own", (FakeSparsity,), {})
        for kind, asked, expected in ((own, FakeSparsity, True), (own, own, True), (FakeSparsity, own, False)):
            layer = linear(torch.ones(2, 2))
            parametrize.register_parametrization(layer, "weight", kind(torch.ones(2, 2)))
            self.assertIs(module_contains_param(layer, asked), expected, msg=f"{kind.__name__} for {asked.__name__}")

    def test_mappings_lead_from_linear_to_the_sparse_layers(self):
        """Their names: the target of nn.Linear is the static, or the dynamic, sparse quantized Linear; each call a new dict."""
        from torch.ao.nn.sparse import quantized

        for mapping, target in (
            (get_static_sparse_quantized_mapping, quantized.Linear),
            (get_dynamic_sparse_quantized_mapping, quantized.dynamic.Linear),
        ):
            with self.subTest(mapping.__name__):
                self.assertEqual(mapping(), {nn.Linear: target})
                self.assertIsNot(mapping(), mapping())

    def test_swap_module_makes_the_target_from_the_module(self):
        """Docstring: the module that mapping names, made by from_dense of the given one; without an entry the given one."""
        plain = linear(torch.ones(2, 2))
        masked = linear(torch.ones(2, 2))
        parametrize.register_parametrization(masked, "weight", FakeSparsity(torch.ones(2, 2)))
        for name, module in (("plain", plain), ("parametrized", masked)):
            with self.subTest(name):
                swapped = swap_module(module, {nn.Linear: FromDense})
                self.assertIs(type(swapped), FromDense)
                self.assertIs(swapped.made_from[0], module)
        self.assertIs(swap_module(plain, {nn.Conv2d: FromDense}), plain)
        self.assertIs(swap_module(plain, {}), plain)

    def test_swap_module_draws_no_random_numbers(self):
        """The module and the mapping decide alone: whoever seeds before a swap finds the same numbers after it."""
        module, random = linear(torch.ones(2, 2)), torch.get_rng_state()
        swap_module(module, {nn.Linear: FromDense})
        self.assertTrue(torch.equal(torch.get_rng_state(), random), "random numbers were drawn")

    def test_swap_module_leaves_the_mode_that_from_dense_chose(self):
        """Docstring: the module is "created using from_dense": it stays in the mode that it comes out of it in, whatever the old one's."""
        for chosen in (True, False):
            target = type("Target", (FromDense,), {"from_dense": classmethod(lambda cls, dense: cls(dense).train(chosen))})
            for training in (True, False):
                swapped = swap_module(linear(torch.ones(2, 2)).train(training), {nn.Linear: target})
                self.assertIs(swapped.training, chosen, msg=f"of a module whose training is {training}")

    def test_swap_module_keeps_forward_hooks(self):
        """Comments: the module's pre and post forward hooks are preserved, in their order."""
        calls = []
        module = linear(torch.ones(2, 2))
        module.register_forward_pre_hook(lambda module, args: calls.append(("before", args[0].tolist())) or (args[0] + 1,))
        module.register_forward_pre_hook(lambda module, args: calls.append(("then", args[0].tolist())))
        module.register_forward_hook(lambda module, args, output: calls.append(("after", output.tolist())) or output * 10)
        module.register_forward_hook(lambda module, args, output: calls.append(("last", output.tolist())))
        swapped = swap_module(module, {nn.Linear: FromDense})
        self.assertEqual(swapped(torch.tensor([3.0])).tolist(), [40.0])
        self.assertEqual(calls, [("before", [3.0]), ("then", [4.0]), ("after", [4.0]), ("last", [40.0])])
        self.assertEqual((len(module._forward_pre_hooks), len(module._forward_hooks)), (2, 2), "hooks of the given module")

    def test_swap_module_keeps_the_hooks_of_the_new_module(self):
        """Docstring: "created using from_dense": hooks that this registered are called, before those that are preserved."""
        calls = []

        def hook(module, call):
            module.register_forward_pre_hook(lambda *args: calls.append(f"{call} before"))
            module.register_forward_hook(lambda *args: calls.append(f"{call} after"))
            return module

        target = type("Target", (FromDense,), {"from_dense": classmethod(lambda cls, dense: hook(cls(dense), "new"))})
        swap_module(hook(linear(torch.ones(2, 2)), "old"), {nn.Linear: target})(torch.ones(1))
        self.assertEqual(calls, ["new before", "old before", "new after", "old after"])

    @known_defect("swapped-module-breaks-hooks-with-kwargs")
    def test_swap_module_keeps_hooks_with_kwargs(self):
        """Comment: hooks are preserved; one registered with_kwargs=True is called with the keyword arguments."""
        seen = []
        module = linear(torch.ones(2, 2))
        module.register_forward_hook(lambda module, args, kwargs, output: seen.append(kwargs), with_kwargs=True)
        swap_module(module, {nn.Linear: FromDense})(torch.ones(1), factor=3)
        self.assertEqual(seen, [{"factor": 3}])

    @known_defect("swapped-module-breaks-pre-hooks-with-kwargs")
    def test_swap_module_keeps_pre_hooks_with_kwargs(self):
        """Comment: pre hooks are preserved; one registered with_kwargs=True is called with the keyword arguments."""
        seen = []
        module = linear(torch.ones(2, 2))
        module.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
        swap_module(module, {nn.Linear: FromDense})(torch.ones(1), factor=3)
        self.assertEqual(seen, [{"factor": 3}])

    @known_defect("swapped-module-forgets-always-call")
    def test_swap_module_keeps_hooks_that_are_always_called(self):
        """Comment: hooks are preserved; one registered always_call=True runs although forward raises."""
        calls = []
        module = linear(torch.ones(2, 2))
        module.register_forward_hook(lambda *args: calls.append("called"), always_call=True)
        swapped = swap_module(module, {nn.Linear: FromDense})
        with self.assertRaises(TypeError):
            swapped("no tensor", factor=torch.ones)
        self.assertEqual(f"calls {calls}", "calls ['called']")

    @on_every_device
    def test_swap_module_respects_the_device(self, device):
        """Comment: respect device affinity: the new module lies where parameters and buffers of the old one do."""
        for module in (linear(torch.ones(2, 2)), nn.BatchNorm1d(2, affine=False)):
            with self.subTest(type(module).__name__):
                module.to(device)
                self.assertEqual(swap_module(module, {type(module): FromDense}).scale.device.type, device)
                module.to("meta")
                self.assertEqual(swap_module(module, {type(module): FromDense}).scale.device.type, "meta")

    def test_swap_module_leaves_a_module_without_tensors(self):
        """A module without parameters and buffers has no device to respect."""
        self.assertEqual(swap_module(nn.ReLU(), {nn.ReLU: FromDense}).scale.device.type, "cpu")

    def test_swap_module_refuses_several_devices(self):
        """Message: swap_module works with modules on a single device; the refusal names the devices."""
        for kind in ("parameter", "buffer"):
            with self.subTest(kind):
                module = linear(torch.ones(2, 2), bias=True)
                if kind == "parameter":
                    module.bias = nn.Parameter(torch.ones(2, device="meta"))
                else:
                    module.register_buffer("level", torch.ones(2, device="meta"))
                with self.assertRaisesRegex(AssertionError, "cpu.*meta|meta.*cpu"):
                    swap_module(module, {nn.Linear: FromDense})
