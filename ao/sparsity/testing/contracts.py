"""What holds for every sparsifier and pruner, whatever its criterion: checks that become tests of each of them.

A ``Subject`` says how to make one sparsifier and what it is to prune; ``Subject.start`` prepares it and returns the few
verbs that all kinds share. A check takes the test case, a subject and a device, and fails through the case. The class decorator
``hold_for`` gives a test class a test of every check for its subjects: ``test_contract_step_twice_is_step_once_fpgm``.
"""

import copy
import dataclasses
import typing

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from ao.sparsity.testing.base import on_every_device
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.models.linear import chain, distinct_weight

from torch.ao.pruning import FakeSparsity, NearlyDiagonalSparsifier, WeightNormSparsifier
from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier
from torch.ao.pruning._experimental.pruner import FPGMPruner, LSTMSaliencyPruner, SaliencyPruner
from torch.ao.pruning._experimental.pruner.parametrization import FakeStructuredSparsity

CHECKS: list[typing.Callable] = []


def check(function):
    """Enter a function ``(case, subject, device)`` among CHECKS."""
    CHECKS.append(function)
    return function


def hold_for(*names: str) -> typing.Callable:
    """Decorate a test class: it gets a test of every check for the subjects of these names, on every device.

    Where a known defect is in the way of a check the test is marked with it. torch's ``instantiate_parametrized_tests`` stands
    above this decorator.

    Raises:
        KeyError: if SUBJECTS has no subject of a name.
    """
    subjects = {subject.name: subject for subject in SUBJECTS}

    def decorate(holder):
        for name in names:
            for contract in CHECKS:
                test = _contract_test(contract, subjects[name])
                setattr(holder, test.__name__, test)
        return holder

    return decorate


def _contract_test(contract, subject):
    def test(self, device):
        contract(self, subject, device)

    test.__name__ = f"test_contract_{contract.__name__.removeprefix('check_')}_{subject.name}"
    test.__doc__ = contract.__doc__
    test = on_every_device(test)
    symptom = subject.broken.get(contract.__name__)
    return test if symptom is None else known_defect(symptom)(test)


class OnModel:
    """A sparsifier that has prepared tensors of a model."""

    def __init__(self, subject, device, names):
        self.subject = subject
        self.model = subject.data().to(device)
        self.names = list(names)
        self.sparsifier = subject.make()
        self.config = [{"tensor_fqn": name} for name in self.names]
        self.sparsifier.prepare(self.model, self.config)

    def _place(self, name):
        module, _, tensor = name.rpartition(".")
        return self.model.get_submodule(module), tensor

    def mask(self, name):
        """The mask of one tensor, of its shape, or of its rows where whole rows are pruned."""
        module, tensor = self._place(name)
        found = [p.mask for p in module.parametrizations[tensor] if isinstance(p, (FakeSparsity, FakeStructuredSparsity))]
        return found[-1]

    def dense(self, name):
        """The tensor as if nothing were pruned."""
        module, tensor = self._place(name)
        return module.parametrizations[tensor].original

    def pruned(self, name):
        """The tensor as the model uses it, before and after squash_mask."""
        return getattr(*self._place(name))

    def is_prepared(self, name):
        """Whether the tensor has a parametrization."""
        return parametrize.is_parametrized(*self._place(name))

    def set(self, arguments):
        """Change the arguments of all groups, as a scheduler does."""
        for group in self.sparsifier.groups:
            group.update(arguments)


class OnData:
    """A data sparsifier that holds tensors by name."""

    def __init__(self, subject, device, names):
        self.subject = subject
        self.names = list(names)
        self.given = {name: tensor.to(device) for name, tensor in subject.data().items() if name in self.names}
        self.sparsifier = subject.make()
        self.config = [{"name": name} for name in self.names]
        for name in self.names:
            self.sparsifier.add_data(name, self.given[name])

    def mask(self, name):
        """The mask of one tensor."""
        return self.sparsifier.get_mask(name)

    def dense(self, name):
        """The tensor as if nothing were pruned."""
        return self.sparsifier.get_data(name)

    def pruned(self, name):
        """The tensor with its mask, before and after squash_mask."""
        return self.sparsifier.get_data(name, return_original=False)

    def is_prepared(self, name):
        """Whether the tensor has a parametrization."""
        return parametrize.is_parametrized(self.sparsifier._container, name)

    def set(self, arguments):
        """Change the arguments of all groups, as a scheduler does."""
        for group in self.sparsifier.data_groups.values():
            group.update(arguments)


@dataclasses.dataclass(frozen=True)
class Subject:
    """One sparsifier with something to prune.

    Args:
        name: ends the names of its tests.
        make: makes the unprepared sparsifier, which prunes something, but not all.
        data: makes the model, or the dict of tensors, with the same values each time.
        names: the tensors to prune.
        none: arguments of a group with which nothing is pruned.
        all: arguments of a group with which everything is.
        more: arguments of a group with which more is pruned than by ``make``'s.
        by_size: whether the mask depends on how large the elements are, compared with each other.
        kind: OnModel or OnData.
        broken: for each check, by name, that fails because of a known defect: the id of the symptom.
    """

    name: str
    make: typing.Callable
    data: typing.Callable
    names: tuple
    none: dict
    all: dict
    more: dict
    by_size: bool = True
    kind: type = OnModel
    broken: dict = dataclasses.field(default_factory=dict)

    def start(self, device="cpu", names=None):
        """Make and prepare it, on ``device``, for the first of its tensors unless ``names`` says which."""
        return self.kind(self, device, self.names[:1] if names is None else names)


def _linear_chain():
    return chain(distinct_weight(6, 8, 1), distinct_weight(8, 6, 2))


def _convolutions():
    model = nn.Sequential(nn.Conv2d(2, 4, (1, 2)), nn.Conv2d(4, 6, 1))
    with torch.no_grad():
        for seed, layer in enumerate(model):
            layer.weight.copy_(distinct_weight(len(layer.weight), layer.weight[0].numel(), seed).view_as(layer.weight))
    return model


def _recurrent():
    model = nn.Sequential(nn.LSTM(3, 4))
    with torch.no_grad():
        model[0].weight_ih_l0.copy_(distinct_weight(16, 3, 1))
        model[0].weight_hh_l0.copy_(distinct_weight(16, 4, 2))
    return model


def _tensors():
    return {"first": distinct_weight(6, 8, 1), "second": distinct_weight(8, 6, 2)}


_LEVELS: dict[str, typing.Any] = {"none": {"sparsity_level": 0.0}, "all": {"sparsity_level": 1.0}, "more": {"sparsity_level": 0.75}}
_LINEAR: dict[str, typing.Any] = {"data": _linear_chain, "names": ("0.weight", "1.weight")}
_STRUCTURED = {"check_state_dict_round_trip": "structured-load-state-dict-adds-a-mask-of-another-kind"}

SUBJECTS = [
    Subject("weight_norm_1_x_4", lambda: WeightNormSparsifier(0.5), **_LINEAR, **_LEVELS),
    Subject("weight_norm_4_x_3_l1", lambda: WeightNormSparsifier(0.5, (4, 3), norm=1), **_LINEAR, **_LEVELS),
    Subject(
        "weight_norm_2_of_4",
        lambda: WeightNormSparsifier(1.0, (1, 4), 2),
        lambda: chain(distinct_weight(6, 8, 1), distinct_weight(8, 4, 2)),
        ("0.weight", "1.weight"),
        none={"zeros_per_block": 0},
        all={"zeros_per_block": 4},
        more={"zeros_per_block": 3},
    ),
    Subject(
        "nearly_diagonal",
        lambda: NearlyDiagonalSparsifier(3),
        lambda: chain(distinct_weight(6, 6, 1), distinct_weight(6, 6, 2)),
        ("0.weight", "1.weight"),
        none={"nearliness": 11},
        all={"nearliness": 0},
        more={"nearliness": 1},
        by_size=False,
    ),
    Subject("saliency", lambda: SaliencyPruner({"sparsity_level": 0.5}), **_LINEAR, **_LEVELS, broken=_STRUCTURED),
    Subject(
        "lstm_saliency",
        lambda: LSTMSaliencyPruner({"sparsity_level": 0.5}),
        _recurrent,
        ("0.weight_ih_l0", "0.weight_hh_l0"),
        **_LEVELS,
        broken=_STRUCTURED,
    ),
    Subject(
        "fpgm",
        lambda: FPGMPruner(0.5),
        _convolutions,
        ("0.weight", "1.weight"),
        **_LEVELS,
        broken=_STRUCTURED,
    ),
    Subject(
        "data_norm",
        lambda: DataNormSparsifier(sparsity_level=0.5, sparse_block_shape=(2, 3), norm="L2"),
        _tensors,
        ("first", "second"),
        **_LEVELS,
        kind=OnData,
    ),
]


def _zeros(mask):
    return mask == 0


def _values(prepared):
    """Copies of all masks, by name, as booleans: True where something is kept."""
    return {name: prepared.mask(name) != 0 for name in prepared.names}


def _spread(mask, tensor):
    """``mask`` in the shape of ``tensor``: a mask of rows covers whole rows."""
    return (mask != 0).reshape(*mask.shape, *[1] * (tensor.dim() - mask.dim())).expand(tensor.shape)


@check
def check_prepare_changes_no_value(case, subject, device):
    """prepare() or add_data(): until step() everything is kept, and the tensors have the values they had."""
    prepared = subject.start(device)
    for name in prepared.names:
        case.assertFalse(_zeros(prepared.mask(name)).any().item(), msg=name)
        case.assertTrue(torch.equal(prepared.pruned(name), prepared.dense(name)), msg=name)
    if subject.kind is OnModel:
        fresh = dict(subject.data().named_parameters())
        for name in prepared.names:
            case.assertTrue(torch.equal(prepared.dense(name).cpu(), fresh[name]), msg=name)
    else:
        for name in prepared.names:
            case.assertIs(prepared.dense(name), prepared.given[name], msg=name)


@check
def check_step_prunes_by_the_mask(case, subject, device):
    """step(): something is pruned and not all; a pruned element is 0, any other has its dense value, which stays."""
    prepared = subject.start(device)
    before = {name: prepared.dense(name).detach().clone() for name in prepared.names}
    prepared.sparsifier.step()
    pruned = 0
    for name in prepared.names:
        mask = prepared.mask(name)
        pruned += _zeros(mask).sum().item()
        case.assertTrue(torch.equal(prepared.dense(name), before[name]), msg=f"step() has changed the dense {name}")
        expected = before[name] * _spread(mask, before[name])
        case.assertTrue(torch.equal(prepared.pruned(name), expected), msg=f"{name}: {prepared.pruned(name)}, expected {expected}")
    total = sum(prepared.mask(name).numel() for name in prepared.names)
    case.assertTrue(0 < pruned < total, msg=f"{pruned} of {total} elements of the masks are zero")


@check
def check_step_twice_is_step_once(case, subject, device):
    """step() is idempotent: without a change of weights or arguments a second one changes nothing."""
    prepared = subject.start(device)
    prepared.sparsifier.step()
    once = _values(prepared)
    prepared.sparsifier.step()
    for name, mask in once.items():
        case.assertTrue(torch.equal(prepared.mask(name) != 0, mask), msg=f"{name}: once {mask}, twice {prepared.mask(name)}")


@check
def check_arguments_for_nothing_and_all(case, subject, device):
    """Level 0 (or its like) prunes nothing, level 1 everything."""
    for arguments, kept in ((subject.none, True), (subject.all, False)):
        prepared = subject.start(device)
        prepared.set(arguments)
        prepared.sparsifier.step()
        for name, mask in _values(prepared).items():
            case.assertTrue((mask == kept).all().item(), msg=f"{arguments}: {name} has the mask {mask}")


@check
def check_higher_level_prunes_more(case, subject, device):
    """A higher level prunes what a lower one does, and more."""
    lower, higher = subject.start(device), subject.start(device)
    higher.set(subject.more)
    lower.sparsifier.step()
    higher.sparsifier.step()
    for name in lower.names:
        few, many = _zeros(lower.mask(name)), _zeros(higher.mask(name))
        case.assertFalse((few & ~many).any().item(), msg=f"{name}: {many} does not contain {few}")
        case.assertLessEqual(few.sum().item(), many.sum().item())
    pruned = [sum(_zeros(each.mask(name)).sum().item() for name in each.names) for each in (lower, higher)]
    case.assertLess(*pruned, msg="numbers pruned at the two levels")


@check
def check_scaling_keeps_the_mask(case, subject, device):
    """A criterion compares elements with each other: weights four times as large, or negated, give the same mask."""
    reference = subject.start(device)
    reference.sparsifier.step()
    for factor in (4.0, -1.0):
        scaled = subject.start(device)
        with torch.no_grad():
            for name in scaled.names:
                scaled.dense(name).mul_(factor)
        scaled.sparsifier.step()
        for name, mask in _values(reference).items():
            case.assertTrue(torch.equal(scaled.mask(name) != 0, mask), msg=f"times {factor}, {name}: {scaled.mask(name)}, not {mask}")


@check
def check_mask_follows_the_values(case, subject, device):
    """A criterion of sizes moves with the values: turned upside down, what was kept goes; one of places does not."""
    upright, turned = subject.start(device), subject.start(device)
    with torch.no_grad():
        for name in turned.names:
            tensor = turned.dense(name)
            tensor.copy_(tensor.flip(0))
    upright.sparsifier.step()
    turned.sparsifier.step()
    moved = any(not torch.equal(turned.mask(name), upright.mask(name)) for name in upright.names)
    case.assertEqual(moved, subject.by_size)


@check
def check_tensors_are_independent(case, subject, device):
    """Each tensor's mask depends on that tensor alone: not on the others, nor on their order."""
    together, reverse = subject.start(device, subject.names), subject.start(device, subject.names[::-1])
    together.sparsifier.step()
    reverse.sparsifier.step()
    for name in subject.names[1:]:
        alone = subject.start(device, (name,))
        alone.sparsifier.step()
        for other in (reverse, alone):
            case.assertTrue(torch.equal(other.mask(name), together.mask(name)), msg=f"{name} with {other.names}")


@check
def check_mask_keeps_identity_shape_and_device(case, subject, device):
    """FakeSparsity's Note: the mask's contents change, its reference does not; nor do shape and device; no gradient."""
    prepared = subject.start(device)
    masks = {name: prepared.mask(name) for name in prepared.names}
    shapes = {name: mask.shape for name, mask in masks.items()}
    for arguments in ({}, subject.more, subject.all, subject.none):
        prepared.set(arguments)
        with torch.device("meta"):
            prepared.sparsifier.step()
        for name, mask in masks.items():
            case.assertIs(prepared.mask(name), mask, msg=name)
            case.assertEqual((mask.shape, mask.device.type, mask.requires_grad), (shapes[name], device, False), msg=name)


@check
def check_update_can_be_switched_off(case, subject, device):
    """enable_mask_update: True at first; while it is False step() leaves the masks as they are."""
    prepared = subject.start(device)
    case.assertIs(prepared.sparsifier.enable_mask_update, True)
    prepared.sparsifier.enable_mask_update = False
    prepared.sparsifier.step()
    case.assertFalse(any(_zeros(prepared.mask(name)).any().item() for name in prepared.names))
    prepared.sparsifier.enable_mask_update = True
    prepared.sparsifier.step()
    case.assertTrue(any(_zeros(prepared.mask(name)).any().item() for name in prepared.names))


@check
def check_squash_keeps_what_the_mask_left(case, subject, device):
    """squash_mask(): the tensors have the values they had under their masks, and no parametrization."""
    prepared = subject.start(device)
    prepared.sparsifier.step()
    expected = {name: prepared.pruned(name).detach().clone() for name in prepared.names}
    parameters = {name: prepared.dense(name) for name in prepared.names} if subject.kind is OnModel else {}
    prepared.sparsifier.squash_mask()
    for name in prepared.names:
        case.assertTrue(torch.equal(prepared.pruned(name), expected[name]), msg=name)
        case.assertFalse(prepared.is_prepared(name), msg=name)
    for name, parameter in parameters.items():
        case.assertIs(prepared.pruned(name), parameter, msg=name)
        case.assertTrue(parameter.requires_grad, msg=name)


@check
def check_gradients_pass_the_mask(case, subject, device):
    """Training under the mask: the gradient of a kept element is its own, that of a pruned one is 0."""
    prepared = subject.start(device)
    prepared.sparsifier.step()
    for name in prepared.names:
        dense = prepared.dense(name).requires_grad_()
        prepared.pruned(name).sum().backward()
        case.assertTrue(torch.equal(dense.grad, _spread(prepared.mask(name), dense).to(dense.dtype)), msg=f"{name}: {dense.grad}")


@check
def check_state_dict_round_trip(case, subject, device):
    """state_dict() and load_state_dict(): a fresh sparsifier has the masks and arguments of the saved one, and goes on alike."""
    saved, fresh = subject.start(device, subject.names), subject.start(device, subject.names)
    saved.set(subject.more)
    saved.sparsifier.step()
    fresh.sparsifier.load_state_dict(copy.deepcopy(saved.sparsifier.state_dict()))
    for when in ("after loading", "after the next step"):
        for name, mask in _values(saved).items():
            kept = fresh.pruned(name).detach() != 0
            case.assertTrue(torch.equal(kept, _spread(mask, kept)), msg=f"{when}: {name} keeps {kept}, the saved one {mask}")
        saved.sparsifier.step()
        fresh.sparsifier.step()


@check
def check_copy_before_preparing(case, subject, device):
    """copy.deepcopy: an unprepared sparsifier has a copy of its type and defaults, which it does not share."""
    sparsifier = subject.make()
    copied = copy.deepcopy(sparsifier)
    case.assertIs(type(copied), type(sparsifier))
    case.assertEqual(copied.defaults, sparsifier.defaults)
    case.assertIsNot(copied.defaults, sparsifier.defaults)


@check
def check_callers_objects_are_left_alone(case, subject, device):
    """The config and the sparsifier's defaults are the same after prepare, step and squash as before."""
    prepared = subject.start(device)
    config, defaults = copy.deepcopy(prepared.config), copy.deepcopy(subject.make().defaults)
    prepared.set(subject.more)
    prepared.sparsifier.step()
    prepared.sparsifier.squash_mask()
    case.assertEqual(prepared.config, config)
    case.assertEqual(prepared.sparsifier.defaults, defaults)


@check
def check_nothing_is_random(case, subject, device):
    """No sparsifier here is random: torch's and NumPy's generators are where they were, and a second one agrees."""
    first, second = subject.start(device), subject.start(device)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first.sparsifier.step()
    case.assertTrue(torch.equal(torch.get_rng_state(), torch_state))
    case.assertTrue((np.random.get_state()[1] == numpy_state).all())
    second.sparsifier.step()
    for name in first.names:
        case.assertTrue(torch.equal(first.mask(name), second.mask(name)), msg=name)
    first.sparsifier.squash_mask()
    case.assertTrue(torch.equal(torch.get_rng_state(), torch_state))


@check
def check_step_records_no_gradient(case, subject, device):
    """step() runs without recording gradients, leaves the gradient mode, and no gradient on the tensors."""
    for mode in (True, False):
        prepared = subject.start(device)
        with torch.set_grad_enabled(mode):
            prepared.sparsifier.step()
            case.assertEqual(torch.is_grad_enabled(), mode)
        for name in prepared.names:
            case.assertFalse(prepared.mask(name).requires_grad, msg=name)
            case.assertIsNone(prepared.dense(name).grad, msg=name)


@check
def check_repr_names_class_and_tensors(case, subject, device):
    """repr: the class, and for each tensor its name and its arguments."""
    prepared = subject.start(device)
    text = repr(prepared.sparsifier)
    case.assertTrue(text.startswith(type(prepared.sparsifier).__name__ + " ("), msg=text)
    for part in (*prepared.names, *(f"{key}: {value}" for key, value in prepared.sparsifier.defaults.items())):
        case.assertIn(part, text)


@check
def check_wrong_arguments_are_not_swallowed(case, subject, device):
    """Signature: an argument that the class does not have is a TypeError, not silently a default."""
    with case.assertRaises(TypeError):
        type(subject.make())(*([{}] if not subject.make().defaults else []), no_such_argument=1)
