"""Mends of the activation sparsifier."""

from dataclasses import replace

from audit.edits import Edit, Function, Imports

MODULE = "torch.ao.pruning._experimental.activation_sparsifier.activation_sparsifier"
AGGREGATE = "ActivationSparsifier._aggregate_hook"
SPARSIFY = "ActivationSparsifier._sparsify_hook"
REGISTER = "ActivationSparsifier.register_layer"
SQUASH = "ActivationSparsifier.squash_mask"
SET_STATE = "ActivationSparsifier.__set_state__"
AGGREGATES = 'config["hook_state"] == "aggregate":'
SPARSIFIES = 'config["hook_state"] == "sparsify":'

MENDS: dict[str, list] = {
    "aggregate-keeps-the-autograd-graph": [
        Edit(MODULE, AGGREGATE, "input_data = input[0]", "input_data = input[0].detach()"),
    ],
    "aggregate-starts-from-zeros": [
        Edit(MODULE, AGGREGATE, "data = torch.zeros_like(input_data)", ""),
        Edit(
            MODULE,
            AGGREGATE,
            "out_data = agg_fn(data, input_data)",
            "out_data = input_data.clone() if data is None else agg_fn(data, input_data)",
        ),
        Edit(MODULE, AGGREGATE, "torch.zeros_like(data_feature)", "None"),
        Edit(
            MODULE, AGGREGATE, "agg_fn(curr_data, data_feature)", "data_feature if curr_data is None else agg_fn(curr_data, data_feature)"
        ),
    ],
    "documented-mask-fn-crashes": [
        Edit(MODULE, "ActivationSparsifier", "torch.eye(data.shape).to(data.device)", "(data > data.median()).to(data.dtype)"),
    ],
    "features-pass-through-a-float-tensor": [
        Edit(MODULE, AGGREGATE, "torch.Tensor([features[feature_idx]])", "torch.as_tensor(features[feature_idx]).reshape(-1)"),
        Edit(MODULE, SPARSIFY, "torch.Tensor([features[feature_idx]])", "torch.as_tensor(features[feature_idx]).reshape(-1)"),
    ],
    "functions-must-be-copyable": [
        Edit(
            MODULE,
            REGISTER,
            "local_args = copy.deepcopy(self.defaults)",
            "local_args = {key: value if callable(value) else copy.deepcopy(value) for key, value in self.defaults.items()}",
        ),
    ],
    "hooks-are-closures": [
        Function(
            MODULE,
            "_Hook",
            """
            class _Hook:
                def __init__(self, sparsifier, kind, name):
                    getattr(sparsifier, kind)(name)
                    if kind == "_sparsify_hook":
                        whole, sparsifier = sparsifier, object.__new__(type(sparsifier))
                        sparsifier.state = {name: whole.state[name]}
                        sparsifier.data_groups = {name: {key: whole.data_groups[name][key] for key in ("features", "feature_dim")}}
                    self.sparsifier, self.kind, self.name = sparsifier, kind, name

                def __call__(self, *arguments):
                    return getattr(self.sparsifier, self.kind)(self.name)(*arguments)
            """,
        ),
        Edit(MODULE, REGISTER, "self._aggregate_hook(name=name)", '_Hook(self, "_aggregate_hook", name)'),
        Edit(MODULE, SQUASH, "self._sparsify_hook(name)", '_Hook(self, "_sparsify_hook", name)'),
        Edit(MODULE, SET_STATE, "self._aggregate_hook(name)", '_Hook(self, "_aggregate_hook", name)'),
        Edit(MODULE, SET_STATE, "self._sparsify_hook(name)", '_Hook(self, "_sparsify_hook", name)'),
    ],
    "hooks-need-a-positional-input": [
        Imports(MODULE, "import inspect"),
        Function(
            MODULE,
            "_Named",
            """
            class _Named:
                def __init__(self, hook):
                    self.hook = hook

                def __call__(self, module, args, kwargs):
                    bound = inspect.signature(module.forward).bind(*args, **kwargs)
                    result = self.hook(module, bound.args)
                    return None if result is None else ((result,), bound.kwargs)
            """,
        ),
        Function(
            MODULE,
            "_attach",
            """
            def _attach(layer):
                return lambda hook: layer.register_forward_pre_hook(_Named(hook), with_kwargs=True)
            """,
        ),
        Edit(MODULE, REGISTER, "layer.register_forward_pre_hook(", "_attach(layer)("),
        Edit(MODULE, SQUASH, 'configs["layer"].register_forward_pre_hook(', '_attach(configs["layer"])('),
        Edit(MODULE, SET_STATE, "layer.register_forward_pre_hook(", "_attach(layer)(", after=AGGREGATES),
        Edit(MODULE, SET_STATE, "layer.register_forward_pre_hook(", "_attach(layer)(", after=SPARSIFIES),
    ],
    "load-keeps-the-old-hooks": [
        Edit(
            MODULE,
            SET_STATE,
            "self.__dict__.update(state)",
            'for config in self.data_groups.values():\n    if "hook" in config:\n        config["hook"].remove()\n'
            "self.__dict__.update(state)",
        ),
    ],
    "load-of-a-layer-without-hook-crashes": [
        Edit(MODULE, SET_STATE, "layer = fqn_to_module(self.model, name)", "hook = None\nlayer = fqn_to_module(self.model, name)"),
        Edit(MODULE, SET_STATE, 'config["hook"] = hook', 'if hook is not None:\n    config["hook"] = hook'),
    ],
    "load-takes-over-the-given-state": [
        Edit(
            MODULE,
            "ActivationSparsifier.load_state_dict",
            "self.__set_state__(",
            "data_groups = {\n"
            "    name: {key: list(value) if isinstance(value, list) else value for key, value in config.items()}\n"
            "    for name, config in data_groups.items()\n"
            "}\n"
            "self.__set_state__(",
        ),
    ],
    "masks-are-made-in-the-hook": [
        Edit(
            MODULE,
            AGGREGATE,
            'self.state[name]["mask"] = torch.ones_like(input_data)',
            'if self.state[name]["mask"] is None:\n'
            "    with torch.inference_mode(False):\n"
            '        self.state[name]["mask"] = input_data.new_ones(())',
        ),
        Edit(
            MODULE,
            AGGREGATE,
            'self.state[name]["mask"] = [0 for _ in range(len(features))]',
            'if self.state[name]["mask"] is None:\n'
            "    with torch.inference_mode(False):\n"
            '        self.state[name]["mask"] = [input_data.new_ones(()) for _ in features]',
        ),
        Edit(MODULE, AGGREGATE, 'self.state[name]["mask"][feature_idx] = torch.ones_like(', "str("),
    ],
    "masks-keep-dtype-and-device": [
        Edit(MODULE, SPARSIFY, "input_data * mask", "input_data * mask.to(input_data)"),
        Edit(MODULE, SPARSIFY, "* mask[feature_idx]", "* mask[feature_idx].to(input_data)"),
    ],
    "refused-load-changes-the-sparsifier": [
        Edit(
            MODULE,
            SET_STATE,
            'state["state"] = self._convert_mask(',
            'for name in state["data_groups"]:\n'
            "    if fqn_to_module(self.model, name) is None:\n"
            '        raise AssertionError(f"layer {name} not found in the model")\n'
            'state["state"] = self._convert_mask(',
        ),
    ],
    "refused-registration-loses-the-layer": [
        Edit(MODULE, REGISTER, "self.unregister_layer(name=name)", ""),
        Edit(
            MODULE,
            REGISTER,
            "self._safe_rail_checks(local_args)",
            "self._safe_rail_checks(local_args)\nif name in self.data_groups:\n    self.unregister_layer(name=name)",
        ),
    ],
    "refused-squash-removes-the-hooks": [
        Edit(
            MODULE,
            SQUASH,
            "for name, configs in self.data_groups.items():",
            "for name in self.data_groups if attach_sparsify_hook else ():\n"
            "    self.get_mask(name)\n"
            "for name, configs in self.data_groups.items():",
        ),
    ],
    "sparsify-drops-further-inputs": [
        Edit(
            MODULE,
            SPARSIFY,
            "return hook",
            "def first_alone(module, input):\n    return hook(module, input), *input[1:]\n\nreturn first_alone",
        ),
    ],
    "sparsify-writes-into-the-input": [
        Edit(MODULE, SPARSIFY, "for feature_idx in range(", "input_data = input_data.clone()\nfor feature_idx in range("),
    ],
    "squash-keeps-the-aggregated-data": [
        Edit(
            MODULE,
            SQUASH,
            'self.data_groups[name]["hook_state"] = "None"',
            'configs.pop("data", None)\nself.data_groups[name]["hook_state"] = "None"',
        ),
    ],
    "dense-squash-is-half-done": [
        Edit(MODULE, SQUASH, 'configs.pop("hook")', ""),
        Edit(MODULE, SQUASH, 'configs["hook"].remove()', 'if "hook" in configs:\n    configs.pop("hook").remove()'),
        Edit(MODULE, SQUASH, '"sparsify"', '"sparsify" if attach_sparsify_hook else "None"'),
        Edit(
            MODULE,
            "ActivationSparsifier.unregister_layer",
            'self.data_groups[name]["hook"].remove()',
            'if "hook" in self.data_groups[name]:\n    self.data_groups[name]["hook"].remove()',
        ),
    ],
    "state-dict-holds-functions": [
        Function(
            MODULE,
            "_without_functions",
            """
            def _without_functions(config):
                return {key: value for key, value in config.items() if not callable(value)}
            """,
        ),
        Function(
            MODULE,
            "ActivationSparsifier._function",
            """
            def _function(self, name, key):
                return self.data_groups[name].get(key) or self.kept.get(name, self.defaults)[key]
            """,
        ),
        Edit(
            MODULE,
            "ActivationSparsifier.state_dict",
            'return {"state": state',
            'data_groups = {name: _without_functions(config) for name, config in data_groups.items()}\nreturn {"state": dict(state)',
        ),
        Edit(MODULE, "ActivationSparsifier.state_dict", '"defaults": self.defaults', '"defaults": _without_functions(self.defaults)'),
        Edit(
            MODULE,
            "ActivationSparsifier.load_state_dict",
            "self.__set_state__(",
            'functions = ("aggregate_fn", "reduce_fn", "mask_fn")\n'
            "self.kept = {name: {key: self._function(name, key) for key in functions} for name in self.data_groups}\n"
            "defaults = {**self.defaults, **defaults}\n"
            "self.__set_state__(",
        ),
        Edit(MODULE, AGGREGATE, 'self.data_groups[name]["aggregate_fn"]', 'self._function(name, "aggregate_fn")'),
        Edit(MODULE, "ActivationSparsifier.update_mask", 'configs["reduce_fn"]', 'self._function(name, "reduce_fn")'),
        Edit(MODULE, "ActivationSparsifier.update_mask", 'configs["mask_fn"]', 'self._function(name, "mask_fn")'),
    ],
    "step-needs-every-layer-to-have-run": [
        Edit(
            MODULE, "ActivationSparsifier.step", 'data = configs["data"]', 'if "data" not in configs:\n    continue\ndata = configs["data"]'
        ),
    ],
    "unregister-of-unknown-name-adds-a-group": [
        Edit(
            MODULE,
            "ActivationSparsifier.unregister_layer",
            "# detach any hooks attached",
            'if name not in self.data_groups:\n    raise ValueError(f"no layer is registered as {name!r}")\n# detach any hooks attached',
        ),
    ],
}
JOINT = {
    ("hooks-need-a-positional-input", "sparsify-drops-further-inputs"): [
        replace(item, source=item.source.replace("(result,)", "(result, *bound.args[1:])")) if isinstance(item, Function) else item
        for item in MENDS["hooks-need-a-positional-input"]
    ],
}
