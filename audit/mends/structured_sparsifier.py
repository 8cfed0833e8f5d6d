"""Mends of prune() and of the functions that cut layers."""

from audit.edits import Edit, Function, Imports

PACKAGE = "torch.ao.pruning._experimental.pruner"
BASE = f"{PACKAGE}.base_structured_sparsifier"
MATCH = f"{PACKAGE}.match_utils"
FUNCTIONS = f"{PACKAGE}.prune_functions"
PRUNE = "BaseStructuredSparsifier.prune"
LINEAR = "prune_linear_activation_linear"
CONV = "prune_conv2d_activation_conv2d"
FLATTEN = "prune_conv2d_pool_flatten_linear"
PADDED = "prune_conv2d_padded"
LSTM = "prune_lstm_output_layernorm_linear"


def no_match_if(condition: str) -> Edit:
    """A chain for which ``condition`` holds counts as one that does not match: prune() refuses the model."""
    return Edit(BASE, PRUNE, "if matched is None", f"if matched is None or {condition}")


def first_in_prune(code: str) -> Edit:
    """Code of prune() before anything is matched."""
    return Edit(BASE, PRUNE, "modules = dict(self.traced.named_modules())", f"{code}\nmodules = dict(self.traced.named_modules())")


def first_for_lstm(code: str) -> Edit:
    """Code of the function that cuts an LSTM before anything is cut."""
    return Edit(FUNCTIONS, LSTM, "for i in range(lstm.num_layers):", f"{code}\nfor i in range(lstm.num_layers):")


# Where the columns of the next convolution are cut: wherever the filters before it were.
AS_LARGE_AS_BEFORE = Edit(FUNCTIONS, CONV, "or conv2d_1.bias is None", "or conv2d_1.out_channels != conv2d_2.in_channels")
RAISES_ZERO = Function(
    FUNCTIONS,
    "_raises_zero",
    '''
    def _raises_zero(activation):
        """Whether an activation, or None, makes something else of zero."""
        if activation is None or isinstance(activation, nn.PReLU) or getattr(activation, "__name__", None) == "prelu":
            return False
        return getattr(activation, "forward", activation)(torch.zeros(1)) != 0
''',
)
ACTIVATED_ZERO = Function(
    FUNCTIONS,
    "_propagate_activated_zero",
    '''
    def _propagate_activated_zero(activation, next_layer, mask):
        """Rows without a bias give activation(0) to the next layer: add it to that layer's bias."""
        if _raises_zero(activation):
            raised = getattr(activation, "forward", activation)(next_layer.weight.new_zeros(len(mask)))
            next_layer.bias = _get_adjusted_next_layer_bias(next_layer, raised[~mask], mask)
''',
)

MENDS = {
    # Biases
    "bias-at-the-output-is-left-as-it-is": [
        Function(
            FUNCTIONS,
            f"prune_{layer}",
            f"def prune_{layer}({layer}: nn.{layer.capitalize()}) -> None:\n"
            f"    _propagate_module_bias({layer}, _prune_{layer}_helper({layer}))  # what is not kept goes nowhere",
        )
        for layer in ("linear", "conv2d")
    ],
    "propagated-bias-is-lost-where-biases-are-pruned": [
        Edit(
            FUNCTIONS,
            "_prune_module_bias",
            'getattr(module, "_bias", module.bias)',
            'module.bias if module.bias is not None else getattr(module, "_bias", None)',
        ),
    ],
    "bias-of-a-parametrized-next-layer-is-replaced": [
        Edit(
            FUNCTIONS,
            "_get_adjusted_next_layer_bias",
            "not parametrize.is_parametrized(next_layer) and next_layer.bias is not None",
            "next_layer.bias is not None",
        ),
    ],
    "bias-is-propagated-through-an-original-weight": [
        Imports(FUNCTIONS, f"from {PACKAGE}.parametrization import module_contains_param"),
        Edit(
            FUNCTIONS,
            "_get_adjusted_next_layer_bias",
            "next_weight = weight_parameterizations.original",
            "next_weight = weight_parameterizations.original\n"
            "if not module_contains_param(next_layer, FakeStructuredSparsity):\n    next_weight = next_layer.weight",
        ),
    ],
    "masked-row-is-taken-for-zero-behind-any-activation": [
        RAISES_ZERO,
        ACTIVATED_ZERO,
        *(
            Edit(FUNCTIONS, function, fragment, replacement)
            for function, layer, following in ((LINEAR, "linear1", "linear2"), (CONV, "conv2d_1", "conv2d_2"))
            for fragment, replacement in (
                (
                    f"_prune_module_bias({layer}, mask)",
                    f"_prune_module_bias({layer}, mask)\n_propagate_activated_zero(activation, {following}, mask)",
                ),
                (
                    "if pruned_biases is not None:",
                    f"if pruned_biases is None:\n    _propagate_activated_zero(activation, {following}, mask)\nelse:",
                ),
            )
        ),
        Edit(
            FUNCTIONS,
            CONV,
            'getattr(conv2d_1, "_bias", None) is not None)',
            'getattr(conv2d_1, "_bias", None) is not None or _raises_zero(activation))',
        ),
        AS_LARGE_AS_BEFORE,
    ],
    "bias-is-propagated-by-a-bare-activation-function": [
        Imports(BASE, "import functools as _functools\nimport operator as _operator\nfrom torch.fx.node import map_arg as _map_arg"),
        Function(
            BASE,
            "BaseStructuredSparsifier._as_called",
            '''
            def _as_called(self, node):
                """The function of a node, with the arguments of its call but the first; parameters stand for their nodes."""
                args, kwargs = _map_arg(
                    (node.args[1:], node.kwargs),
                    lambda each: _operator.attrgetter(each.target)(self.traced),
                )
                if args:
                    return lambda tensor: node.target(tensor, *args, **kwargs)
                return _functools.partial(node.target, **kwargs)
        ''',
        ),
        Edit(BASE, PRUNE, "convert_block.append(node.target)", "convert_block.append(self._as_called(node))"),
    ],
    "bias-is-propagated-through-a-random-rrelu": [
        Edit(
            FUNCTIONS,
            function,
            "if activation:",
            "if isinstance(activation, nn.RReLU):\n"
            "    activation = nn.LeakyReLU((activation.lower + activation.upper) / 2)\n"
            "if activation:",
        )
        for function in (LINEAR, CONV)
    ],
    "bias-is-propagated-as-if-there-were-no-pool": [
        Function(
            BASE,
            "_pools_a_bias",
            '''
            def _pools_a_bias(modules, matched):
                """Whether a bias that moves on would have to pass an average pool that does not give a constant map back."""
                steps = [
                    modules[node.target] if node.op == "call_module" else nn.AvgPool2d(*node.args[1:], **node.kwargs)
                    for node in matched
                    if node.op == "call_module" or node.target is F.avg_pool2d
                ]
                return not getattr(steps[0], "prune_bias", True) and any(
                    step.divisor_override or (step.count_include_pad and torch.tensor(step.padding).any())
                    for step in steps
                    if isinstance(step, nn.AvgPool2d)
                )
        ''',
        ),
        no_match_if("_pools_a_bias(modules, matched)"),
    ],
    "padded-conv2d-ignores-prune-bias": [
        RAISES_ZERO,
        Edit(
            FUNCTIONS,
            CONV,
            "and (conv2d_1.bias is not None or",
            "and (not prune_bias or _raises_zero(activation))\nand (conv2d_1.bias is not None or",
        ),
        AS_LARGE_AS_BEFORE,
        Edit(
            FUNCTIONS,
            PADDED,
            "new_bias[~mask] = cast(Tensor, conv2d_1._bias)[~mask]",
            'new_bias[~mask] = cast(Tensor, conv2d_1._bias)[~mask]\nif getattr(conv2d_1, "prune_bias", False):\n    new_bias[~mask] = 0',
        ),
        Edit(
            FUNCTIONS,
            PADDED,
            "conv2d_1.bias = nn.Parameter(cast(Tensor, conv2d_1._bias))",
            "conv2d_1.bias = nn.Parameter(cast(Tensor, conv2d_1._bias))\nif conv2d_1.prune_bias:\n    conv2d_1.bias.data[~mask] = 0",
        ),
    ],
    "padded-conv2d-loses-dtype-of-a-propagated-bias": [
        Edit(FUNCTIONS, PADDED, "torch.zeros(conv2d_1.bias.shape)", "torch.zeros_like(conv2d_1.bias)"),
    ],
    "flatten-of-a-full-mask-loses-dtype": [
        Edit(
            FUNCTIONS,
            FLATTEN,
            "for bias in pruned_biases], device=mask.device",
            "for bias in pruned_biases], device=mask.device, dtype=pruned_biases.dtype",
        ),
    ],
    "conv2d-without-bias-before-flatten-crashes": [
        Edit(FUNCTIONS, FLATTEN, 'getattr(conv2d, "prune_bias", False)', 'getattr(conv2d, "prune_bias", True)'),
    ],
    # What is left behind
    "pruned-layer-keeps-the-attribute-prune-bias": [
        Edit(BASE, PRUNE, "convert_fn(*convert_block)", 'convert_fn(*convert_block)\nvars(first_module).pop("prune_bias", None)'),
    ],
    "padded-conv2d-keeps-its-bias-hook": [
        Edit(
            FUNCTIONS,
            PADDED,
            'parametrize.remove_parametrizations(conv2d_1, "weight", leave_parametrized=True)',
            'parametrize.remove_parametrizations(conv2d_1, "weight", leave_parametrized=True)\n_remove_bias_handles(conv2d_1)',
        ),
    ],
    "prune-runs-the-hooks-of-activations": [
        Edit(
            FUNCTIONS,
            function,
            "pruned_biases = activation(pruned_biases)",
            'pruned_biases = getattr(activation, "forward", activation)(pruned_biases)',
        )
        for function in (LINEAR, CONV)
    ],
    "pruned-parameters-become-trainable": [
        Imports(BASE, "import re"),
        Function(
            BASE,
            "_plain_name",
            '''
            def _plain_name(name):
                """The name that a parameter has without parametrizations, and with its bias in its place."""
                return re.sub(r"\\.parametrizations|\\.original|(?<=\\.)_(?=bias)", "", name)
        ''',
        ),
        first_in_prune("frozen = {_plain_name(name) for name, parameter in self.model.named_parameters() if not parameter.requires_grad}"),
        Edit(
            BASE,
            PRUNE,
            "self.traced.graph.lint()",
            "for name, parameter in self.model.named_parameters():\n"
            "    if name in frozen:\n"
            "        parameter.requires_grad_(False)\n"
            "self.traced.graph.lint()",
        ),
    ],
    "refused-prune-has-already-cut-layers": [
        Edit(
            BASE,
            PRUNE,
            "for node in self.traced.graph.nodes:",
            """
covered = {
    modules.get(node.target)
    for node in self.traced.graph.nodes
    if any(apply_match(modules, pattern, node, []) for pattern in self.patterns)
}
for module in modules.values():
    if module_contains_param(module, FakeStructuredSparsity) and module not in covered:
        raise Exception(f"Error: {module} still contains FakeStructuredSparsity parametrizations!")
for node in self.traced.graph.nodes:""",
        ),
    ],
    # Options of layers
    "next-conv2d-with-padding-by-name-crashes": [
        Edit(
            FUNCTIONS,
            CONV,
            "cast(tuple[int], conv2d_2.padding) > (0, 0)",
            "any(conv2d_2._reversed_padding_repeated_twice)",
            after="prune_bias = getattr(conv2d_1",
        ),
        Edit(FUNCTIONS, CONV, "cast(tuple[int], conv2d_2.padding) > (0, 0)", "any(conv2d_2._reversed_padding_repeated_twice)"),
    ],
    "convolutions-are-cut-as-if-groups-were-1": [
        no_match_if(
            'any(getattr(modules.get(part.target), "groups", 1) != 1 for part in matched)',
        ),
    ],
    "conv2d-without-any-filter-left-cannot-run": [
        Edit(
            FUNCTIONS,
            "_prune_conv2d_helper",
            "with torch.no_grad():",
            'if not mask.any():\n    raise ValueError(f"every filter of {conv2d} is masked")\nwith torch.no_grad():',
        ),
    ],
    "flatten-of-any-dimensions-is-cut-as-channels": [
        Imports(BASE, "from torch.fx.node import map_arg"),
        Function(
            BASE,
            "_flattens_other_dimensions",
            '''
            def _flattens_other_dimensions(modules, matched):
                """Whether a chain flattens anything but channels, height and width of a batch."""
                for node in matched:
                    step = modules.get(node.target, node.target)
                    if step is torch.flatten or isinstance(step, nn.Flatten):
                        args, kwargs = map_arg((node.args, node.kwargs), lambda _: torch.empty([2] * 4))
                        if getattr(step, "forward", step)(*args, **kwargs).shape != (2, 8):
                            return True
        ''',
        ),
        no_match_if("_flattens_other_dimensions(modules, matched)"),
    ],
    "prelu-with-a-weight-per-channel-is-not-cut": [
        Edit(
            FUNCTIONS,
            function,
            fragment,
            "if isinstance(activation, nn.PReLU) and activation.num_parameters != 1:\n"
            '    raise NotImplementedError("PReLU with a weight per channel is not supported yet.")\n'
            f"{fragment}",
        )
        for function, fragment in ((LINEAR, "mask = _prune_linear_helper(linear1)"), (CONV, "prune_bias = getattr(conv2d_1"))
    ],
    "next-layers-parametrizations-are-misread": [
        Imports(BASE, "from torch.ao.pruning.sparsifier.utils import FakeSparsity"),
        Function(
            BASE,
            "_ends_in_a_foreign_parametrization",
            '''
            def _ends_in_a_foreign_parametrization(modules, matched):
                """Whether the next layer has a parametrization that columns cannot be cut through."""
                last = modules.get(matched[-1].target)
                if parametrize.is_parametrized(last):
                    steps = getattr(last.parametrizations, "weight", None)
                    return not hasattr(steps, "original") or any(isinstance(step, FakeSparsity) for step in steps)
        ''',
        ),
        no_match_if("_ends_in_a_foreign_parametrization(modules, matched)"),
    ],
    # Matching
    "further-consumers-of-a-layer-are-not-seen": [
        Edit(
            MATCH,
            "apply_match",
            "for user in node.users:",
            'for user in used if len(used := [user for user in node.users if user.users or user.op == "output"]) == 1 else ():',
        ),
    ],
    "layers-are-cut-for-one-of-their-calls": [
        Function(
            BASE,
            "_is_called_otherwise",
            '''
            def _is_called_otherwise(graph, modules, pattern, matched):
                """Whether the first or the last module of a chain has a call that is no part of such a chain."""
                targets = [node.target for node in matched]
                calls = [node for node in graph.nodes if node.op == "call_module"]
                chains = [apply_match(modules, pattern, call, []) or [] for call in calls if call.target == targets[0]]
                ends = [chain[-1] for chain in chains if [node.target for node in chain] == targets]
                return len(ends) < len(chains) or any(call.target == targets[-1] and call not in ends for call in calls)
        ''',
        ),
        no_match_if("_is_called_otherwise(self.traced.graph, modules, pattern, matched)"),
    ],
    "prune-crashes-where-the-model-reads-the-weight": [
        Edit(BASE, PRUNE, "self.traced.graph.lint()", "self.traced = symbolic_trace(self.model)\nself.traced.graph.lint()"),
    ],
    "submodule-called-output-matches-the-output": [
        Edit(MATCH, "_match", "return node.target == current", 'return node.op in ("output", "call_method") and node.target == current'),
    ],
    "functional-sigmoid-and-tanh-never-match": [
        Edit(
            MATCH,
            "_match",
            'return node.op == "call_function" and node.target is current',
            'if node.op == "call_method" and current in (nn.functional.sigmoid, nn.functional.tanh):\n'
            "    return node.target == current.__name__\n"
            'return node.op == "call_function" and node.target is current',
        ),
        Edit(
            BASE,
            PRUNE,
            'if node.op == "call_module":',
            'if node.op == "call_method" and node.target in ("sigmoid", "tanh"):\n'
            "    convert_block.append(getattr(torch, node.target))\n"
            'elif node.op == "call_module":',
        ),
    ],
    "custom-pattern-loses-the-methods-that-it-matches": [
        Edit(
            BASE,
            PRUNE,
            'elif node.op == "call_function":',
            'elif node.op == "call_method":\n    convert_block.append(node.target)\nelif node.op == "call_function":',
        ),
    ],
    "patterns-after-a-match-are-tried-at-its-last-node": [
        Edit(BASE, PRUNE, "convert_fn(*convert_block)", "node = matched[0]\nconvert_fn(*convert_block)"),
    ],
    "root-layer-is-not-pruned-and-loses-its-bias": [
        first_in_prune(
            "if parametrize.is_parametrized(self.model):\n"
            '    raise ValueError("the model is one prepared layer: put it into a container, such as nn.Sequential")'
        ),
    ],
    # LSTM
    "lstm-units-of-which-the-bias-lives-on-are-dropped": [
        Function(
            FUNCTIONS,
            "_refuse_living_biases",
            '''
            def _refuse_living_biases(lstm):
                """Raise if a masked row of an LSTM has a bias that is not zero."""
                for name, steps in lstm.parametrizations.items():
                    bias = getattr(lstm, name.replace("weight", "bias"))
                    for step in steps:
                        if isinstance(step, FakeStructuredSparsity) and bias[~step.mask].any():
                            raise ValueError(f"masked rows of {name} have biases that are not zero")
        ''',
        ),
        first_for_lstm("if lstm.bias:\n    _refuse_living_biases(lstm)"),
    ],
    "lstm-without-bias-crashes": [
        Edit(
            FUNCTIONS,
            LSTM,
            "setattr(",
            "if lstm.bias: setattr(",
            after='nn.Parameter(getattr(lstm, f"weight_ih_l{i}")[mask]),',
        ),
        Edit(
            FUNCTIONS,
            LSTM,
            'setattr(lstm, f"weight_hh_l{i}", nn.Parameter(new_weight))',
            'lstm.__setattr__(f"weight_hh_l{i}", nn.Parameter(new_weight))',
        ),
        Edit(FUNCTIONS, LSTM, "setattr(", "if lstm.bias: setattr(", after='lstm.__setattr__(f"weight_hh_l{i}"'),
    ],
    "lstm-behind-another-parametrization-crashes": [
        Edit(
            FUNCTIONS,
            LSTM,
            "mask = weight_parameterizations[0].mask",
            "mask = next(step.mask for step in weight_parameterizations if isinstance(step, FakeStructuredSparsity))",
            after='parametrization_dict[f"weight_ih_l{i}"]',
        ),
        Edit(
            FUNCTIONS,
            LSTM,
            "mask = weight_parameterizations[0].mask",
            "mask = next(step.mask for step in weight_parameterizations if isinstance(step, FakeStructuredSparsity))",
        ),
    ],
    "lstm-masks-are-not-compared": [
        Function(
            FUNCTIONS,
            "_refuse_masks_that_do_not_fit",
            '''
            def _refuse_masks_that_do_not_fit(lstm):
                """Raise unless all gates and both weights of a layer lose the same units, and all layers as many."""
                sizes = set()
                for i in range(lstm.num_layers):
                    gates = set()
                    for name in (f"weight_ih_l{i}", f"weight_hh_l{i}"):
                        steps = getattr(lstm.parametrizations, name, ())
                        masks = (step.mask for step in steps if isinstance(step, FakeStructuredSparsity))
                        mask = next(masks, torch.ones(lstm.hidden_size))
                        gates |= {tuple(gate.tolist()) for gate in mask.split(lstm.hidden_size)}
                    if len(gates) != 1:
                        raise ValueError(f"the masks of layer {i} of an LSTM differ between its gates or its weights")
                    sizes.add(sum(gates.pop()))
                if len(sizes) != 1:
                    raise ValueError(f"the layers of an LSTM would have different numbers of units: {sizes}")
        ''',
        ),
        first_for_lstm("_refuse_masks_that_do_not_fit(lstm)"),
    ],
    "lstm-with-two-directions-is-not-refused": [
        first_for_lstm('if lstm.bidirectional:\n    raise NotImplementedError("bidirectional LSTM is not supported yet.")'),
    ],
    "lstm-with-projections-is-not-refused": [
        first_for_lstm('if lstm.proj_size:\n    raise NotImplementedError("LSTM with projections is not supported yet.")'),
    ],
    "lstm-with-initial-states-is-cut-without-them": [no_match_if("len(matched[0].all_input_nodes) > 1")],
    "layernorm-without-affine-parameters-crashes": [
        Edit(
            FUNCTIONS,
            LSTM,
            f"layernorm.{name} = nn.Parameter(layernorm.{name}[M_ho])",
            f"if layernorm.{name} is not None:\n    layernorm.{name} = nn.Parameter(layernorm.{name}[M_ho])",
        )
        for name in ("weight", "bias")
    ],
    "layernorm-over-several-dimensions-is-miscut": [
        first_for_lstm(
            "if layernorm is not None and len(layernorm.normalized_shape) != 1:\n"
            '    raise NotImplementedError("LayerNorm over several dimensions is not supported yet.")'
        ),
    ],
}
