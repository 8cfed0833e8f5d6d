"""The public surface of the packages under test, written down by hand: names, arguments, defaults, and since which release.

``SURFACE`` reads like a stub. A line without indentation is a module. Below it stand the names that a star import of the module
gives, and below a class its public methods, with the arguments that a caller gives (no ``self``, no ``cls``)::

    package.module
        function(x, y=1)
        Class(size)
            method(flag=True)  # since 2.4
        SomethingDefinedElsewhere

A class that stands in the place of a default is written by its name. ``# since 2.4`` and ``# before 2.4`` say which releases
a line holds for; every other line holds for all that the suite validates. What a release adds is no fault and need not be
written here: names, and arguments that can be left out and stand behind the others. ``CALLBACKS`` is
for the callbacks of pytorch-lightning, ``OPERATORS`` has the schemas of the operators.

This is the one place that reads signatures of what is under test. It compares them with the table and decides nothing by them.
"""

import ast
import dataclasses
import importlib
import inspect
import re

from ao.sparsity.testing.preflight import version_tuple

SURFACE = """
torch.ao.pruning
    BaseScheduler
    BaseSparsifier
    CubicSL
    FakeSparsity
    LambdaSL
    NearlyDiagonalSparsifier
    WeightNormSparsifier
    fqn_to_module
    get_arg_info_from_tensor_fqn
    get_dynamic_sparse_quantized_mapping
    get_static_sparse_quantized_mapping
    module_to_fqn
torch.ao.pruning._mappings
    get_dynamic_sparse_quantized_mapping()
    get_static_sparse_quantized_mapping()
torch.ao.pruning.sparsifier.base_sparsifier
    BaseSparsifier(defaults=None)
        state_dict()
        load_state_dict(state_dict, strict=True)
        make_config_from_model(model, SUPPORTED_MODULES={Linear})
        prepare(model, config)
        squash_mask(params_to_keep=None, params_to_keep_per_layer=None, *args, **kwargs)
        convert(module, mapping=None, inplace=False, parameterization=FakeSparsity)
        step(use_path=True)
        update_mask(module, tensor_name, **kwargs)
torch.ao.pruning.sparsifier.weight_norm_sparsifier
    WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 4), zeros_per_block=None, norm=None)
        update_mask(module, tensor_name, sparsity_level, sparse_block_shape, zeros_per_block, **kwargs)
torch.ao.pruning.sparsifier.nearly_diagonal_sparsifier
    NearlyDiagonalSparsifier(nearliness=1)
        update_mask(module, tensor_name, nearliness, **kwargs)
torch.ao.pruning.sparsifier.utils
    module_contains_param(module, parametrization)
    swap_module(mod, mapping)
    module_to_fqn(model, module, prefix='')
    fqn_to_module(model, path)
    get_arg_info_from_tensor_fqn(model, tensor_fqn)
    FakeSparsity(mask)
        forward(x)
        state_dict(*args, **kwargs)
torch.ao.pruning.scheduler.base_scheduler
    BaseScheduler(sparsifier, last_epoch=-1, verbose=False)
        state_dict()
        load_state_dict(state_dict)
        get_last_sl()
        get_sl()
        print_sl(is_verbose, group, sl, epoch=None)
        step(epoch=None)
torch.ao.pruning.scheduler.cubic_scheduler
    CubicSL(sparsifier, init_sl=0.0, init_t=0, delta_t=10, total_t=100, initially_zero=False, last_epoch=-1, verbose=False)
        sparsity_compute_fn(s_0, s_f, t, t_0, dt, n, initially_zero=False)
        get_sl()
torch.ao.pruning.scheduler.lambda_scheduler
    LambdaSL(sparsifier, sl_lambda, last_epoch=-1, verbose=False)
        get_sl()
torch.ao.pruning._experimental.activation_sparsifier.activation_sparsifier
    ActivationSparsifier(model, aggregate_fn=None, reduce_fn=None, mask_fn=None, features=None, feature_dim=None, **sparse_config)
        register_layer(layer, aggregate_fn=None, reduce_fn=None, mask_fn=None, features=None, feature_dim=None, **sparse_config)
        get_mask(name=None, layer=None)
        unregister_layer(name)
        step()
        update_mask(name, data, configs)
        squash_mask(attach_sparsify_hook=True, **kwargs)
        state_dict()
        load_state_dict(state_dict)
torch.ao.pruning._experimental.data_scheduler
    BaseDataScheduler
torch.ao.pruning._experimental.data_scheduler.base_data_scheduler
    BaseDataScheduler(data_sparsifier, schedule_param, last_epoch=-1, verbose=False)
        get_schedule_param()
        state_dict()
        load_state_dict(state_dict)
        get_last_param()
        step()
torch.ao.pruning._experimental.data_sparsifier
    BaseDataSparsifier
    DataNormSparsifier
torch.ao.pruning._experimental.data_sparsifier.base_data_sparsifier
    BaseDataSparsifier(data_list=None, **defaults)
        prepare()  # before 2.6
        prepare(model, config)  # since 2.6
        add_data(name, data, reuse_mask=True, **config)
        get_data(name, return_original=True)
        state_dict()
        load_state_dict(state_dict, strict=True)
        get_mask(name)
        squash_mask(*args, leave_parametrized=True, names=None, **kwargs)
        step()
        update_mask(name, data, **kwargs)
torch.ao.pruning._experimental.data_sparsifier.data_norm_sparsifier
    DataNormSparsifier(data_list=None, sparsity_level=0.5, sparse_block_shape=(1, 4), zeros_per_block=None, norm='L1')
        update_mask(name, data, sparsity_level, sparse_block_shape, zeros_per_block, **kwargs)
torch.ao.pruning._experimental.data_sparsifier.quantization_utils
    post_training_sparse_quantize(model, data_sparsifier_class, sparsify_first=True, select_embeddings=None, **sparse_config)
torch.ao.pruning._experimental.pruner
    BaseStructuredSparsifier
    FPGMPruner
    LSTMSaliencyPruner
    SaliencyPruner
torch.ao.pruning._experimental.pruner.FPGM_pruner
    FPGMPruner(sparsity_level=0.5, dist=None)
        update_mask(module, tensor_name, sparsity_level, **kwargs)
torch.ao.pruning._experimental.pruner.base_structured_sparsifier
    BaseStructuredSparsifier(defaults, patterns=None)
        make_config_from_model(model, SUPPORTED_MODULES=None)
        prune()
torch.ao.pruning._experimental.pruner.lstm_saliency_pruner
    LSTMSaliencyPruner(defaults, patterns=None)
        update_mask(module, tensor_name, **kwargs)
torch.ao.pruning._experimental.pruner.match_utils
    apply_match(modules, pattern, node, matched_node_pattern)
torch.ao.pruning._experimental.pruner.prune_functions
    prune_linear(linear)
    prune_linear_linear(linear1, linear2)
    prune_linear_activation_linear(linear1, activation, linear2)
    prune_conv2d(conv2d)
    prune_conv2d_padded(conv2d_1)
    prune_conv2d_conv2d(conv2d_1, conv2d_2)
    prune_conv2d_activation_conv2d(conv2d_1, activation, conv2d_2)
    prune_conv2d_activation_pool_conv2d(c1, activation, pool, c2)
    prune_conv2d_pool_activation_conv2d(c1, pool, activation, c2)
    prune_conv2d_pool_flatten_linear(conv2d, pool, flatten, linear)
    prune_lstm_output_linear(lstm, getitem, linear)
    prune_lstm_output_layernorm_linear(lstm, getitem, layernorm, linear)
torch.ao.pruning._experimental.pruner.saliency_pruner
    SaliencyPruner(defaults, patterns=None)
        update_mask(module, tensor_name, **kwargs)
torch.ao.pruning._experimental.pruner.parametrization
    module_contains_param(module, parametrization)
    FakeStructuredSparsity(mask)
        forward(x)
        state_dict(*args, **kwargs)
    BiasHook(parametrization, prune_bias)
torch.ao.nn.sparse.quantized
    dynamic
    Linear
    LinearPackedParams
torch.ao.nn.sparse.quantized.dynamic
    Linear
torch.ao.nn.sparse.quantized.dynamic.linear
    Linear(in_features, out_features, row_block_size, col_block_size, bias=True, dtype=torch.qint8)
        forward(x)
        weight()
        bias()
        set_weight_bias(w, b, row_block_size, col_block_size)
        from_float(mod)  # before 2.4
        from_float(mod, use_precomputed_fake_quant=False)  # since 2.4
torch.ao.nn.sparse.quantized.linear
    LinearPackedParams(row_block_size=1, col_block_size=4, dtype=torch.qint8)
        set_weight_bias(weight, bias, row_block_size, col_block_size)
        forward(x)
    Linear(in_features, out_features, row_block_size, col_block_size, bias=True, dtype=torch.qint8)
        forward(x)
        weight()
        bias()
        set_weight_bias(w, b, row_block_size, col_block_size)
        from_float(mod)  # before 2.4
        from_float(mod, use_precomputed_fake_quant=False)  # since 2.4
torch.ao.nn.sparse.quantized.utils
    LinearBlockSparsePattern(row_block_size=1, col_block_size=4)
        block_size()
"""

#: What pytorch-lightning must be there for, in the same form.
CALLBACKS = """
torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks.data_sparsity
    PostTrainingDataSparsity(data_sparsifier_class, data_sparsifier_args)
        on_fit_end(trainer, pl_module)
    TrainingAwareDataSparsity(data_sparsifier_class, data_sparsifier_args, data_scheduler_class, data_scheduler_args)
        on_train_start(trainer, pl_module)
        on_train_epoch_start(trainer, pl_module)
        on_train_epoch_end(trainer, pl_module)
        on_train_end(trainer, pl_module)
"""

#: The operators by name: what each takes and gives, as TorchScript writes a schema, with P for the class of packed weights.
OPERATORS = {
    "sparse::qlinear_prepack": "(Tensor W, Tensor? B, int out_features_block_size, int in_features_block_size) -> P W_prepack",
    "sparse::qlinear_unpack": "(P W_prepack) -> (Tensor W_origin, Tensor? B_origin, int[] block_pattern)",
    "sparse::qlinear": "(Tensor X, P W_prepack, float Y_scale_i, int Y_zero_point_i) -> Tensor Y",
    "sparse::qlinear_relu": "(Tensor X, P W_prepack, float Y_scale_i, int Y_zero_point_i) -> Tensor Y",
    "sparse::qlinear_dynamic": "(Tensor X, P W_prepack) -> Tensor Y",
    "sparse::qlinear_relu_dynamic": "(Tensor X, P W_prepack) -> Tensor Y",
}
PACKED = "__torch__.torch.classes.sparse.LinearPackedParamsBase"

_LINE = re.compile(r"( *)(\w[\w.]*)(\(.*\))?(?:  # (since|before) ([\d.]+))?")


@dataclasses.dataclass(frozen=True)
class Name:
    """One public name.

    Args:
        module: the module that it is imported from.
        path: the name in the module, ``"Class"`` or ``"Class.method"``.
        signature: its arguments in brackets, as a caller sees them; None where only the name is written down.
    """

    module: str
    path: str
    signature: str | None

    def found(self) -> object:
        """What the installed packages have under this name.

        Raises:
            ImportError, AttributeError: if there is none.
        """
        owner = importlib.import_module(self.module)
        for part in self.path.split("."):
            owner = getattr(owner, part)
        return owner

    def found_signature(self) -> str:
        """The arguments of what ``found`` gives, written as in SURFACE; without those that were added behind them.

        Raises:
            ImportError, AttributeError, ValueError: if there is none.
        """
        owner = importlib.import_module(self.module)
        *classes, last = self.path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        signature = inspect.signature(getattr(owner, last))
        parameters = list(signature.parameters.values())
        if classes and inspect.isfunction(inspect.getattr_static(owner, last)):
            parameters = parameters[1:]
        if self.signature is not None:
            parameters = _without_additions(parameters, self.signature)
        parameters = [p.replace(annotation=p.empty, default=p.default if p.default is p.empty else _Shown(p.default)) for p in parameters]
        return str(inspect.Signature(parameters))


def _without_additions(parameters, written):
    """Parameters that are written down, and those that were added in another way than behind them and with a default."""
    arguments = ast.parse(f"def f{written}: pass").body[0].args
    in_order = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
    others = [each.arg for each in (*arguments.kwonlyargs, arguments.vararg, arguments.kwarg) if each is not None]
    last = max((i for i, each in enumerate(parameters) if each.name in in_order), default=-1)

    def added(index, parameter):
        optional = parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        behind = index > last or parameter.kind is parameter.KEYWORD_ONLY
        return optional and behind and parameter.name not in (*in_order, *others)

    return [parameter for index, parameter in enumerate(parameters) if not added(index, parameter)]


class _Shown:
    """A default value that is written as SURFACE writes it: a class, and each class in a set, by its name."""

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        if isinstance(self.value, set):
            return "{" + ", ".join(sorted(repr(_Shown(each)) for each in self.value)) + "}"
        return self.value.__name__ if isinstance(self.value, type) else repr(self.value)


def differences(names: list) -> list:
    """The arguments of these names that are not as written down: a line each, found and written, or what went wrong."""
    lines = []
    for name in names:
        if name.signature is not None:
            try:
                found = f"{name.path}{name.found_signature()}"
            except (ImportError, AttributeError, ValueError) as error:
                found = f"{type(error).__name__}: {error}"
            if found != f"{name.path}{name.signature}":
                lines.append(f"{found}, not {name.path}{name.signature}")
    return lines


def surface(version: tuple, text: str = SURFACE) -> list:
    """The names that a release has.

    Args:
        version: the release, a tuple of numbers.
        text: a table in the form of SURFACE.

    Returns:
        list[Name]: in the order of the table.

    Raises:
        ValueError: if a line of the table is none of the form described above; the message shows it.
    """
    names = []
    module = holder = ""
    for line in filter(str.strip, text.splitlines()):
        match = _LINE.fullmatch(line)
        if match is None or len(match[1]) not in (0, 4, 8):
            raise ValueError(f"no line of a surface: {line!r}")
        indent, name, signature, when, release = match.groups()
        if not indent:
            module = name
            continue
        if len(indent) == 4:
            holder = name
        if when is None or (when == "since") == (version[:2] >= version_tuple(release)[:2]):
            names.append(Name(module, name if len(indent) == 4 else f"{holder}.{name}", signature))
    return names
