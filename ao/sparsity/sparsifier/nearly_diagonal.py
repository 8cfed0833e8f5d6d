"""NearlyDiagonalSparsifier: masks by the distance from the diagonal."""

from ao.sparsity.testing.base import TestCase, on_every_device  # first: it asks whether there is a torch to validate

import torch
from torch.nn.utils import parametrize
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize as over, subtest

from ao.sparsity.testing import contracts
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.linear import chain, distinct_weight
from ao.sparsity.testing.oracles.masks import nearly_diagonal_mask
from ao.sparsity.testing.sparsifiers import Negate, mask_of, masks_on, prepared

from torch.ao.pruning import NearlyDiagonalSparsifier


@instantiate_parametrized_tests
@contracts.hold_for("nearly_diagonal")
class TestNearlyDiagonalSparsifier(TestCase):
    def test_constructor(self):
        """Signature: the degree of nearliness is 1 unless given."""
        self.assertEqual(NearlyDiagonalSparsifier().defaults, {"nearliness": 1})
        self.assertEqual(NearlyDiagonalSparsifier(5).defaults, {"nearliness": 5})
        sparsifier = NearlyDiagonalSparsifier(nearliness=3)
        self.assertEqual((sparsifier.defaults, sparsifier.groups, sparsifier.enable_mask_update), ({"nearliness": 3}, [], True))

    def test_step(self):
        """Class docstring: the matrices drawn there for degrees 3 and 5, and the main diagonal for degree 1."""
        for nearliness, expected in (
            (1, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            (3, [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]),
            (5, [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]),
        ):
            with self.subTest(nearliness=nearliness):
                weight = distinct_weight(4, 4)
                model, sparsifier = prepared(NearlyDiagonalSparsifier(nearliness), weight)
                mask = mask_of(model[0])
                for _ in range(2):
                    sparsifier.step()
                    self.assertIs(mask_of(model[0]), mask)
                    self.assertEqual(mask, torch.tensor(expected).float())
                    self.assertEqual(model[0].weight, weight * torch.tensor(expected))

    def test_step_with_a_parametrization_that_came_later(self):
        """Parametrizations chain: one that is registered after prepare() leaves step() its mask."""
        model, sparsifier = prepared(NearlyDiagonalSparsifier(), torch.ones(2, 2))
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier.step()
        self.assertEqual(mask_of(model[0]).tolist(), [[1, 0], [0, 1]])

    @over("shape", [subtest(shape, name="{}_x_{}".format(*shape)) for shape in ((4, 4), (3, 7), (7, 3), (1, 5), (5, 1), (1, 1), (2, 2))])
    def test_sparsity_levels(self, shape):
        """Class docstring and messages: odd degrees keep that many diagonals; none if <= 0; even and too large ones are refused."""
        dtype = torch.bfloat16 if shape[0] > shape[1] else torch.float32
        model, sparsifier = prepared(NearlyDiagonalSparsifier(), distinct_weight(*shape, dtype=dtype))
        for nearliness in range(-2, 12):
            with self.subTest(nearliness=nearliness):
                sparsifier.groups[0]["nearliness"] = nearliness
                if nearliness > 0 and nearliness % 2 == 0:
                    with self.assertRaisesRegex(ValueError, "odd"):
                        sparsifier.step()
                elif nearliness > 0 and nearliness // 2 >= min(shape):
                    with self.assertRaisesRegex(ValueError, "larger than the dimensions"):
                        sparsifier.step()
                else:
                    sparsifier.step()
                    expected = torch.from_numpy(nearly_diagonal_mask(shape, nearliness)).to(dtype)
                    self.assertEqual(mask_of(model[0]), expected, rtol=0, atol=0)

    def test_step_computes_the_mask_anew(self):
        """Nothing changed is no reason to leave out an update: a mask that somebody overwrote is right after the next step."""
        model, sparsifier = prepared(NearlyDiagonalSparsifier(3), torch.ones(4, 5))
        for wrong in (0, 1):
            mask_of(model[0]).fill_(wrong)
            sparsifier.step()
            self.assertEqual(mask_of(model[0]), torch.from_numpy(nearly_diagonal_mask((4, 5), 3)).float())

    def test_nearliness_may_change_between_steps(self):
        """The groups' nearliness counts at each step, in both directions."""
        model, sparsifier = prepared(NearlyDiagonalSparsifier(), torch.ones(4, 5))
        for nearliness in (3, 1, 5, 0, 7):
            sparsifier.groups[0]["nearliness"] = nearliness
            sparsifier.step()
            self.assertEqual(mask_of(model[0]), torch.from_numpy(nearly_diagonal_mask((4, 5), nearliness)).float())

    @known_defect("refused-nearliness-zeroes-the-mask")
    def test_refused_nearliness_leaves_the_mask(self):
        """A step() that raises ValueError has not changed the mask."""
        model, sparsifier = prepared(NearlyDiagonalSparsifier(2), torch.ones(4, 4))
        with self.assertRaises(ValueError):
            sparsifier.step()
        self.assertEqual(f"mask of {mask_of(model[0]).sum().item():.0f} ones", "mask of 16 ones")

    def test_prepare(self):
        """A layer's config overrides the constructor's degree; until step() nothing is masked."""
        model, sparsifier = chain(torch.ones(4, 5), torch.ones(3, 4)), NearlyDiagonalSparsifier(1)
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "1.weight", "nearliness": 3}])
        for layer in model:
            self.assertEqual(masks_on(layer), 1)
            self.assertEqual(layer.weight, torch.ones(layer.weight.shape))
        sparsifier.step()
        self.assertEqual(mask_of(model[0]), torch.from_numpy(nearly_diagonal_mask((4, 5), 1)).float())
        self.assertEqual(mask_of(model[1]), torch.from_numpy(nearly_diagonal_mask((3, 4), 3)).float())

    def test_mask_squash(self):
        """squash_mask: what is off the diagonals is zero in the weight, the rest as it was; the degree can be kept."""
        weight = distinct_weight(4, 4)
        model, sparsifier = prepared(NearlyDiagonalSparsifier(3), weight)
        sparsifier.step()
        sparsifier.squash_mask(params_to_keep=("nearliness",))
        self.assertFalse(parametrize.is_parametrized(model[0]))
        self.assertEqual(model[0].weight.detach(), weight * torch.from_numpy(nearly_diagonal_mask((4, 4), 3)).float())
        self.assertEqual(model[0].sparse_params, {"nearliness": 3})

    @on_every_device
    def test_mask_stays_on_its_device(self, device):
        """The mask lies where the weight does, whatever the default device is."""
        model, sparsifier = prepared(NearlyDiagonalSparsifier(3), torch.ones(3, 3, device=device))
        with torch.device("meta"):
            sparsifier.step()
        self.assertEqual(mask_of(model[0]).device.type, device)
        self.assertEqual(mask_of(model[0]).cpu(), torch.from_numpy(nearly_diagonal_mask((3, 3), 3)).float())

    @known_defect("nearly-diagonal-in-inference-mode-breaks-training")
    def test_step_in_inference_mode_allows_training(self):
        """FakeSparsity's Note: the mask's contents change; so step() may be called in torch.inference_mode between trainings."""
        for nearliness, kept in ((1, torch.eye(3)), (0, torch.zeros(3, 3))):
            with self.subTest(nearliness=nearliness):
                model, sparsifier = prepared(NearlyDiagonalSparsifier(nearliness), torch.ones(3, 3))
                with torch.inference_mode():
                    sparsifier.step()
                model(torch.ones(1, 3)).sum().backward()
                self.assertEqual(model[0].parametrizations.weight.original.grad, kept)

    @known_defect("nearly-diagonal-takes-the-mask-out-of-shared-memory")
    def test_step_writes_into_shared_memory(self):
        """FakeSparsity's Note: the mask's contents change; a model in shared memory (Module.share_memory) stays there."""
        self.skip_without_shared_memory()
        for nearliness in (1, 0):
            with self.subTest(nearliness=nearliness):
                model, sparsifier = prepared(NearlyDiagonalSparsifier(nearliness), torch.ones(3, 3))
                model.share_memory()
                sparsifier.step()
                self.assertEqual(f"shared: {mask_of(model[0]).is_shared()}", "shared: True")

    @known_defect("second-nearly-diagonal-overwrites-the-first-ones-mask")
    def test_step_leaves_the_mask_of_another_sparsifier(self):
        """Each sparsifier registers a FakeSparsity of its own, and parametrizations chain: step() changes only its own mask."""
        model, first = prepared(NearlyDiagonalSparsifier(1), torch.ones(3, 3))
        first.step()
        second = NearlyDiagonalSparsifier(3)
        second.prepare(model, [{"tensor_fqn": "0.weight"}])
        second.step()
        self.assertEqual(f"weight {model[0].weight.tolist()}", f"weight {torch.eye(3).tolist()}")

    @known_defect("nearly-diagonal-crashes-behind-another-parametrization")
    def test_step_behind_another_parametrization(self):
        """load_state_dict searches the FakeSparsity among the tensor's parametrizations; so does step()."""
        model, sparsifier = chain(torch.ones(2, 2)), NearlyDiagonalSparsifier()
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        sparsifier.step()
        self.assertEqual(model[0].weight, -torch.eye(2))
