"""Mistakes in structured pruning."""

from audit.history import mistake

PRUNER = "torch.ao.pruning._experimental.pruner"
BASE = f"{PRUNER}.base_structured_sparsifier"
FUNCTIONS = f"{PRUNER}.prune_functions"
MATCH = f"{PRUNER}.match_utils"
PARAM = f"{PRUNER}.parametrization"
SALIENCY = f"{PRUNER}.saliency_pruner"
FPGM = f"{PRUNER}.FPGM_pruner"
LSTM = f"{PRUNER}.lstm_saliency_pruner"

START = """
from torch.ao.pruning._experimental.pruner import *
class Odd(BaseStructuredSparsifier):
    def update_mask(self, module, tensor_name, **kwargs):
        getattr(module.parametrizations, tensor_name)[0].mask.data[1::2] = False
class Two(nn.Module):
    def __init__(self, between):
        super().__init__()
        self.a, self.b, self.between = nn.Linear(6, 4), nn.Linear(4, 2), between
    def forward(self, x):
        return self.b(self.between(self.a(x)))
def pruned(model, names=('0',), kind=Odd, x=None, settings=None, **more):
    torch.manual_seed(1)
    for p in model.parameters(): p.data = torch.randn_like(p)
    s = kind({}) if kind is Odd else kind(**(settings or {}))
    s.prepare(model, [{'tensor_fqn': n + '.weight', **more} for n in names])
    s.step()
    out = s.prune()
    return out
def shape(model, x, *names, **more):
    out = pruned(model, *names, **more)
    print([tuple(p.shape) for p in out.parameters()], [round(v, 3) for v in out(x).flatten().tolist()[:6]])
    return out
X, C = torch.linspace(-1, 1, 6).reshape(1, 6), torch.linspace(-1, 1, 75).reshape(1, 3, 5, 5)
conv = lambda a, b, k=3, **s: nn.Conv2d(a, b, k, **s)
"""
LINEARS = START + "shape(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)), X)\n"
UNBIASED = START + "shape(nn.Sequential(nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 2)), X, ('0',), prune_bias=False)\n"
BOTH = START + "shape(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2)), X, ('0', '2'), prune_bias=False)\n"
CONVS = START + "shape(nn.Sequential(conv(3, 4), conv(4, 2)), C, ('0',), prune_bias=BIAS)\n"
PADDED = START + "shape(nn.Sequential(conv(3, 4), conv(4, 2, padding=1)), C, ('0',), prune_bias=False)\n"
FLAT = START + "shape(nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)), C, ('0',), prune_bias=BIAS)\n"
PATTERNS = f"from {BASE} import _get_default_structured_pruning_patterns as p\nimport torch.nn.functional as F\n"
MASK = (
    START
    + "def mask(kind, weight, level=0.5, **settings):\n"
    + "    m = nn.Linear(*weight.shape[::-1]); m.weight.data = weight; s = kind(**settings)\n"
    + "    s.prepare(nn.Sequential(m), [{'tensor_fqn': '0.weight', 'sparsity_level': level}]); s.step(); return s, masks(s)\n"
    + "W = torch.tensor([[1.0, 1], [5, 5], [2, 2], [9, 9], [2.5, 2.5]])\n"
)
TRAINED = (
    START
    + "def grads(m): print({n: p.requires_grad for n, p in m.named_parameters()})\n"
    + "class Same(nn.Module):\n    def forward(self, x): return x\n"
    + "def masked(model, *names):\n    s = Odd({}); s.prepare(model, [{'tensor_fqn': n + '.weight'} for n in names]); s.step(); return s\n"
    + "from torch.ao.pruning._experimental.pruner import prune_functions as functions\n"
)
RNN = (
    TRAINED
    + "class Net(nn.Module):\n    def __init__(self, layers=2, norm=False):\n        super().__init__()\n"
    + "        self.lstm, self.head = nn.LSTM(4, 4, layers), nn.Linear(4, 2)\n        if norm: self.norm = nn.LayerNorm(4)\n"
    + "    def forward(self, x):\n        x = self.lstm(x)[0]\n        return self.head(self.norm(x) if hasattr(self, 'norm') else x)\n"
    + "def rnn(layers=2, norm=False, dtype=torch.float, same=None):\n    torch.manual_seed(2)\n    net = Net(layers, norm).to(dtype)\n"
    + "    m = torch.tensor([True, False, True, True] * 4); names = [n for n, p in net.lstm.named_parameters() if 'weight' in n]\n"
    + "    if same is not None: nn.utils.parametrize.register_parametrization(net.head, 'weight', same)\n"
    + "    s = Odd({}); s.prepare(net, [{'tensor_fqn': 'lstm.' + n, 'mask': m.clone()} for n in names])\n"
    + "    out = s.prune(); print([(n, tuple(p.shape)) for n, p in out.named_parameters()], out.lstm.hidden_size, out.head.in_features)\n"
    + "    print([round(float(p.sum()), 4) for p in out.parameters()]); return out\n"
)

MISTAKES = [
    mistake(
        "linear-is-not-pruned-by-default",
        BASE,
        "_get_supported_structured_pruning_modules",
        "nn.Linear,",
        "",
        START + "s = Odd({}); s.prepare(linears(4, 4), None); print(len(s.groups))",
    ),
    mistake(
        "activation-function-is-forgotten",
        BASE,
        "_get_supported_activation_functions",
        "F.relu6,",
        "",
        PATTERNS + "print((nn.Linear, F.relu6, nn.Linear) in p())",
    ),
    mistake(
        "activation-module-is-forgotten",
        BASE,
        "_get_supported_activation_modules",
        "nn.GELU,",
        "",
        PATTERNS + "print((nn.Linear, nn.GELU, nn.Linear) in p())",
    ),
    mistake(
        "conv-alone-is-pruned-as-linear",
        BASE,
        "_get_default_structured_pruning_patterns",
        '(nn.Conv2d, "output"): prune_conv2d,',
        '(nn.Conv2d, "output"): prune_linear,',
        START + "out = pruned(nn.Sequential(conv(3, 4))); print(getattr(out, '0').out_channels)",
    ),
    mistake(
        "lstm-without-a-norm-is-forgotten",
        BASE,
        "_get_default_structured_pruning_patterns",
        "(nn.LSTM, getitem, nn.Linear): prune_lstm_output_linear,",
        "",
        PATTERNS + "from operator import getitem\nprint((nn.LSTM, getitem, nn.Linear) in p())",
    ),
    mistake(
        "patterns-of-ones-own-are-added-not-used",
        BASE,
        "BaseStructuredSparsifier.__init__",
        "self.patterns = patterns",
        "self.patterns = {**_get_default_structured_pruning_patterns(), **patterns}",
        START + "print(len(Odd({}, {1: 2}).patterns))",
    ),
    mistake(
        "empty-patterns-are-the-default-ones",
        BASE,
        "BaseStructuredSparsifier.__init__",
        "if patterns is None:",
        "if not patterns:",
        START + "print(len(Odd({}, patterns={}).patterns))",
    ),
    mistake(
        "structured-mask-is-a-float",
        BASE,
        "BaseStructuredSparsifier._prepare",
        "dtype=torch.bool, ",
        "",
        START + "s = Odd({}); s.prepare(linears(4, 4), None); print(s.state['0.weight']['mask'].dtype)",
    ),
    mistake(
        "structured-mask-is-for-columns",
        BASE,
        "BaseStructuredSparsifier._prepare",
        "tensor.shape[0]",
        "tensor.shape[-1]",
        START + "s = Odd({}); print(said(s.prepare, linears(4, 3), None))",
    ),
    mistake(
        "bias-is-kept-by-default",
        BASE,
        "BaseStructuredSparsifier._prepare",
        'config.get("prune_bias", True)',
        'config.get("prune_bias", False)',
        LINEARS,
    ),
    mistake(
        "bias-hook-is-for-linear-alone",
        BASE,
        "BaseStructuredSparsifier._prepare",
        "isinstance(module, (nn.Linear, nn.Conv2d))",
        "isinstance(module, nn.Linear)",
        START + "m = nn.Sequential(conv(3, 4)); s = Odd({}); s.prepare(m, None); print(m[0].bias is None)",
    ),
    mistake(
        "bias-of-a-prepared-layer-is-lost",
        BASE,
        "BaseStructuredSparsifier._prepare",
        "nn.Parameter(module.bias.detach())",
        "nn.Parameter(torch.zeros_like(module.bias))",
        START + "m = linears(2, 2); a = m(torch.ones(1, 2)); s = Odd({}); s.prepare(m, None)\n"
        "print((m(torch.ones(1, 2)) - a).abs().sum() < 1e-6)",
    ),
    mistake(
        "bias-is-set-aside-twice",
        BASE,
        "BaseStructuredSparsifier._prepare",
        "module.bias = None",
        "pass",
        START + "m = linears(2, 2); s = Odd({}); s.prepare(m, None); print(m[0].bias is None)",
    ),
    mistake(
        "prune-leaves-out-the-last-layer",
        BASE,
        "BaseStructuredSparsifier.prune",
        "for node in self.traced.graph.nodes:",
        "for node in list(self.traced.graph.nodes)[:-2]:",
        START + "print(str(said(pruned, nn.Sequential(nn.Linear(6, 4))))[:9])",
    ),
    mistake(
        "prune-does-not-say-what-is-left",
        BASE,
        "BaseStructuredSparsifier.prune",
        "if module_contains_param(module, FakeStructuredSparsity):",
        "if False:",
        START + "print(str(said(pruned, Two(torch.abs), ('a',)))[:9])",
    ),
    mistake(
        "prune-returns-nothing",
        BASE,
        "BaseStructuredSparsifier.prune",
        "return self.traced",
        "return None",
        START + "print(pruned(nn.Sequential(nn.Linear(6, 4))) is None)",
    ),
    mistake(
        "prune-drops-functions-from-the-block",
        BASE,
        "BaseStructuredSparsifier.prune",
        "convert_block.append(node.target)",
        "pass",
        START + "print(type(said(pruned, Two(torch.nn.functional.relu), ('a',))).__name__)",
    ),
    mistake(
        "prune-takes-layers-without-a-mask",
        BASE,
        "BaseStructuredSparsifier.prune",
        "and module_contains_param(first_module, FakeStructuredSparsity)",
        "",
        START + "m = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)); nn.utils.parametrizations.weight_norm(m[0])\n"
        "print(type(said(pruned, m, ('1',))).__name__)",
    ),
    # matching
    mistake(
        "match-takes-subclasses",
        MATCH,
        "_match",
        "== current",
        ".__mro__.__contains__(current)",
        f"from {MATCH} import _match\nfrom torch import nn\nclass Mine(nn.Linear): pass\n"
        "n = torch.fx.Graph().create_node('call_module', '0'); print(_match({'0': Mine(2, 2)}, n, nn.Linear))",
        after="parametrize.type_before_parametrizations(modules[node.target])",
    ),
    mistake(
        "match-compares-names-of-functions",
        MATCH,
        "_match",
        "node.target is current",
        "getattr(node.target, '__name__', '') == getattr(current, '__name__', None)",
        f"from {MATCH} import _match\nimport operator, torch.nn.functional as F\n"
        f"n = torch.fx.Graph().create_node('call_function', F.relu); print(_match({{}}, n, torch.relu))",
    ),
    mistake(
        "match-forgets-the-kind-of-node",
        MATCH,
        "_match",
        'node.op == "call_module"',
        "node.target in modules",
        f"from {MATCH} import _match\n"
        f"n = torch.fx.Graph().create_node('get_attr', '0'); print(_match({{'0': nn.Linear(2, 2)}}, n, nn.Linear))",
    ),
    mistake(
        "match-of-text-is-by-its-end",
        MATCH,
        "_match",
        "return node.target == current",
        "return str(node.target).endswith(current)",
        f"from {MATCH} import _match\nn = torch.fx.Graph().create_node('placeholder', 'my_output'); print(_match({{}}, n, 'output'))",
    ),
    mistake(
        "match-any-takes-nothing",
        MATCH,
        "_match",
        "return True",
        "return False",
        f"from {MATCH} import _match, MatchAllNode\n"
        f"n = torch.fx.Graph().create_node('placeholder', 'x'); print(_match({{}}, n, MatchAllNode))",
    ),
    mistake(
        "match-takes-the-last-user",
        MATCH,
        "apply_match",
        "for user in node.users:",
        "for user in reversed(list(node.users)):",
        f"from {MATCH} import apply_match\n"
        f"g = torch.fx.Graph(); x = g.placeholder('x'); a = g.call_function(torch.relu, (x,))\n"
        f"b = g.call_function(torch.sigmoid, (x,))\nprint(apply_match({{}}, ('x', torch.relu), x, []))",
    ),
    mistake(
        "match-forgets-what-it-had",
        MATCH,
        "apply_match",
        "return matched_node_pattern + [node]",
        "return [node]",
        f"from {MATCH} import apply_match\n"
        f"g = torch.fx.Graph(); x = g.placeholder('x'); a = g.call_function(torch.relu, (x,))\n"
        f"print(apply_match({{}}, ('x', torch.relu), x, []))",
        after="if len(pattern) == 1:",
    ),
    # parametrization
    mistake(
        "row-mask-is-for-columns",
        PARAM,
        "FakeStructuredSparsity.forward",
        "shape[0] = -1",
        "shape[-1] = -1",
        START + "print(FakeStructuredSparsity(torch.tensor([True, False]))(torch.ones(2, 2)))",
    ),
    mistake(
        "row-mask-need-not-fit",
        PARAM,
        "FakeStructuredSparsity.forward",
        "if self.mask.shape[0] != x.shape[0]:",
        "if self.mask.shape[0] > x.shape[0]:",
        START + "print(said(FakeStructuredSparsity(torch.tensor([True])), torch.ones(2, 2)))",
    ),
    mistake(
        "row-mask-is-saved",
        PARAM,
        "FakeStructuredSparsity.state_dict",
        "return {}",
        "return super().state_dict(*args, **kwargs)",
        START + "m = linears(2, 2); s = Odd({}); s.prepare(m, None); print(sorted(m.state_dict()))",
    ),
    mistake(
        "bias-hook-adds-the-whole-bias",
        PARAM,
        "BiasHook.__call__",
        "bias[~self.param.mask] = 0",
        "pass",
        START + "m = linears(2, 2); s = Odd({}); s.prepare(m, None); s.step(); print(m(torch.zeros(1, 2))[0, 1] == 0)",
    ),
    mistake(
        "bias-hook-drops-what-is-kept",
        PARAM,
        "BiasHook.__call__",
        "bias[~self.param.mask] = 0",
        "bias[self.param.mask] = 0",
        START + "m = linears(2, 2); s = Odd({}); s.prepare(m, None); s.step(); print(m(torch.zeros(1, 2)) == 0)",
    ),
    mistake(
        "bias-hook-prunes-though-told-not-to",
        PARAM,
        "BiasHook.__call__",
        "if self.prune_bias:",
        "if self.prune_bias is not None:",
        START + "m = linears(2, 2); s = Odd({}); s.prepare(m, [{'tensor_fqn': '0.weight', 'prune_bias': False}]); s.step()\n"
        "print(m(torch.zeros(1, 2)) == 0)",
    ),
    mistake(
        "bias-hook-adds-along-the-last-axis",
        PARAM,
        "BiasHook.__call__",
        "idx[1] = -1",
        "idx[-1] = -1",
        START + "m = nn.Sequential(conv(3, 3, 1)); s = Odd({}); s.prepare(m, None); print(str(said(m, torch.zeros(1, 3, 2, 2)))[:12])",
    ),
    mistake(
        "bias-hook-returns-nothing",
        PARAM,
        "BiasHook.__call__",
        "output += bias",
        "output = output + bias\nreturn None",
        START + "m = linears(2, 2); s = Odd({}); s.prepare(m, None); print(m(torch.zeros(1, 2)) == 0)",
    ),
    # functions
    mistake(
        "hooks-of-others-go-too",
        FUNCTIONS,
        "_remove_bias_handles",
        "if isinstance(hook, BiasHook):",
        "if True:",
        START
        + "m = linears(6, 4); m[0].register_forward_hook(lambda *a: None); out = pruned(m); print(len(getattr(out, '0')._forward_hooks))",
    ),
    mistake(
        "bias-hook-stays",
        FUNCTIONS,
        "_remove_bias_handles",
        "if isinstance(hook, BiasHook):",
        "if type(hook) is type:",
        LINEARS + "print(len(getattr(pruned(linears(6, 4)), '0')._forward_hooks))",
    ),
    mistake(
        "propagated-bias-comes-from-what-is-kept",
        FUNCTIONS,
        "_get_adjusted_next_layer_bias",
        "next_weight[:, ~mask]",
        "next_weight[:, mask]",
        UNBIASED,
    ),
    mistake(
        "propagated-bias-replaces-the-next-one",
        FUNCTIONS,
        "_get_adjusted_next_layer_bias",
        "nn.Parameter(scaled_biases + next_layer.bias)",
        "nn.Parameter(scaled_biases)",
        UNBIASED,
    ),
    mistake(
        "propagated-bias-forgets-a-prepared-one",
        FUNCTIONS,
        "_get_adjusted_next_layer_bias",
        "nn.Parameter(scaled_biases + next_layer._bias)",
        "nn.Parameter(scaled_biases)",
        BOTH,
    ),
    mistake(
        "propagated-bias-is-subtracted",
        FUNCTIONS,
        "_get_adjusted_next_layer_bias",
        "nn.Parameter(scaled_biases + next_layer.bias)",
        "nn.Parameter(next_layer.bias - scaled_biases)",
        UNBIASED,
    ),
    mistake(
        "propagated-bias-of-a-conv-takes-one-tap",
        FUNCTIONS,
        "_get_adjusted_next_layer_bias",
        "torch.sum(scaling_product, sum_range)",
        "scaling_product.flatten(1)[:, 0]",
        CONVS.replace("BIAS", "False"),
    ),
    mistake(
        "pruned-bias-keeps-its-length",
        FUNCTIONS,
        "_prune_module_bias",
        "nn.Parameter(original_bias[mask])",
        "nn.Parameter(original_bias * mask)",
        LINEARS,
    ),
    mistake(
        "bias-set-aside-stays",
        FUNCTIONS,
        "_prune_module_bias",
        'delattr(module, "_bias")',
        "pass",
        START + "out = pruned(linears(6, 4)); print(hasattr(getattr(out, '0'), '_bias'))",
    ),
    mistake(
        "bias-to-propagate-is-what-is-kept",
        FUNCTIONS,
        "_propagate_module_bias",
        "cast(Tensor, module._bias)[~mask]",
        "cast(Tensor, module._bias)[mask]",
        UNBIASED,
    ),
    mistake(
        "bias-is-not-cut-before-it-propagates",
        FUNCTIONS,
        "_propagate_module_bias",
        "module.bias = nn.Parameter(cast(Tensor, module._bias)[mask])",
        "module.bias = nn.Parameter(cast(Tensor, module._bias) * mask)",
        "try:\n" + "\n".join("    " + line for line in (UNBIASED).strip().splitlines()) + "\nexcept RuntimeError: print('refused')",
    ),
    mistake(
        "linear-forgets-its-new-width",
        FUNCTIONS,
        "_prune_linear_helper",
        "linear.out_features = linear.weight.shape[0]",
        "pass",
        START + "print(getattr(pruned(linears(6, 4)), '0').out_features)",
    ),
    mistake(
        "linear-keeps-the-wrong-rows",
        FUNCTIONS,
        "_prune_linear_helper",
        "nn.Parameter(linear.weight[mask])",
        "nn.Parameter(linear.weight[: int(mask.sum())])",
        LINEARS,
    ),
    mistake(
        "next-linear-forgets-its-new-width",
        FUNCTIONS,
        "prune_linear_activation_linear",
        "linear2.in_features = linear2.weight.shape[1]",
        "pass",
        START + "print(getattr(pruned(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))), '1').in_features)",
    ),
    mistake(
        "next-prepared-linear-forgets-its-new-width",
        FUNCTIONS,
        "prune_linear_activation_linear",
        "linear2.in_features = weight_parameterizations.original.shape[1]",
        "pass",
        BOTH + "print(getattr(pruned(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 2)), ('0', '1')), '1').in_features)",
    ),
    mistake(
        "activation-is-left-out-of-the-bias",
        FUNCTIONS,
        "prune_linear_activation_linear",
        "pruned_biases = activation(pruned_biases)",
        "pass",
        UNBIASED,
    ),
    mistake(
        "two-linears-propagate-through-an-activation",
        FUNCTIONS,
        "prune_linear_linear",
        "linear1, None, linear2",
        "linear1, torch.sigmoid, linear2",
        START + "shape(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)), X, ('0',), prune_bias=False)",
    ),
    mistake(
        "conv-forgets-its-new-width",
        FUNCTIONS,
        "_prune_conv2d_helper",
        "conv2d.out_channels = conv2d.weight.shape[0]",
        "pass",
        START + "print(getattr(pruned(nn.Sequential(conv(3, 4))), '0').out_channels)",
    ),
    mistake(
        "next-conv-forgets-its-new-width",
        FUNCTIONS,
        "prune_conv2d_activation_conv2d",
        "conv2d_2.in_channels = conv2d_2.weight.shape[1]",
        "pass",
        START + "print(getattr(pruned(nn.Sequential(conv(3, 4), conv(4, 2))), '1').in_channels)",
    ),
    mistake(
        "padding-on-one-side-is-no-padding",
        FUNCTIONS,
        "prune_conv2d_activation_conv2d",
        "and cast(tuple[int], conv2d_2.padding) > (0, 0)",
        "and cast(tuple[int], conv2d_2.padding) >= (1, 1)",
        START + "shape(nn.Sequential(conv(3, 4), conv(4, 2, padding=(0, 1))), C, ('0',), prune_bias=False)",
        after="prune_bias = getattr(",
    ),
    mistake(
        "padded-conv-loses-its-own-bias",
        FUNCTIONS,
        "prune_conv2d_padded",
        "conv2d_1.bias = nn.Parameter(cast(Tensor, conv2d_1._bias))",
        "pass",
        PADDED,
    ),
    mistake(
        "padded-conv-keeps-its-parametrization",
        FUNCTIONS,
        "prune_conv2d_padded",
        'parametrize.remove_parametrizations(conv2d_1, "weight", leave_parametrized=True)',
        'parametrize.remove_parametrizations(conv2d_1, "weight", leave_parametrized=False)',
        PADDED,
    ),
    mistake(
        "conv-bias-is-propagated-though-pruned",
        FUNCTIONS,
        "prune_conv2d_activation_conv2d",
        "if prune_bias:",
        "if not prune_bias:",
        CONVS.replace("BIAS", "True"),
    ),
    mistake(
        "pool-then-activation-loses-the-activation",
        FUNCTIONS,
        "prune_conv2d_pool_activation_conv2d",
        "(c1, activation, c2)",
        "(c1, None, c2)",
        START + "shape(nn.Sequential(conv(3, 4), nn.AvgPool2d(1), nn.Sigmoid(), conv(4, 2)), C, ('0',), prune_bias=False)",
    ),
    mistake(
        "activation-then-pool-uses-the-pool",
        FUNCTIONS,
        "prune_conv2d_activation_pool_conv2d",
        "(c1, activation, c2)",
        "(c1, pool, c2)",
        START
        + "print(str(said(shape, nn.Sequential(conv(3, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 2, 1)), C, ('0',), prune_bias=False))[:30])",
    ),
    mistake(
        "flattened-mask-is-tiled",
        FUNCTIONS,
        "prune_conv2d_pool_flatten_linear",
        "[[val] * flatten_scale for val in mask]",
        "[[val for val in mask]] * flatten_scale",
        FLAT.replace("BIAS", "True"),
    ),
    mistake(
        "flattened-biases-are-tiled",
        FUNCTIONS,
        "prune_conv2d_pool_flatten_linear",
        "[[bias] * flatten_scale for bias in pruned_biases]",
        "[[bias for bias in pruned_biases]] * flatten_scale",
        FLAT.replace("BIAS", "False"),
    ),
    mistake(
        "flatten-takes-widths-that-do-not-divide",
        FUNCTIONS,
        "prune_conv2d_pool_flatten_linear",
        "if linear_ic % conv2d_oc != 0:",
        "if linear_ic < conv2d_oc:",
        START + "print(str(said(pruned, nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))))[:14])",
    ),
    mistake(
        "linear-after-flatten-forgets-its-new-width",
        FUNCTIONS,
        "prune_conv2d_pool_flatten_linear",
        "linear.in_features = linear.weight.shape[1]",
        "pass",
        START
        + "print(getattr(pruned(nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))), '3').in_features)",
    ),
    # criteria
    mistake(
        "saliency-keeps-the-weak-rows",
        SALIENCY,
        "SaliencyPruner.update_mask",
        "saliency = -weights.norm",
        "saliency = weights.norm",
        MASK + "print(mask(SaliencyPruner, W, defaults={})[1])",
    ),
    mistake(
        "saliency-is-the-second-norm",
        SALIENCY,
        "SaliencyPruner.update_mask",
        "p=1",
        "p=2",
        MASK + "print(mask(SaliencyPruner, torch.tensor([[3.0, 0], [2, 2]]), defaults={})[1])",
    ),
    mistake(
        "saliency-rounds-up",
        SALIENCY,
        "SaliencyPruner.update_mask",
        'int(len(mask) * kwargs["sparsity_level"])',
        'round(len(mask) * kwargs["sparsity_level"] + 0.49)',
        MASK + "print(mask(SaliencyPruner, W, defaults={})[1])",
    ),
    mistake(
        "saliency-replaces-a-mask-that-was-given",
        SALIENCY,
        "SaliencyPruner.update_mask",
        "mask.data[prune] = False",
        "mask.data = torch.ones_like(mask)\nmask.data[prune] = False",
        MASK + "s, m = mask(SaliencyPruner, W, 0.8, defaults={}); s.groups[0]['sparsity_level'] = 0.2; s.step(); print(masks(s))",
    ),
    mistake(
        "saliency-takes-vectors",
        SALIENCY,
        "SaliencyPruner.update_mask",
        "if weights.dim() <= 1:",
        "if weights.dim() < 1:",
        START + "m = nn.Sequential(nn.LayerNorm(4)); s = SaliencyPruner({})\n"
        "s.prepare(m, [{'tensor_fqn': '0.weight', 'sparsity_level': 0.5}]); print(str(said(s.step))[:60])",
    ),
    mistake(
        "saliency-sums-over-the-rows",
        SALIENCY,
        "SaliencyPruner.update_mask",
        "dim=tuple(range(1, weights.dim()))",
        "dim=tuple(range(weights.dim() - 1))",
        MASK + "print(mask(SaliencyPruner, torch.tensor([[0, 0], [9.0, 1]]), defaults={})[1])",
    ),
    mistake(
        "fpgm-takes-the-outermost-filters",
        FPGM,
        "FPGMPruner.update_mask",
        "largest=False",
        "largest=True",
        MASK + "print(mask(FPGMPruner, W)[1])",
    ),
    mistake(
        "fpgm-truncates-the-level",
        FPGM,
        "FPGMPruner.update_mask",
        "round(sparsity_level * tensor_size)",
        "int(sparsity_level * tensor_size)",
        MASK + "print(mask(FPGMPruner, W, 0.55)[1])",
    ),
    mistake(
        "fpgm-level-zero-gives-nothing-back",
        FPGM,
        "FPGMPruner.update_mask",
        "mask.data = torch.ones_like(mask).bool()",
        "pass",
        MASK + "s, m = mask(FPGMPruner, W); s.groups[0]['sparsity_level'] = 0; s.step(); print(masks(s))",
    ),
    mistake(
        "fpgm-level-one-keeps-a-filter",
        FPGM,
        "FPGMPruner.update_mask",
        "mask.data = torch.zeros_like(mask).bool()",
        "mask.data[1:] = False",
        MASK + "print(mask(FPGMPruner, W, 1.0)[1])",
    ),
    mistake(
        "fpgm-distance-one-is-two",
        FPGM,
        "FPGMPruner.__init__",
        "torch.cdist(x, x, p=1)",
        "torch.cdist(x, x, p=2)",
        START + "print(FPGMPruner(dist=1)._compute_distance(torch.eye(3)))",
    ),
    mistake(
        "fpgm-distance-of-ones-own-is-not-used",
        FPGM,
        "FPGMPruner.__init__",
        "self.dist_fn = dist",
        "self.dist_fn = lambda x: torch.cdist(x, x, p=2)",
        START + "print(FPGMPruner(dist=lambda x: x @ x.T)._compute_distance(torch.eye(3)))",
    ),
    mistake(
        "fpgm-keeps-the-sign-of-a-distance",
        FPGM,
        "FPGMPruner._compute_distance",
        "torch.abs(dist_matrix)",
        "dist_matrix",
        START + "print(FPGMPruner(dist=lambda x: -x @ x.T)._compute_distance(torch.eye(3)))",
    ),
    mistake(
        "fpgm-default-level-is-lost",
        FPGM,
        "FPGMPruner.__init__",
        '"sparsity_level": sparsity_level,',
        '"sparsity_level": 0.5,',
        START + "print(FPGMPruner(0.25).defaults)",
    ),
    mistake(
        "fpgm-looks-at-the-first-input-channel",
        FPGM,
        "FPGMPruner._compute_distance",
        ".reshape(-1)",
        "[:, :1].reshape(-1)",
        START + "print(FPGMPruner()._compute_distance(torch.arange(12.0).reshape(3, 2, 2) ** 2))",
    ),
    mistake(
        "lstm-saliency-prunes-the-strong",
        LSTM,
        "LSTMSaliencyPruner.update_mask",
        "largest=False, sorted",
        "largest=True, sorted",
        START + "m = nn.Module(); m.lstm = nn.LSTM(2, 4); s = LSTMSaliencyPruner({'sparsity_level': 0.5})\n"
        "s.prepare(m, [{'tensor_fqn': 'lstm.weight_ih_l0'}]); s.step(); print(masks(s))",
    ),
    mistake(
        "lstm-saliency-treats-the-first-gate-alone",
        LSTM,
        "LSTMSaliencyPruner.update_mask",
        "in zip(masks, saliencies):",
        "in list(zip(masks, saliencies))[:1]:",
        START + "m = nn.Module(); m.lstm = nn.LSTM(2, 4); s = LSTMSaliencyPruner({'sparsity_level': 0.5})\n"
        "s.prepare(m, [{'tensor_fqn': 'lstm.weight_ih_l0'}]); s.step(); print(masks(s))",
    ),
    mistake(
        "lstm-saliency-ranks-all-gates-together",
        LSTM,
        "LSTMSaliencyPruner.update_mask",
        "split_size = len(mask) // 4",
        "split_size = len(mask)",
        START + "m = nn.Module(); m.lstm = nn.LSTM(2, 4); s = LSTMSaliencyPruner({'sparsity_level': 0.5})\n"
        "s.prepare(m, [{'tensor_fqn': 'lstm.weight_ih_l0'}]); s.step(); print(masks(s))",
    ),
    # recurrent
    mistake(
        "lstm-prunes-its-first-layer-alone",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "for i in range(lstm.num_layers):",
        "for i in range(1):",
        "try:\n    " + "\n    ".join(RNN.strip().splitlines()) + "\n    rnn()\nexcept Exception as e: print(type(e).__name__)",
    ),
    mistake(
        "lstm-input-bias-keeps-its-length",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        'nn.Parameter(getattr(lstm, f"bias_ih_l{i}")[mask]),',
        'nn.Parameter(getattr(lstm, f"bias_ih_l{i}") * mask),',
        RNN + "rnn()",
    ),
    mistake(
        "lstm-hidden-columns-stay",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "W_ho = W_ho[M_ho][:, M_ho]",
        "W_ho = W_ho[M_ho][:, : int(M_ho.sum())]",
        RNN + "rnn()",
    ),
    mistake(
        "lstm-hidden-size-stays",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "lstm.hidden_size = int(M_hi.sum())",
        "pass",
        RNN + "rnn()",
    ),
    mistake(
        "lstm-next-linear-is-cut-from-the-left",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "linear.weight = nn.Parameter(linear.weight[:, M_ho])",
        "linear.weight = nn.Parameter(linear.weight[:, : int(M_ho.sum())])",
        RNN + "rnn()",
    ),
    mistake(
        "lstm-next-layer-is-not-cut",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "if i + 1 == lstm.num_layers:",
        "if True:",
        "try:\n    " + "\n    ".join(RNN.strip().splitlines()) + "\n    rnn()\nexcept Exception as e: print(type(e).__name__)",
    ),
    mistake(
        "lstm-layernorm-loses-its-bias",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "layernorm.bias = nn.Parameter(layernorm.bias[M_ho])",
        "layernorm.bias = nn.Parameter(layernorm.bias[: int(M_ho.sum())] + 1)",
        RNN + "rnn(1, True)",
    ),
    mistake(
        "lstm-layernorm-forgets-its-shape",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "layernorm.normalized_shape = (linear.in_features,)",
        "pass",
        RNN + "print(rnn(1, True).norm.normalized_shape)",
    ),
    mistake(
        "lstm-gates-are-cut-by-the-first-gate",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "W_hf = W_hf[M_hf][:, M_hf]",
        "W_hf = W_hf[~M_hf][:, M_hf]",
        RNN + "rnn()",
    ),
    mistake(
        "a-bias-that-moves-is-frozen",
        BASE,
        "BaseStructuredSparsifier._prepare",
        "nn.Parameter(module.bias.detach())",
        "nn.Parameter(module.bias.detach(), requires_grad=False)",
        START + "m = linears(4, 4)\nOdd({}).prepare(m, [{'tensor_fqn': '0.weight'}])\nprint(m[0]._bias.requires_grad)",
    ),
    mistake(
        "bias-hook-for-one-more-kind-of-layer",
        BASE,
        "BaseStructuredSparsifier._prepare",
        "(nn.Linear, nn.Conv2d)",
        "(nn.Linear, nn.Conv2d, nn.Conv1d)",
        START + "m = nn.Sequential(nn.Conv1d(2, 2, 1))\nOdd({}).prepare(m, [{'tensor_fqn': '0.weight'}])\nprint(m[0].bias)",
    ),
    mistake(
        "bias-hook-for-the-exact-types-alone",
        BASE,
        "BaseStructuredSparsifier._prepare",
        "isinstance(module, (nn.Linear, nn.Conv2d))",
        "parametrize.type_before_parametrizations(module) in (nn.Linear, nn.Conv2d)",
        START
        + "class Own(nn.Linear): pass\nm = nn.Sequential(Own(2, 2))\nOdd({}).prepare(m, [{'tensor_fqn': '0.weight'}])\nprint(m[0].bias)",
    ),
    mistake(
        "bias-hook-answers-in-the-type-of-the-bias",
        PARAM,
        "BiasHook.__call__",
        "output += bias",
        "output = (output + bias).to(bias.dtype)",
        TRAINED + "m = linears(6, 4)\nmasked(m, '0')\nm[0]._bias.data = m[0]._bias.data.double()\nprint(m(X).dtype)",
    ),
    mistake(
        "bias-hooks-go-with-the-pre-hooks-of-others",
        FUNCTIONS,
        "_remove_bias_handles",
        "for key in bias_hooks:",
        "module._forward_pre_hooks.clear()\nfor key in bias_hooks:",
        START
        + "m = linears(6, 4)\nm[0].register_forward_pre_hook(lambda *a: None)\n"
        + "print(len(getattr(pruned(m), '0')._forward_pre_hooks))",
    ),
    mistake(
        "structured-prepare-drops-gradients",
        BASE,
        "BaseStructuredSparsifier._prepare",
        'module = config["module"]',
        'module = config["module"]\nmodule.zero_grad()',
        TRAINED + "m = linears(6, 4)\nm(X).sum().backward()\nmasked(m, '0')\nprint(m[0].parametrizations.weight.original.grad is None)",
    ),
    mistake(
        "bias-is-cut-to-float",
        FUNCTIONS,
        "_prune_module_bias",
        "nn.Parameter(original_bias[mask])",
        "nn.Parameter(original_bias[mask].float())",
        TRAINED + "print(getattr(masked(linears(6, 4).double(), '0').prune(), '0').bias.dtype)",
    ),
    mistake(
        "lstm-is-cut-to-float",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "nn.Parameter(new_weight)",
        "nn.Parameter(new_weight.float())",
        RNN + "print(rnn(dtype=torch.double).lstm.weight_hh_l0.dtype)",
    ),
    mistake(
        "layernorm-is-cut-to-float",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "nn.Parameter(layernorm.weight[M_ho])",
        "nn.Parameter(layernorm.weight[M_ho].float())",
        RNN + "print(rnn(norm=True, dtype=torch.double).norm.weight.dtype)",
    ),
    mistake(
        "conv-is-frozen-when-cut",
        FUNCTIONS,
        "_prune_conv2d_helper",
        "nn.Parameter(conv2d.weight[mask])",
        "nn.Parameter(conv2d.weight[mask], requires_grad=False)",
        TRAINED + "grads(pruned(nn.Sequential(conv(3, 4))))",
    ),
    mistake(
        "next-conv-is-frozen-when-cut",
        FUNCTIONS,
        "prune_conv2d_activation_conv2d",
        "nn.Parameter(conv2d_2.weight[:, mask])",
        "nn.Parameter(conv2d_2.weight[:, mask], requires_grad=False)",
        TRAINED + "grads(pruned(nn.Sequential(conv(3, 4), conv(4, 2))))",
    ),
    mistake(
        "flattened-linear-is-frozen-when-cut",
        FUNCTIONS,
        "prune_conv2d_pool_flatten_linear",
        "nn.Parameter(linear.weight[:, flattened_mask])",
        "nn.Parameter(linear.weight[:, flattened_mask], requires_grad=False)",
        TRAINED + "grads(pruned(nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))))",
    ),
    mistake(
        "next-lstm-layer-is-frozen-when-cut",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "nn.Parameter(next_layer_weight[:, M_ho]),",
        "nn.Parameter(next_layer_weight[:, M_ho], requires_grad=False),",
        RNN
        + "net = Net()\ns = Odd({})\ns.prepare(net, [{'tensor_fqn': f'lstm.weight_{k}_l0'} for k in ('ih', 'hh')])\n"
        + "said(s.prune)\nprint(net.lstm.weight_ih_l1.requires_grad)",
    ),
    mistake(
        "prepared-next-linear-is-frozen-when-cut",
        FUNCTIONS,
        "prune_linear_activation_linear",
        "weight_parameterizations.original[:, mask]",
        "weight_parameterizations.original[:, mask], requires_grad=False",
        TRAINED
        + "m = linears(6, 4, 2)\nnn.utils.parametrize.register_parametrization(m[1], 'weight', Same())\n"
        + "grads(masked(m, '0').prune())",
    ),
    mistake(
        "prepared-next-conv-is-frozen-when-cut",
        FUNCTIONS,
        "prune_conv2d_activation_conv2d",
        "weight_parameterizations.original[:, mask]",
        "weight_parameterizations.original[:, mask], requires_grad=False",
        TRAINED + "m = nn.Sequential(conv(3, 4), conv(4, 2))\nmasked(m, '0', '1')\nfunctions.prune_conv2d_conv2d(*m)\ngrads(m)",
    ),
    mistake(
        "prepared-flattened-linear-is-frozen-when-cut",
        FUNCTIONS,
        "prune_conv2d_pool_flatten_linear",
        "weight_parameterizations.original[:, flattened_mask]",
        "weight_parameterizations.original[:, flattened_mask], requires_grad=False",
        TRAINED
        + "m = nn.Sequential(conv(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))\nmasked(m, '0', '3')\n"
        + "functions.prune_conv2d_pool_flatten_linear(*m)\ngrads(m)",
    ),
    mistake(
        "prepared-linear-behind-an-lstm-is-frozen-when-cut",
        FUNCTIONS,
        "prune_lstm_output_layernorm_linear",
        "weight_parameterizations.original[:, M_ho]",
        "weight_parameterizations.original[:, M_ho], requires_grad=False",
        RNN + "print(rnn(1, same=Same()).head.parametrizations.weight.original.requires_grad)",
        after="if i + 1 == lstm.num_layers:",
    ),
    mistake(
        "propagated-bias-is-frozen-where-none-was",
        FUNCTIONS,
        "_get_adjusted_next_layer_bias",
        "nn.Parameter(scaled_biases)",
        "nn.Parameter(scaled_biases, requires_grad=False)",
        TRAINED + "m = linears(6, 4, 2)\nm[1].bias = None\ngrads(pruned(m, prune_bias=False))",
    ),
    mistake(
        "propagated-bias-of-a-prepared-layer-is-frozen",
        FUNCTIONS,
        "_get_adjusted_next_layer_bias",
        "nn.Parameter(scaled_biases + next_layer._bias)",
        "nn.Parameter(scaled_biases + next_layer._bias, requires_grad=False)",
        TRAINED
        + "m = linears(6, 4, 4)\ns = Odd({})\ns.prepare(m, [{'tensor_fqn': n + '.weight', 'prune_bias': False} for n in '01'])\n"
        + "s.patterns = {(nn.Linear, nn.Linear): s.patterns[nn.Linear, nn.Linear]}\ns.step()\nsaid(s.prune)\n"
        + "print(m[1].bias.requires_grad)",
    ),
    mistake(
        "propagated-bias-is-frozen-when-cut",
        FUNCTIONS,
        "_propagate_module_bias",
        "nn.Parameter(cast(Tensor, module.bias)[mask])",
        "nn.Parameter(cast(Tensor, module.bias)[mask], requires_grad=False)",
        TRAINED + "grads(pruned(linears(6, 4, 4, 2), '01', prune_bias=False))",
    ),
    mistake(
        "bias-before-a-padded-conv-is-frozen",
        FUNCTIONS,
        "prune_conv2d_padded",
        "nn.Parameter(cast(Tensor, conv2d_1._bias))",
        "nn.Parameter(cast(Tensor, conv2d_1._bias), requires_grad=False)",
        TRAINED + "grads(pruned(nn.Sequential(conv(3, 4), conv(4, 2, padding=1))))",
    ),
    mistake(
        "joined-bias-before-a-padded-conv-is-frozen",
        FUNCTIONS,
        "prune_conv2d_padded",
        "nn.Parameter(new_bias)",
        "nn.Parameter(new_bias, requires_grad=False)",
        TRAINED + "grads(pruned(nn.Sequential(conv(3, 4), conv(4, 4), conv(4, 2, padding=1)), ('0', '1'), prune_bias=False))",
    ),
    mistake(
        "fpgm-distances-by-matrix-product",
        FPGM,
        "FPGMPruner.__init__",
        "torch.cdist(x, x, p=2)",
        'torch.cdist(x, x, p=2, compute_mode="use_mm_for_euclid_dist")',
        START + "print(FPGMPruner().dist_fn(1e4 + torch.tensor([[0.0, 0], [0.01, 0], [0.03, 0]])))",
    ),
    mistake(
        "fpgm-needs-contiguous-filters",
        FPGM,
        "FPGMPruner._compute_distance",
        ".reshape(-1)",
        ".view(-1)",
        START
        + "m = nn.Sequential(conv(2, 4)).to(memory_format=torch.channels_last)\ns = FPGMPruner(0.5)\n"
        + "s.prepare(m, [{'tensor_fqn': '0.weight'}])\nprint(said(s.step))",
    ),
    mistake(
        "saliency-needs-contiguous-weights",
        SALIENCY,
        "SaliencyPruner.update_mask",
        "weights.norm(dim=tuple(range(1, weights.dim())), p=1)",
        "weights.view(len(weights), -1).norm(dim=1, p=1)",
        START
        + "m = nn.Sequential(conv(2, 4)).to(memory_format=torch.channels_last)\ns = SaliencyPruner({'sparsity_level': 0.5})\n"
        + "s.prepare(m, None)\nprint(said(s.step))",
    ),
    mistake(
        "prune-draws-a-random-number",
        BASE,
        "BaseStructuredSparsifier.prune",
        "self.traced = symbolic_trace(self.model)",
        "torch.rand(1)\nself.traced = symbolic_trace(self.model)",
        "from torch.ao.pruning._experimental.pruner import SaliencyPruner\n"
        'm = linears(4, 4, 4); s = SaliencyPruner({"sparsity_level": 0.5}); s.prepare(m, [{"tensor_fqn": "0.weight"}])\n'
        's.step(); torch.manual_seed(1); warnings.simplefilter("error"); print(type(said(s.prune)).__name__, torch.rand(1).item())',
    ),
    mistake(
        "prune-prints",
        BASE,
        "BaseStructuredSparsifier.prune",
        "self.traced = symbolic_trace(self.model)",
        "print(self)\nself.traced = symbolic_trace(self.model)",
        "from torch.ao.pruning._experimental.pruner import SaliencyPruner\n"
        'm = linears(4, 4, 4); s = SaliencyPruner({"sparsity_level": 0.5}); s.prepare(m, [{"tensor_fqn": "0.weight"}])\n'
        's.step(); torch.manual_seed(1); warnings.simplefilter("error"); print(type(said(s.prune)).__name__, torch.rand(1).item())',
    ),
    mistake(
        "prune-warns",
        BASE,
        "BaseStructuredSparsifier.prune",
        "self.traced = symbolic_trace(self.model)",
        "import warnings\nwarnings.warn('deprecated', FutureWarning, stacklevel=2)\nself.traced = symbolic_trace(self.model)",
        "from torch.ao.pruning._experimental.pruner import SaliencyPruner\n"
        'm = linears(4, 4, 4); s = SaliencyPruner({"sparsity_level": 0.5}); s.prepare(m, [{"tensor_fqn": "0.weight"}])\n'
        's.step(); torch.manual_seed(1); warnings.simplefilter("error"); print(type(said(s.prune)).__name__, torch.rand(1).item())',
    ),
]
