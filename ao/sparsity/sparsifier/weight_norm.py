"""WeightNormSparsifier: masks by the norm of blocks."""

import copy
import itertools
import warnings

from ao.sparsity.testing.base import TestCase, on_every_device  # first: it asks whether there is a torch to validate

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize as over, subtest

from ao.sparsity.testing import contracts
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.linear import chain, distinct_weight
from ao.sparsity.testing.oracles.masks import blocks_to_prune, weight_norm_mask
from ao.sparsity.testing.sparsifiers import Negate, mask_of, masks_on, prepared

from torch.ao.pruning import WeightNormSparsifier


def counts_in(dtype):
    """Whether this build averages and sorts ``dtype`` on the CPU, as pruning by norms needs."""
    try:
        torch.nn.functional.avg_pool2d(torch.ones(1, 1, 2, 2, dtype=dtype), 2).flatten().topk(1)
    except RuntimeError:
        return False
    return True


@instantiate_parametrized_tests
@contracts.hold_for("weight_norm_1_x_4", "weight_norm_4_x_3_l1", "weight_norm_2_of_4")
class TestWeightNormSparsifier(TestCase):
    def _mask(self, weight, *arguments, **keywords):
        """Mask that WeightNormSparsifier(*arguments, **keywords) gives ``weight`` in one step."""
        model, sparsifier = prepared(WeightNormSparsifier(*arguments, **keywords), torch.as_tensor(weight))
        sparsifier.step()
        self.assertTrue(mask_of(model[0]).is_contiguous())
        return mask_of(model[0])

    def test_constructor(self):
        """Signature and class docstring: level 0.5, blocks 1 x 4, all elements of a block, each of them overridable."""
        for arguments, level, block, zeros in (
            ((), 0.5, (1, 4), {4, None}),
            ((0.8,), 0.8, (1, 4), {4, None}),
            ((0.8, (2, 3)), 0.8, (2, 3), {6, None}),
            ((0.8, (2, 3), 1), 0.8, (2, 3), {1}),
            ((0.8, (2, 3), 0), 0.8, (2, 3), {0}),
        ):
            with self.subTest(arguments):
                defaults = WeightNormSparsifier(*arguments).defaults
                self.assertEqual((defaults["sparsity_level"], defaults["sparse_block_shape"]), (level, block))
                self.assertIn(defaults["zeros_per_block"], zeros)
        sparsifier = WeightNormSparsifier(norm=1)
        self.assertIs(sparsifier.enable_mask_update, True)
        self.assertEqual(sparsifier.groups, [])

    def test_constructor_refuses_other_norms(self):
        """Class docstring: the norm is a callable, or an int of which only L1 and L2 are implemented."""
        for norm in (0, 3, -1, 1.5, "1", "2", float("inf")):
            with self.subTest(norm=norm), self.assertRaisesRegex(NotImplementedError, f"L-{norm}"):
                WeightNormSparsifier(norm=norm)

    @over("norm", [None, 1, 2, subtest(lambda t: -t.abs(), name="callable")])
    def test_norm(self, norm):
        """Class docstring: L1, L2 (the default) or any callable decides which blocks have the lowest norm."""
        oracle_norm = (lambda values: -abs(values)) if callable(norm) else norm or 2
        for weight in ([[0.0, 5.0, 3.0, 3.0]], [[0.0, -5.0, -3.0, -3.0]], [[-4.0, 1.0, 2.0, 1.0]]):
            with self.subTest(weight=weight):
                mask = self._mask(weight, 0.5, (1, 2), norm=norm)
                self.assertEqual(mask, torch.from_numpy(weight_norm_mask(weight, 0.5, (1, 2), norm=oracle_norm)).float())

    def test_norm_is_the_given_object(self):
        """Class docstring: the norm may be any callable: an object with a state is called itself, once a step and tensor."""

        class Counting:
            calls = 0

            def __call__(self, weight):
                self.calls += 1
                return weight.abs()

        norm = Counting()
        self._mask([[1.0, 2.0]], 0.5, (1, 1), norm=norm)
        self.assertEqual(norm.calls, 1)

    def test_norm_may_rank_by_whole_numbers(self):
        """Class docstring: the norm may be any callable: of blocks of one element, those with the lowest ranks go."""
        mask = self._mask([[3.0, -1.0, 4.0, -2.0]], 0.5, (1, 1), norm=lambda weight: weight.abs().argsort().argsort().int())
        self.assertEqual(mask.int().tolist(), [[1, 0, 1, 0]])

    @over("zeros", [None, 1, 2])
    def test_step(self, zeros):
        """Class docstring: the blocks with the lowest norm lose all, or the zeros_per_block smallest, of their elements."""
        shapes = [(4, 8), (12, 1)] if zeros else [(4, 8), (3, 5), (7, 2), (1, 6), (1, 1)]
        for shape in shapes:
            weight = distinct_weight(*shape)
            model, sparsifier = prepared(WeightNormSparsifier(), weight)
            for block, level in itertools.product([(1, 1), (1, 4), (4, 1), (2, 3), (2, 2)], (0.3, 0.5)):
                size = block[0] * block[1]
                if zeros is not None and (zeros > size or shape[0] % block[0] or shape[1] % block[1]):
                    continue
                arguments = {"sparsity_level": level, "sparse_block_shape": block, "zeros_per_block": zeros or size}
                with self.subTest(shape=shape, **arguments):
                    mask = mask_of(model[0])
                    mask.data = torch.ones(shape)
                    sparsifier.groups[0].update(arguments)
                    sparsifier.step()
                    expected = torch.from_numpy(weight_norm_mask(weight.numpy(), level, block, zeros))
                    self.assertEqual(mask.double(), expected, rtol=0, atol=0)
                    self.assertTrue(mask.is_contiguous())

    @over("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_step_in_every_dtype(self, dtype):
        """The mask depends on the values alone: the same for the same weight in any floating point dtype."""
        if not counts_in(dtype):
            self.skipTest(f"norms in {dtype} (no such CPU kernels)")
        weight = distinct_weight(3, 5)
        for block, zeros in (((1, 1), None), ((1, 5), 2), ((3, 1), None)):
            with self.subTest(block=block):
                expected = weight_norm_mask(weight.numpy(), 0.5, block, zeros)
                self.assertEqual(self._mask(weight.to(dtype), 0.5, block, zeros).float(), torch.from_numpy(expected).float())

    def test_step_in_double_precision(self):
        """The mask depends on the values alone: also on differences that only float64 holds."""
        weight = 1 + torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64) * 2**-40
        for each, expected in ((weight, [0, 0, 1, 1]), (weight.flip(1), [1, 1, 0, 0])):
            for arguments in ((0.5, (1, 1)), (1.0, (1, 4), 2)):
                for norm in (1, 2):
                    with self.subTest(arguments, norm=norm, expected=expected):
                        self.assertEqual(self._mask(each, *arguments, norm=norm).int().tolist(), [expected])

    def test_step_on_weights_that_are_not_contiguous(self):
        """The mask depends on the values alone: the same for a transposed or strided weight, with blocks of one element too."""
        weight = distinct_weight(4, 6)
        strided = torch.zeros(8, 12)[::2, ::2].copy_(weight)
        for block in ((2, 2), (1, 1)):
            expected = torch.from_numpy(weight_norm_mask(weight.numpy(), 0.5, block)).float()
            for name, same in (("transposed", weight.T.contiguous().T), ("strided", strided)):
                with self.subTest(name, block=block):
                    model = chain(weight)
                    model[0].weight = nn.Parameter(same)
                    self.assertFalse(model[0].weight.is_contiguous())
                    sparsifier = WeightNormSparsifier(0.5, block)
                    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
                    sparsifier.step()
                    self.assertEqual(mask_of(model[0]), expected)

    def test_step_accepts_a_list_as_block_shape(self):
        """A block shape read from JSON, a list, means the same as a tuple."""
        weight = distinct_weight(4, 4)
        for zeros in (None, 1):
            self.assertEqual(self._mask(weight, 0.5, [2, 2], zeros), self._mask(weight, 0.5, (2, 2), zeros))

    def test_step_on_equal_norms_prunes_whole_blocks(self):
        """Among blocks of equal norm any may go, but as many as the level asks for, and each as a whole."""
        for block, level in itertools.product(((1, 1), (1, 4), (2, 2), (4, 1)), (0.25, 0.5, 0.75)):
            with self.subTest(block=block, level=level):
                mask = self._mask(torch.ones(4, 8), level, block)
                tiles = mask.unfold(0, block[0], block[0]).unfold(1, block[1], block[1]).flatten(0, 1).flatten(1)
                self.assertEqual(sorted({tuple(tile) for tile in tiles.tolist()}), [(0.0,) * tiles.shape[1], (1.0,) * tiles.shape[1]])
                self.assertEqual((tiles[:, 0] == 0).sum().item(), round(level * len(tiles)))

    def test_step_on_equal_elements_zeroes_the_right_number(self):
        """Among equal elements of a block any may go, but zeros_per_block of them in each pruned block."""
        for zeros in (1, 2, 3):
            self.assertEqual((self._mask(torch.ones(4, 8), 1.0, (1, 4), zeros) == 0).reshape(-1, 4).sum(1).tolist(), [zeros] * 8)

    def test_step_2_of_4(self):
        """Class docstring: zeros_per_block=2 with blocks 1 x 4 and level 1: the two smallest absolute values of each four go."""
        weight = [[1.0, -8.0, 3.0, -4.0, 8.0, 7.0, -6.0, 5.0], [-2.0, 2.5, 0.0, 1.0, 4.0, -3.0, 2.0, -1.0]]
        expected = [[0, 1, 0, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 1, 0, 0]]
        for norm in (1, 2, None):
            with self.subTest(norm=norm):
                model, sparsifier = prepared(WeightNormSparsifier(1.0, (1, 4), 2, norm), torch.tensor(weight))
                for _ in range(2):
                    sparsifier.step()
                    self.assertEqual(mask_of(model[0]).int().tolist(), expected)
                    self.assertEqual(model[0].weight, torch.tensor(weight) * torch.tensor(expected))

    @over("zeros", [None, 0, 1, 4])
    def test_sparsity_levels(self, zeros):
        """Class docstring: the level is the share of blocks that are zeroed out: none up to 0, all from 1, else the nearest number."""
        weight = distinct_weight(4, 8)
        for level in (-1, 0, 0.01, 0.0625, 0.1, 0.5, 0.56, 0.9, 0.99, 0.9999, 1, 1.0, 1.5):
            with self.subTest(level=level):
                mask = self._mask(weight, level, (1, 4), zeros)
                self.assertEqual((mask == 0).sum().item(), blocks_to_prune(level, 8) * (4 if zeros is None else zeros))

    def test_no_zeros_per_block_prunes_nothing_of_any_shape(self):
        """zeros_per_block 0, as level 0, asks for no block: also a vector and the weight of a convolution are kept whole."""
        for shape in ((3,), (2, 3, 3, 3)):
            for level, zeros in ((0.5, 0), (0, 4)):
                with self.subTest(shape=shape, level=level, zeros=zeros):
                    model = nn.Module()
                    model.weight = nn.Parameter(torch.ones(shape))
                    sparsifier = WeightNormSparsifier(level, zeros_per_block=zeros)
                    sparsifier.prepare(model, [{"tensor_fqn": "weight"}])
                    mask_of(model).fill_(0)
                    sparsifier.step()
                    self.assertEqual(model.weight.detach(), torch.ones(shape))

    def test_update_mask_while_gradients_are_recorded(self):
        """update_mask is public: called outside step(), where autograd records, it gives the same mask."""
        weight = distinct_weight(4, 8)
        for zeros in (4, 2):
            with self.subTest(zeros=zeros):
                model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 4), zeros), weight)
                sparsifier.update_mask(**sparsifier.groups[0])
                self.assertEqual(
                    mask_of(model[0]).double(), torch.from_numpy(weight_norm_mask(weight.numpy(), 0.5, (1, 4), zeros)).double()
                )

    def test_step_with_a_parametrization_that_came_later(self):
        """Parametrizations chain: one that is registered after prepare() leaves step() its mask."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        parametrize.register_parametrization(model[0], "weight", Negate())
        sparsifier.step()
        self.assertEqual(mask_of(model[0]).tolist(), [[0, 0, 1, 1]])

    def test_level_may_change_between_steps(self):
        """The groups' sparsity_level counts at each step: raised, the zeros grow and contain the former ones; 0 frees all."""
        weight = distinct_weight(4, 8)
        for zeros in (None, 2):
            with self.subTest(zeros=zeros):
                model, sparsifier = prepared(WeightNormSparsifier(0.25, (1, 4), zeros), weight)
                for level in (0.25, 0.5, 0.75, 1.0, 0.0, 0.5):
                    sparsifier.groups[0]["sparsity_level"] = level
                    sparsifier.step()
                    expected = torch.from_numpy(weight_norm_mask(weight.numpy(), level, (1, 4), zeros)).float()
                    self.assertEqual(mask_of(model[0]).float(), expected)

    @over("zeros", [None, 2])
    def test_lowered_level_leaves_fewer_zeros(self, zeros):
        """Class docstring: the level is the share of blocks that are zeroed out, also when it falls: whichever go, so many do."""
        model, sparsifier = prepared(WeightNormSparsifier(0.25, (1, 4), zeros), distinct_weight(4, 8))
        for level in (0.25, 0.75, 0.5, 0.25, 1.0, 0.125, 0.875, 0.0, 0.5, 0.375):
            sparsifier.groups[0]["sparsity_level"] = level
            sparsifier.step()
            pruned = (mask_of(model[0]) == 0).reshape(-1, 4).sum(1)
            expected = [zeros or 4] * blocks_to_prune(level, 8)
            self.assertEqual(sorted(filter(None, pruned.tolist())), expected, msg=f"zeros in the pruned blocks at level {level}")

    def test_every_block_may_be_freed_again(self):
        """A new mask replaces the former: after a step at any level, level 0 keeps all, and a full mask leaves room for a smaller one."""
        for block, zeros in (((1, 1), None), ((1, 4), None), ((1, 4), 1), ((2, 2), None)):
            with self.subTest(block=block, zeros=zeros):
                weight = distinct_weight(4, 8)
                model, sparsifier = prepared(WeightNormSparsifier(1.0, block, zeros), weight)
                sparsifier.step()
                sparsifier.groups[0]["sparsity_level"] = 0.0
                sparsifier.step()
                self.assertEqual(mask_of(model[0]).float(), torch.ones(4, 8))
                sparsifier.groups[0]["sparsity_level"] = 0.5
                sparsifier.step()
                self.assertEqual(mask_of(model[0]).float(), torch.from_numpy(weight_norm_mask(weight.numpy(), 0.5, block, zeros)).float())

    @known_defect("weight-norm-frees-the-wrong-blocks")
    def test_level_may_be_lowered_between_steps(self):
        """Class docstring: the blocks with the lowest norm are zeroed out: at a lower level the smallest stay pruned."""
        falling, rising = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]
        for weight, expected in ((falling, [*falling[:6], 0.0, 0.0]), (rising, [0.0, *rising[1:]])):
            with self.subTest(weight=weight):
                model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.tensor([weight]))
                sparsifier.step()
                sparsifier.groups[0]["sparsity_level"] = 0.25
                sparsifier.step()
                kept = model[0].weight[0]
                self.assertEqual(f"kept {kept.tolist()}", f"kept {expected}")

    def test_step_follows_the_weight(self):
        """The mask is computed anew from the weight at each step: what has become the smallest goes."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        sparsifier.step()
        self.assertEqual(mask_of(model[0]).tolist(), [[0, 0, 1, 1]])
        sparsifier.groups[0]["sparsity_level"] = 0
        sparsifier.step()
        with torch.no_grad():
            model[0].parametrizations.weight.original.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
        sparsifier.groups[0]["sparsity_level"] = 0.5
        sparsifier.step()
        self.assertEqual(mask_of(model[0]).tolist(), [[1, 1, 0, 0]])

    @known_defect("weight-norm-never-frees-a-pruned-block")
    def test_step_follows_the_weight_at_one_level(self):
        """Class docstring: the blocks with the lowest norm go: at each step, of the weight that is trained, as with DataNormSparsifier."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        sparsifier.step()
        with torch.no_grad():
            model[0].parametrizations.weight.original.copy_(torch.tensor([[9.0, 8.0, 3.0, 4.0]]))
        sparsifier.step()
        self.assertEqual(f"{mask_of(model[0]).tolist()}", "[[1.0, 1.0, 0.0, 0.0]]")

    def test_step_computes_the_mask_anew(self):
        """Nothing changed is no reason to leave out an update: a mask that somebody overwrote is right after the next step."""
        for block, zeros, level in (((1, 4), None, 0.5), ((1, 4), 2, 0.5), ((1, 1), None, 0.0), ((1, 1), None, 1.0)):
            with self.subTest(block=block, zeros=zeros, level=level):
                weight = distinct_weight(4, 8)
                model, sparsifier = prepared(WeightNormSparsifier(level, block, zeros), weight)
                expected = torch.from_numpy(weight_norm_mask(weight.numpy(), level, block, zeros)).float()
                for wrong in (1 - expected, torch.ones(4, 8)):
                    mask_of(model[0]).data = wrong if level in (0.0, 1.0) else torch.ones(4, 8)
                    sparsifier.step()
                    self.assertEqual(mask_of(model[0]).float(), expected)

    def test_mask_does_not_collapse_over_a_thousand_steps(self):
        """Class docstring: the level is the share of blocks that go: the same at each step, up to 1,000, on fresh random weights."""
        generator = torch.Generator().manual_seed(0)
        for block, zeros, steps in (((1, 4), None, 1000), ((1, 4), 2, 50), ((2, 3), None, 50)):
            with self.subTest(block=block, zeros=zeros):
                model, sparsifier = prepared(WeightNormSparsifier(0.5, block, zeros), torch.ones(4, 12))
                (holder,), original = model[0].parametrizations.weight, model[0].parametrizations.weight.original.detach()
                counts = set()
                for weight in torch.randn(steps, 4, 12, generator=generator):
                    original.copy_(weight)
                    sparsifier.step()
                    counts.add(48 - int(holder.mask.count_nonzero()))
                self.assertEqual(counts, {24 if zeros is None else 12}, msg="numbers of zeros")

    def test_step_refuses_impossible_numbers_of_zeros(self):
        """Messages: zeros_per_block is at most the number of elements of a block, and not negative; the mask stays."""
        cases = (((1, 4), 5, "more than"), ((2, 2), 5, "more than"), ((1, 1), 2, "more than"), ((1, 4), -1, "positive"))
        for (block, zeros, pattern), level in itertools.product(cases, (0.5, 0.0)):
            with self.subTest(block=block, zeros=zeros, level=level):
                model, sparsifier = prepared(WeightNormSparsifier(level, block, zeros), torch.ones(4, 4))
                with self.assertRaisesRegex(ValueError, pattern):
                    sparsifier.step()
                self.assertEqual(mask_of(model[0]), torch.ones(4, 4))

    def test_prepare(self):
        """Class docstring Note: level, block shape and zeros per block can be overridden by the config of a layer."""
        weights = [distinct_weight(4, 8, 1), distinct_weight(4, 4, 2), distinct_weight(6, 4, 3)]
        model, sparsifier = chain(*weights), WeightNormSparsifier(0.5, (1, 4))
        sparsifier.prepare(
            model,
            [
                {"tensor_fqn": "0.weight"},
                {"tensor_fqn": "1.weight", "sparsity_level": 0.25, "sparse_block_shape": (2, 2)},
                {"tensor_fqn": "2.weight", "sparsity_level": 1.0, "zeros_per_block": 1},
            ],
        )
        for layer, weight in zip(model, weights):
            self.assertEqual(masks_on(layer), 1)
            self.assertEqual(layer.weight, weight)
        sparsifier.step()
        for layer, weight, (level, block, zeros) in zip(model, weights, [(0.5, (1, 4), None), (0.25, (2, 2), None), (1, (1, 4), 1)]):
            self.assertEqual(mask_of(layer).float(), torch.from_numpy(weight_norm_mask(weight.numpy(), level, block, zeros)).float())

    @known_defect("weight-norm-ignores-the-norm-of-the-config")
    def test_prepare_overrides_the_norm(self):
        """Class docstring Note: all arguments to the constructor could be overridden by the configuration."""
        first, last = [[0.0, 0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0, 0.0]]
        for own, norm, expected in ((2, 1, first), (1, 2, last), (1, torch.neg, last)):
            model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 2), norm=own), torch.tensor([[0.0, 5.0, 3.0, 3.0]]), norm=norm)
            sparsifier.step()
            self.assertEqual(f"mask {mask_of(model[0]).tolist()}", f"mask {expected}")

    @known_defect("larger-block-of-the-config-keeps-the-former-zeros")
    def test_prepare_overrides_with_a_larger_block(self):
        """Class docstring: by default all elements within a block are zeroed out, also where the config gives the block shape."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5), distinct_weight(4, 8), sparse_block_shape=(4, 4))
        sparsifier.step()
        self.assertEqual(f"{(mask_of(model[0]) == 0).sum().item()} zeros", "16 zeros")

    @known_defect("smaller-block-of-the-config-is-refused")
    def test_prepare_overrides_with_a_smaller_block(self):
        """Class docstring: by default all elements within a block are zeroed out, also where the config gives the block shape."""
        model, sparsifier = prepared(WeightNormSparsifier(0.5), distinct_weight(4, 8), sparse_block_shape=(1, 2))
        sparsifier.step()
        self.assertEqual((mask_of(model[0]) == 0).sum().item(), 16)

    def test_mask_squash(self):
        """squash_mask: the pruned elements are zero in the weight, the others as they were; the settings can be kept."""
        weight = distinct_weight(4, 8)
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (2, 2), 4), weight)
        sparsifier.step()
        sparsifier.squash_mask(params_to_keep=("sparse_block_shape", "sparsity_level", "zeros_per_block"))
        self.assertFalse(parametrize.is_parametrized(model[0]))
        self.assertEqual(model[0].weight.detach(), weight * torch.from_numpy(weight_norm_mask(weight.numpy(), 0.5, (2, 2))).float())
        self.assertEqual(model[0].sparse_params, {"sparse_block_shape": (2, 2), "sparsity_level": 0.5, "zeros_per_block": 4})

    def test_training_keeps_the_zeros(self):
        """Training under the mask: gradients of pruned elements are zero, so the model keeps learning with the others."""
        weight = distinct_weight(2, 4)
        model, sparsifier = prepared(WeightNormSparsifier(0.5, (1, 2)), weight)
        sparsifier.step()
        mask, original = mask_of(model[0]), model[0].parametrizations.weight.original
        model(torch.ones(1, 4)).sum().backward()
        self.assertEqual(original.grad, mask)
        with torch.no_grad():
            original -= 0.1 * original.grad
        sparsifier.step()
        self.assertEqual(mask_of(model[0]), mask)
        self.assertEqual(model[0].weight.detach(), (weight - 0.1) * mask)

    @known_defect("step-in-inference-mode-breaks-training")
    def test_step_in_inference_mode_allows_training(self):
        """FakeSparsity's Note: the mask's contents change; so step() may be called in torch.inference_mode between trainings."""
        for level, expected in ((0.5, [0, 0, 1, 1]), (0, [1, 1, 1, 1]), (1, [0, 0, 0, 0])):
            with self.subTest(level=level):
                model, sparsifier = prepared(WeightNormSparsifier(level, (1, 1)), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
                with torch.inference_mode():
                    sparsifier.step()
                model(torch.ones(1, 4)).sum().backward()
                self.assertEqual(model[0].parametrizations.weight.original.grad.tolist(), [expected])

    @known_defect("step-takes-the-mask-out-of-shared-memory")
    def test_step_writes_into_shared_memory(self):
        """FakeSparsity's Note: the mask's contents change; a model in shared memory (Module.share_memory) stays there."""
        self.skip_without_shared_memory()
        for level in (0, 0.5, 1):
            with self.subTest(level=level):
                model, sparsifier = prepared(WeightNormSparsifier(level, (1, 1)), torch.ones(1, 4))
                model.share_memory()
                sparsifier.step()
                self.assertEqual(f"shared: {mask_of(model[0]).is_shared()}", "shared: True")

    @known_defect("weight-norm-l2-leaves-the-range-of-half")
    def test_step_on_small_weights_in_half_precision(self):
        """Class docstring: the blocks with the lowest norm go, whichever norm: squares of float16 below 2.4e-4 are 0 in float16."""
        if not counts_in(torch.float16):
            self.skipTest("norms in torch.float16 (no such CPU kernels)")
        weight = torch.tensor([[1e-5, 2e-5, 3e-5, 4e-5]], dtype=torch.float16)
        for each, expected in ((weight, [0, 0, 1, 1]), (weight.flip(1), [1, 1, 0, 0])):
            self.assertEqual(self._mask(each, 0.5, (1, 1), norm=1).int().tolist(), [expected])
            self.assertEqual(f"L2 {self._mask(each, 0.5, (1, 1), norm=2).int()[0].tolist()}", f"L2 {expected}")

    @known_defect("weight-norm-mask-loses-its-dtype")
    def test_mask_keeps_its_dtype(self):
        """prepare() makes the mask in the weight's dtype: a bfloat16 model still runs after step()."""
        for zeros in (None, 2):
            for dtype in (torch.bfloat16, torch.float64):
                with self.subTest(dtype=dtype, zeros=zeros):
                    mask = self._mask(torch.ones(2, 4, dtype=dtype), 0.5, (1, 4), zeros)
                    self.assertEqual(f"mask {mask.dtype}", f"mask {dtype}")

    @known_defect("ragged-zeros-per-block-crashes")
    def test_step_with_zeros_per_block_on_ragged_shapes(self):
        """Comment: the data is padded to match the block shape, as for whole blocks; the mask has the weight's shape."""
        for shape, block in (((2, 6), (1, 4)), ((3, 4), (2, 2)), ((5, 7), (2, 3))):
            with self.subTest(shape=shape, block=block):
                weight = distinct_weight(*shape)
                mask = self._mask(weight, 0.9, block, 1)
                self.assertEqual(mask.shape, weight.shape)
                rows, columns = shape[0] // block[0] * block[0], shape[1] // block[1] * block[1]
                made = WeightNormSparsifier()._make_block_mask(weight.abs(), block, 1)
                self.assertEqual((made.shape, made.is_contiguous()), (weight.shape, True))
                everywhere = weight_norm_mask(weight[:rows, :columns].numpy(), 1.0, block, 1)
                self.assertEqual(((mask[:rows, :columns] == 0) & torch.from_numpy(everywhere == 1)).sum().item(), 0)

    @known_defect("full-tensor-mask-has-the-padded-shape")
    def test_tensor_mask_of_ragged_data_has_its_shape(self):
        """_make_tensor_mask: at levels 0 and 1 the mask has the data's shape, as at those between."""
        for level, value in ((0.5, None), (1.0, 0.0), (0.0, 1.0)):
            mask = WeightNormSparsifier()._make_tensor_mask(torch.ones(3, 5), (3, 5), level, (2, 4))
            self.assertEqual(f"shape {tuple(mask.shape)}", "shape (3, 5)")
            self.assertTrue(mask.is_contiguous())
            if value is not None:
                self.assertEqual(mask, torch.full((3, 5), value))

    @known_defect("weight-norm-crashes-on-an-empty-weight")
    def test_step_on_an_empty_weight(self):
        """nn.Linear allows no inputs or no outputs: such a weight has nothing to prune, and the others are pruned."""
        for shape in ((0, 4), (4, 0)):
            with self.subTest(shape=shape):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    mask = self._mask(torch.ones(shape), 0.5, (1, 4))
                self.assertEqual(mask.shape, shape)

    @known_defect("second-sparsifier-overwrites-the-first-ones-mask")
    def test_step_leaves_the_mask_of_another_sparsifier(self):
        """Each sparsifier registers a FakeSparsity of its own, and parametrizations chain: step() changes only its own mask."""
        model, first = prepared(WeightNormSparsifier(0.5, (1, 1)), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        first.step()
        second = WeightNormSparsifier(0.0, (1, 1))
        second.prepare(model, [{"tensor_fqn": "0.weight"}])
        second.step()
        self.assertEqual(f"weight {model[0].weight.tolist()}", "weight [[0.0, 0.0, 3.0, 4.0]]")

    @known_defect("weight-norm-crashes-behind-another-parametrization")
    def test_step_behind_another_parametrization(self):
        """load_state_dict searches the FakeSparsity among the tensor's parametrizations; so does step()."""
        for sign, parametrized in (
            (-1, lambda layer: parametrize.register_parametrization(layer, "weight", Negate())),
            (1, nn.utils.parametrizations.weight_norm),
        ):
            with self.subTest(sign=sign):
                model = nn.Sequential(parametrized(chain(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))[0]))
                sparsifier = WeightNormSparsifier(0.5, (1, 1))
                sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
                sparsifier.step()
                torch.testing.assert_close(model[0].weight, sign * torch.tensor([[0.0, 0.0, 3.0, 4.0]]))

    @known_defect("copied-weight-norm-has-no-norm")
    def test_copy_keeps_the_norm(self):
        """copy.deepcopy: a copy behaves as the original; it computes masks by the same norm."""
        sparsifier = WeightNormSparsifier(0.5, (1, 2), norm=1)
        copied = copy.deepcopy(sparsifier)
        copied.enable_mask_update = True
        model, _ = prepared(copied, torch.tensor([[0.0, 5.0, 3.0, 3.0]]))
        copied.step()
        self.assertEqual(mask_of(model[0]).tolist(), [[0, 0, 1, 1]])

    @on_every_device
    def test_mask_stays_on_its_device(self, device):
        """The mask lies where the weight does, whatever the default device is; its values are those of the CPU."""
        weight = distinct_weight(4, 8)
        for block, zeros, level in (((1, 1), None, 0.5), ((2, 2), None, 0.5), ((1, 4), 2, 1.0), ((1, 4), 2, 0.5)):
            with self.subTest(block=block, zeros=zeros, level=level):
                model, sparsifier = prepared(WeightNormSparsifier(level, block, zeros), weight.to(device))
                with torch.device("meta"):
                    sparsifier.step()
                mask = mask_of(model[0])
                self.assertEqual(mask.device.type, device)
                self.assertEqual(mask.float().cpu(), torch.from_numpy(weight_norm_mask(weight.numpy(), level, block, zeros)).float())

    def test_tensor_mask_fills_a_given_mask(self):
        """_make_tensor_mask: a given mask is filled and returned, a new one is made unless given; float of the data's device."""
        data = distinct_weight(4, 6, seed=1).abs()
        make = WeightNormSparsifier()._make_tensor_mask
        for level, expected in ((-1, torch.ones(4, 6)), (0, torch.ones(4, 6)), (1, torch.zeros(4, 6)), (2, torch.zeros(4, 6)), (0.4, None)):
            with self.subTest(level=level):
                expected = torch.from_numpy(weight_norm_mask(data.numpy(), level, (2, 3), norm=1)).float() if expected is None else expected
                given = torch.ones(4, 6) if level > 0 else torch.zeros(4, 6)
                self.assertIs(make(data, data.shape, level, (2, 3), mask=given), given)
                self.assertEqual(given, expected)
                with torch.device("meta"):
                    made = make(data=data, input_shape=data.shape, sparsity_level=level, sparse_block_shape=(2, 3))
                self.assertEqual(made, expected)
                self.assertTrue(made.is_contiguous())

    def test_block_mask_fills_a_given_mask(self):
        """_make_block_mask: the smallest elements of every block; a given mask is filled and returned, else one is made."""
        data = distinct_weight(4, 6).abs()
        make = WeightNormSparsifier()._make_block_mask
        for zeros in (1, 3, 6):
            with self.subTest(zeros=zeros):
                expected = torch.from_numpy(weight_norm_mask(data.numpy(), 1, (2, 3), zeros)).float()
                given = torch.ones(4, 6)
                self.assertIs(make(data, (2, 3), zeros, mask=given), given)
                self.assertEqual(given, expected)
                with torch.device("meta"):
                    made = make(data=data.double(), sparse_block_shape=(2, 3), zeros_per_block=zeros)
                self.assertEqual(made, expected)
                self.assertTrue(made.is_contiguous())

    def test_block_mask_of_ragged_data_prunes_data_before_padding(self):
        """_make_block_mask: the padding is no data: in a block that the edge cuts off, elements of the data are zeroed."""
        data = torch.tensor([[4.0, 1.0, 3.0, 2.0, 9.0, 8.0, 7.0], [5.0, 6.0, 7.0, 8.0, 1.0, 3.0, 2.0]])
        for columns, last in ((5, [[0], [0]]), (6, [[0, 0], [0, 0]]), (7, [[1, 0, 0], [0, 1, 0]])):
            with self.subTest(columns=columns):
                kept = torch.cat([torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 1]]), torch.tensor(last)], dim=1)
                mask = WeightNormSparsifier()._make_block_mask(data[:, :columns], (1, 4), 2)
                self.assertEqual(mask[:, :columns], kept)
                mask = WeightNormSparsifier()._make_block_mask(data[:, :columns].T, (4, 1), 2)
                self.assertEqual(mask[:columns], kept.T)

    @on_every_device
    def test_scatter_fold_makes_patches(self, device):
        """_scatter_fold_block_mask: indices are scattered as zeros, columns of the unfolded mask become patches of block_shape."""
        fold = WeightNormSparsifier()._scatter_fold_block_mask
        blocks = torch.tensor([[[1]] * 4], device=device)
        expected = torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0]])
        given = torch.ones(1, 4, 2, device=device)
        self.assertIs(fold((2, 4), 2, blocks, (2, 2), mask=given), given)
        self.assertEqual(given.squeeze().cpu(), expected)
        with torch.device("meta"):
            made = fold(output_shape=(2, 4), dim=2, indices=blocks, block_shape=(2, 2), input_shape=(1, 4, 2), device=device)
        self.assertEqual(made.squeeze().cpu(), expected)
        with self.assertRaisesRegex(AssertionError, "input_shape"):
            fold((2, 4), 2, blocks, (2, 2))

    def test_flat_indices_become_rows_and_columns(self):
        """_flat_idx_to_2d: the row and the column of an index into a flattened matrix."""
        from torch.ao.pruning.sparsifier.weight_norm_sparsifier import _flat_idx_to_2d

        self.assertEqual([_flat_idx_to_2d(index, (2, 3)) for index in range(6)], [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)])
