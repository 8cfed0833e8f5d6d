"""DataNormSparsifier: masks by the norms of blocks."""

import itertools
import warnings

from ao.sparsity.testing.base import on_every_device  # first: it asks whether there is a torch to validate

import numpy as np
import torch
from torch import nn
from torch.testing._internal.common_utils import instantiate_parametrized_tests

from ao.sparsity.testing import contracts
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.oracles import data as oracle

with warnings.catch_warnings():
    from torch.ao.pruning._experimental.data_sparsifier import (
        DataNormSparsifier,
    )

from ao.sparsity.data_sparsifier.cases import (
    counting,
    scattered,
    as_tensor,
    as_parameter,
    EMBEDDINGS,
    elsewhere,
    refusal,
    pools,
    DataSparsifierTestCase,
)


@instantiate_parametrized_tests
@contracts.hold_for("data_norm")
class TestNormDataSparsifiers(DataSparsifierTestCase):
    """DataNormSparsifier against a NumPy reference."""

    DEFAULTS = {"sparsity_level": 0.5, "sparse_block_shape": (1, 4)}

    def check_types(self, make):
        """Life, levels and 2:4 for one type of data, with both norms."""
        self.check_life(DataNormSparsifier, make, lambda weight: oracle.data_norm_mask(weight, 0.5, (1, 4)), self.DEFAULTS)
        for norm in ("L1", "L2"):
            with self.subTest(norm=norm, type=make.__name__):
                for level, shape, zeros in ((0.0, (1, 4), 4), (0.75, (2, 2), 4), (1.0, (1, 4), 4), (1.0, (1, 4), 2)):
                    data, weight = make((4, 8))
                    sparsifier = DataNormSparsifier([("a", data)], level, shape, zeros, norm)
                    sparsifier.step()
                    expected = oracle.data_norm_mask(weight.detach().numpy(), level, shape, zeros, norm)
                    self.assertMask(sparsifier, "a", expected, f"level {level}, blocks {shape}, {zeros} zeros per block")

    def test_tensors(self):
        """The class docstring for tensors: the blocks with the lowest norm are zeroed out, as many as the level says."""
        self.check_types(as_tensor)

    def test_nn_parameters(self):
        """The class docstring for parameters: the blocks with the lowest norm are zeroed out, as many as the level says."""
        self.check_types(as_parameter)

    def test_nn_embeddings(self):
        """The class docstring for embeddings: the blocks with the lowest norm are zeroed out, as many as the level says."""
        for make in EMBEDDINGS:
            self.check_types(make)

    def test_defaults(self):
        """The signature: half of the 1 x 4 blocks, all of their elements, by L1."""
        sparsifier = DataNormSparsifier()
        self.assertEqual(sparsifier.norm, "L1")
        self.assertConfig(sparsifier.defaults, self.DEFAULTS)
        self.assertEqual(dict(sparsifier.data_groups), {})
        self.assertEqual(DataNormSparsifier(zeros_per_block=0).defaults["zeros_per_block"], 0)
        for shape in ((1, 4), (2, 3), (1, 1), (4, 1)):
            sparsifier = DataNormSparsifier([("a", counting(8, 12))], sparse_block_shape=shape)
            sparsifier.step()
            self.assertMask(sparsifier, "a", oracle.data_norm_mask(counting(8, 12).numpy(), 0.5, shape), f"blocks {shape}")

    def test_masks_equal_the_reference(self):
        """The three variables of the class docstring, over levels, block shapes, zeros per block and ragged shapes."""
        shapes = ((4, 8), (5, 7), (2, 9), (9, 2), (1, 6), (3, 3))
        blocks = ((1, 1), (1, 4), (2, 2), (4, 1), (3, 2), (8, 8))
        for number, (shape, block) in enumerate(itertools.product(shapes, blocks)):
            norm = ("L1", "L2")[number % 2]
            level = (0.0, 0.1, 0.3, 0.5, 0.8, 0.999, 1.0, 1.5)[number % 8]
            size = block[0] * block[1]
            zeros = (size, max(size - 1, 0), size // 2, min(1, size), 0)[number % 5]
            data = scattered(*shape, seed=number)
            sparsifier = DataNormSparsifier([("a", torch.tensor(data, dtype=torch.float64))], level, block, zeros, norm)
            sparsifier.step()
            case = f"shape {shape}, level {level}, blocks {block}, {zeros} zeros per block, {norm}, seed {number}"
            self.assertMask(sparsifier, "a", oracle.data_norm_mask(data, level, block, zeros, norm), case)
            self.assertTrue(sparsifier.get_mask("a").is_contiguous(), case)

    def test_every_level_of_a_small_case(self):
        """sparsity_level: round(level * blocks) blocks are zeroed, from none at 0 to all at 1 and above."""
        data = scattered(4, 4)
        for level in (0, 0.03, 0.1, 0.25, 0.5, 0.55, 0.9, 0.96, 0.97, 1, 1.0, 1.01, 3):
            sparsifier = DataNormSparsifier([("a", torch.tensor(data, dtype=torch.float32))], level, (1, 1))
            sparsifier.step()
            self.assertMask(sparsifier, "a", oracle.data_norm_mask(data, level, (1, 1)), f"level {level}")
            self.assertEqual(int((sparsifier.get_mask("a") == 0).sum()), min(round(level * 16), 16), f"level {level}")

    def test_two_of_four(self):
        """zeros_per_block 2 of 1 x 4 at level 1: each block keeps its two largest magnitudes."""
        sparsifier = DataNormSparsifier([("a", torch.tensor([[1.0, -4, 3, 2, -8, 5, 6, -7]]))], 1.0, (1, 4), 2)
        sparsifier.step()
        self.assertMask(sparsifier, "a", [[0, 1, 1, 0, 1, 0, 0, 1]])

    def test_norms_rate_differently(self):
        """norm: L1 rates blocks by absolute values, L2 by squares, which one large element can decide."""
        data = torch.tensor([[3.0, 3, 3, 3], [0, 0, 0, 11]])
        for norm, kept in (("L1", 0), ("L2", 1)):
            sparsifier = DataNormSparsifier([("a", data)], norm=norm)
            sparsifier.step()
            expected = np.zeros((2, 4))
            expected[kept] = 1
            self.assertMask(sparsifier, "a", expected, norm)

    def test_other_norms_are_refused(self):
        """norm: only "L1" and "L2"."""
        for norm in ("L3", "l1", "", None, 1, 2):
            with self.subTest(norm=norm), self.assertRaisesRegex(AssertionError, refusal("^only L1 and L2")):
                DataNormSparsifier(norm=norm)

    def test_impossible_zeros_per_block_are_refused(self):
        """zeros_per_block: from 0 to the elements of a block; step() raises ValueError beyond, and leaves the mask."""
        too_many = "^Number of zeros .* cannot be more than the total number of elements in"
        for (zeros, key_word), level in itertools.product(((5, too_many), (-1, "^Number of zeros .* positive")), (0.5, 0.0)):
            with self.subTest(zeros=zeros, level=level):
                sparsifier = DataNormSparsifier([("a", counting(2, 4))], sparsity_level=level, zeros_per_block=zeros)
                with self.assertRaisesRegex(ValueError, key_word):
                    sparsifier.step()
                self.assertMask(sparsifier, "a", np.ones((2, 4)))

    def test_update_mask_while_gradients_are_recorded(self):
        """update_mask is public: called outside step(), where autograd records, it gives the same mask of a parameter."""
        for norm, zeros in itertools.product(("L1", "L2"), (4, 2)):
            with self.subTest(norm=norm, zeros=zeros):
                data = scattered(4, 8)
                sparsifier = DataNormSparsifier([("a", nn.Parameter(torch.tensor(data, dtype=torch.float32)))], 0.5, (1, 4), zeros, norm)
                sparsifier.update_mask("a", sparsifier.get_data("a"), **sparsifier.data_groups["a"])
                self.assertMask(sparsifier, "a", oracle.data_norm_mask(data, 0.5, (1, 4), zeros, norm))

    def test_data_of_more_dimensions_is_refused(self):
        """Only two-dimensional data is supported: step() raises ValueError for three and four."""
        for shape in ((2, 2, 4), (2, 2, 2, 2)):
            with self.subTest(shape=shape), self.assertRaisesRegex(ValueError, "^only supports 2-D"):
                DataNormSparsifier([("a", counting(*shape))]).step()

    def test_dtypes(self):
        """The mask is the same for every floating point dtype, and the sparse data keeps it."""
        data = scattered(4, 8) / 2
        dtypes = [dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64) if pools(dtype)]
        self.assertIn(torch.float64, dtypes)
        for dtype, zeros, norm in itertools.product(dtypes, (4, 2), ("L1", "L2")):
            with self.subTest(dtype=dtype, zeros=zeros, norm=norm):
                sparsifier = DataNormSparsifier([("a", torch.tensor(data, dtype=dtype))], 0.5, (1, 4), zeros, norm)
                sparsifier.step()
                self.assertMask(sparsifier, "a", oracle.data_norm_mask(data, 0.5, (1, 4), zeros, norm))
                self.assertEqual(sparsifier.get_data("a", return_original=False).dtype, dtype)

    def test_double_data_is_compared_as_such(self):
        """Differences that only float64 can hold decide, between blocks and within a block."""
        data = np.array([[1 + 1e-12, 1.0], [2.0, 2 + 1e-12], [1 + 1e-12, 1 + 1e-12]])
        for shape, zeros, level in (((1, 2), 2, 0.4), ((1, 2), 1, 1.0), ((1, 1), 1, 0.2)):
            sparsifier = DataNormSparsifier([("a", torch.tensor(data))], level, shape, zeros)
            sparsifier.step()
            self.assertMask(sparsifier, "a", oracle.data_norm_mask(data, level, shape, zeros), f"{zeros} zeros in blocks {shape}")

    def test_strided_data(self):
        """Strides do not matter: a transposed and a sliced tensor give the masks of their values."""
        base = torch.tensor(scattered(8, 12), dtype=torch.float32)
        for name, data in (("transposed", base.t()), ("sliced", base[::2, 1::3]), ("expanded", base[:1].expand(4, 12))):
            for zeros in (4, 1):
                with self.subTest(data=name, zeros=zeros):
                    sparsifier = DataNormSparsifier([("a", data)], 0.5, (1, 4), zeros)
                    sparsifier.step()
                    self.assertMask(sparsifier, "a", oracle.data_norm_mask(data.numpy(), 0.5, (1, 4), zeros))

    def test_equal_blocks_are_zeroed_whole(self):
        """Among equal blocks some are zeroed and some kept, but none in part."""
        for shape, block in (((8, 8), (1, 4)), ((6, 6), (2, 3)), ((5, 5), (2, 2))):
            with self.subTest(shape=shape, block=block):
                sparsifier = DataNormSparsifier([("a", torch.ones(shape))], 0.5, block)
                sparsifier.step()
                self.assertMask(sparsifier, "a", oracle.data_norm_mask(np.ones(shape), 0.5, block))

    def test_masks_follow_data_and_config(self):
        """Each step() computes the mask anew from the present data and configuration; the mask object stays."""
        data = torch.tensor(scattered(4, 8), dtype=torch.float32)
        sparsifier = DataNormSparsifier([("a", data)])
        mask = sparsifier.get_mask("a")
        for change in ({}, {"sparsity_level": 0.25}, {"zeros_per_block": 1}, {"sparse_block_shape": (2, 2)}, {"sparsity_level": 0.0}):
            sparsifier.data_groups["a"].update(change)
            data.neg_().add_(3)
            sparsifier.step()
            config = sparsifier.data_groups["a"]
            level, shape, zeros = (config[key] for key in ("sparsity_level", "sparse_block_shape", "zeros_per_block"))
            expected = oracle.data_norm_mask(data.numpy(), level, shape, zeros)
            self.assertMask(sparsifier, "a", expected, str(change))
            self.assertIs(sparsifier.get_mask("a"), mask)

    def test_config_per_data(self):
        """The class docstring: the constructor's arguments are defaults, overridden in add_data()."""
        sparsifier = DataNormSparsifier(sparsity_level=0.25)
        configs = {
            "default": {},
            "level": {"sparsity_level": 0.75},
            "block": {"sparse_block_shape": (2, 2)},
            "zeros": {"zeros_per_block": 2},
        }
        data = scattered(4, 8)
        for name, config in configs.items():
            sparsifier.add_data(name, torch.tensor(data, dtype=torch.float32), **config)
        sparsifier.step()
        for name, config in configs.items():
            self.assertConfig(sparsifier.data_groups[name], {"sparsity_level": 0.25, "sparse_block_shape": (1, 4), **config})
            config = {"sparsity_level": 0.25, "sparse_block_shape": (1, 4), "zeros_per_block": 4, **config}
            self.assertMask(sparsifier, name, oracle.data_norm_mask(data, *config.values()), name)

    def test_unknown_config_is_carried(self):
        """update_mask() takes further keywords: a group may carry what a scheduler or a subclass needs."""
        sparsifier = DataNormSparsifier()
        sparsifier.add_data("a", counting(2, 4), colour="blue")
        sparsifier.step()
        self.assertMask(sparsifier, "a", [[0] * 4, [1] * 4])
        self.assertEqual(sparsifier.data_groups["a"]["colour"], "blue")

    def test_masks_take_the_device_of_the_data(self):
        """step() makes every tensor on the device of the data, whatever the default device and the default dtype are."""
        data = scattered(5, 6)
        for zeros, norm in itertools.product((4, 2), ("L1", "L2")):
            sparsifier = DataNormSparsifier([("a", torch.tensor(data, dtype=torch.float32))], 0.5, (1, 4), zeros, norm)
            with elsewhere():
                sparsifier.step()
            self.assertEqual(sparsifier.get_mask("a").dtype, torch.int8)
            self.assertMask(sparsifier, "a", oracle.data_norm_mask(data, 0.5, (1, 4), zeros, norm), f"{zeros} zeros, {norm}")

    def test_repr(self):
        """repr: the class, and the variables of each data group."""
        lines = repr(DataNormSparsifier([("a", counting(2, 2))], 0.25, zeros_per_block=3)).splitlines()
        self.assertEqual(lines[0], "DataNormSparsifier (")
        for line in ("name: a", "sparsity_level: 0.25", "sparse_block_shape: (1, 4)", "zeros_per_block: 3"):
            self.assertIn(line, [text.strip() for text in lines])

    @on_every_device
    def test_masks_are_computed_on_the_device(self, device):
        """Masks are computed where the data is, and equal the reference there."""
        data = scattered(5, 8)
        for zeros in (4, 2):
            sparsifier = DataNormSparsifier([("a", torch.tensor(data, dtype=torch.float32).to(device))], 0.5, (1, 4), zeros)
            sparsifier.step()
            self.assertEqual(sparsifier.get_mask("a").device.type, device)
            self.assertMask(sparsifier, "a", oracle.data_norm_mask(data, 0.5, (1, 4), zeros))

    def stepped(self, data, *args, **kwargs):
        """Sparsifier of one data "a" after step()."""
        sparsifier = DataNormSparsifier([("a", data)], *args, **kwargs)
        sparsifier.step()
        return sparsifier

    def assertShape(self, sparsifier, shape, what):
        """The mask of "a" has the shape of its data, so that the sparse data can be read."""
        mask = tuple(sparsifier.get_mask("a").shape)
        self.assertTrue(mask == shape, f"the {what} of shape {shape} has the shape {mask}")
        self.assertEqual(sparsifier.get_data("a", return_original=False).shape, shape)

    @known_defect("norm-given-to-add-data-is-ignored")
    def test_norm_is_a_default(self):
        """The class docstring: all arguments of the constructor are overridden by the configuration in add_data()."""
        data = torch.tensor([[3.0, 3, 3, 3], [0, 0, 0, 11]])
        for own, norm, expected in (("L1", "L2", [[0] * 4, [1] * 4]), ("L2", "L1", [[1] * 4, [0] * 4])):
            sparsifier = DataNormSparsifier(norm=own)
            sparsifier.add_data("a", data, norm=norm)
            sparsifier.step()
            mask = sparsifier.get_mask("a").tolist()
            self.assertTrue(mask == expected, f"the norm of add_data() was {norm}, the mask is {mask}")

    @known_defect("negative-data-level-prunes")
    def test_negative_level_prunes_nothing(self):
        """update_mask(): a level of 0 and below leaves a mask of ones."""
        levels = (-0.1, -0.25, -1.0, -3)
        pruned = {level: int((self.stepped(counting(4, 4), level).get_mask("a") == 0).sum()) for level in levels}
        self.assertTrue(not any(pruned.values()), f"pruned of 16: {pruned}")

    @known_defect("one-dimensional-data-gets-a-two-dimensional-mask")
    def test_vector(self):
        """One-dimensional data, such as a bias, is one row of blocks; its mask has its shape."""
        for norm in ("L1", "L2"):
            for data, expected in ((-counting(8), [0, 0, 0, 0, 1, 1, 1, 1]), (counting(8).flip(0), [1, 1, 1, 1, 0, 0, 0, 0])):
                sparsifier = self.stepped(data, norm=norm)
                self.assertShape(sparsifier, (8,), "mask of a vector")
                self.assertMask(sparsifier, "a", expected)

    @known_defect("one-element-data-cannot-step")
    def test_one_element(self):
        """A single element is one block, of any number of dimensions: kept at level 0, pruned at level 1."""
        for shape in ((1, 1), (1,), ()):
            for level in (0.0, 1.0):
                sparsifier = self.stepped(torch.ones(shape), level)
                self.assertMask(sparsifier, "a", np.full(shape, 1 - level))

    @known_defect("column-data-gets-a-row-mask")
    def test_column(self):
        """Data of shape (n, 1) is two-dimensional; its mask has its shape."""
        sparsifier = self.stepped(nn.Embedding(8, 1), sparse_block_shape=(1, 1))
        self.assertShape(sparsifier, (8, 1), "mask of a column")
        self.assertEqual(int(sparsifier.get_mask("a").sum()), 4)
        data = torch.tensor([[1.0], [9], [9], [9], [2], [2], [2], [2]])
        self.assertMask(self.stepped(data, sparse_block_shape=(4, 1)), "a", [[1]] * 4 + [[0]] * 4)

    def test_unit_dimensions_count_for_nothing(self):
        """Data whose further dimensions are 1 is masked as the matrix that it is, by both norms."""
        data = scattered(4, 4)
        for norm, shape in itertools.product(("L1", "L2"), ((1, 4, 4), (4, 1, 4))):
            with self.subTest(norm=norm, shape=shape):
                mask = self.stepped(torch.tensor(data, dtype=torch.float32).reshape(shape), norm=norm).get_mask("a")
                self.assertEqual(mask.reshape(4, 4).tolist(), oracle.data_norm_mask(data, 0.5, (1, 4), norm=norm).tolist())

    @known_defect("unit-dimensions-are-missing-from-the-mask")
    def test_unit_dimensions(self):
        """Data that is accepted because its further dimensions are 1 keeps its shape."""
        shapes = ((1, 4, 4), (4, 1, 4), (1, 1, 4, 4))
        for norm in ("L1", "L2"):
            masks = {shape: tuple(self.stepped(counting(*shape), norm=norm).get_mask("a").shape) for shape in shapes}
            self.assertTrue(
                all(mask == shape for shape, mask in masks.items()), ", ".join(f"{shape} -> {masks[shape]}" for shape in shapes)
            )

    @known_defect("empty-data-cannot-step")
    def test_empty_data(self):
        """Data without elements has no block to prune."""
        for shape in ((0, 4), (4, 0)):
            self.assertShape(self.stepped(torch.empty(shape)), shape, "mask")

    @known_defect("zeros-per-block-does-not-follow-the-block-shape")
    def test_block_shape_of_add_data_is_zeroed_whole(self):
        """The class docstring: by default all elements of a block are zeroed out, of whatever shape the block is."""
        sparsifier = DataNormSparsifier(sparsity_level=0.5)
        sparsifier.add_data("a", counting(2, 8), sparse_block_shape=(1, 8))
        sparsifier.step()
        mask = sparsifier.get_mask("a").tolist()
        self.assertTrue(mask == [[0] * 8, [1] * 8], f"blocks of the shape given to add_data() are not zeroed whole: {mask}")

    @known_defect("zeros-per-block-none-is-no-config")
    def test_none_is_a_config_of_zeros_per_block(self):
        """The class docstring: what the constructor accepts, add_data() accepts; None means all elements of a block."""
        sparsifier = DataNormSparsifier(zeros_per_block=2)
        sparsifier.add_data("a", counting(2, 4), zeros_per_block=None)
        sparsifier.step()
        self.assertMask(sparsifier, "a", [[0] * 4, [1] * 4])

    @known_defect("l2-norm-of-half-data-underflows")
    def test_l2_norm_of_small_and_large_half_data(self):
        """The blocks with the lowest norm are zeroed out; a norm of float16 data is not computed from float16 squares."""
        if not pools(torch.float16):
            self.skipTest("norms of float16 data (no avg_pool2d for it)")
        wrong = []
        for high, low in ((1.5e-4, 1e-4), (400.0, 300.0)):
            # In both orders: where the norms tie, one of the two is right by luck.
            for rows in ([high, low], [low, high]):
                data = torch.tensor([[value] * 4 for value in rows], dtype=torch.float16)
                mask = self.stepped(data, norm="L2").get_mask("a").tolist()
                if mask != [[int(value == high)] * 4 for value in rows]:
                    wrong.append((high, low))
        self.assertTrue(not wrong, f"wrong masks for rows of {wrong}")
