"""Mistakes in the sparsifiers of data, of activations and of embeddings, and in the callbacks."""

from audit.edits import Function
from audit.history import Mistake, mistake

EXPERIMENTAL = "torch.ao.pruning._experimental"
BASE = f"{EXPERIMENTAL}.data_sparsifier.base_data_sparsifier"
NORM = f"{EXPERIMENTAL}.data_sparsifier.data_norm_sparsifier"
EMBEDDING = f"{EXPERIMENTAL}.data_sparsifier.quantization_utils"
CALLBACKS = f"{EXPERIMENTAL}.data_sparsifier.lightning.callbacks.data_sparsity"
ATTACH = f"{EXPERIMENTAL}.data_sparsifier.lightning.callbacks._data_sparstity_utils"
ACTIVATION = f"{EXPERIMENTAL}.activation_sparsifier.activation_sparsifier"

DATA = """
from torch.ao.pruning._experimental.data_sparsifier import BaseDataSparsifier, DataNormSparsifier
def norm(*data, **settings):
    names = 'abc'
    return DataNormSparsifier([(names[i], d) for i, d in enumerate(data)], **settings)
A = torch.arange(1.0, 33).reshape(4, 8)
"""
EMB = """
from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier
from torch.ao.pruning._experimental.data_sparsifier.quantization_utils import post_training_sparse_quantize as q
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.deep = nn.Embedding(8, 8), nn.Sequential(nn.EmbeddingBag(8, 8, mode='sum'))
def show(model):
    for m in model.modules():
        if hasattr(m, 'weight'):
            w = m.weight().dequantize() if callable(m.weight) else m.weight
            print(type(m).__name__, [round(v, 3) for v in w.flatten().tolist()[:12]])
"""
LIGHT = """
import types
from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier
from torch.ao.pruning._experimental.data_scheduler import BaseDataScheduler
from torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks.data_sparsity import *
class Halving(BaseDataScheduler):
    def get_schedule_param(self):
        return {n: c['sparsity_level'] / 2 for n, c in self.data_sparsifier.data_groups.items()}
module = types.SimpleNamespace(model=linears(8, 8, 8, bias=False))
post = PostTrainingDataSparsity(DataNormSparsifier, {'sparsity_level': 0.8})
aware = TrainingAwareDataSparsity(DataNormSparsifier, {'sparsity_level': 0.8}, Halving, {'schedule_param': 'sparsity_level'})
def epochs(n):
    aware.on_train_start(None, module)
    for _ in range(n):
        aware.on_train_epoch_start(None, module); aware.on_train_epoch_end(None, module)
"""
ACT = """
from torch.ao.pruning._experimental.activation_sparsifier.activation_sparsifier import ActivationSparsifier
def active(model=None, mask_fn=lambda x: (x > x.mean()).float(), agg=torch.add, **settings):
    model = model or nn.Sequential(nn.Identity(), nn.Identity())
    s = ActivationSparsifier(model, agg, lambda x: x.mean(0), mask_fn)
    s.register_layer(model[0], **settings)
    return model, s
V = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 9]])
"""

MISTAKES = [
    mistake(
        "data-squash-loses-further-arguments",
        BASE,
        "BaseDataSparsifier.squash_mask",
        "*args, ",
        "",
        DATA + "print(said(norm(A).squash_mask, 1, 2, 3))",
    ),
    mistake(
        "data-squash-loses-further-keywords",
        BASE,
        "BaseDataSparsifier.squash_mask",
        ", **kwargs",
        "",
        DATA + "print(said(norm(A).squash_mask, sparsified=True))",
    ),
    mistake(
        "data-squash-drops-the-mask-by-default",
        BASE,
        "BaseDataSparsifier.squash_mask",
        "leave_parametrized=True",
        "leave_parametrized=False",
        DATA + "s = norm(A); s.step(); s.squash_mask(); print(int((s.get_data('a', return_original=False) == 0).sum()))",
    ),
    mistake(
        "data-squash-takes-everything",
        BASE,
        "BaseDataSparsifier.squash_mask",
        "if names is None:",
        "if True:",
        DATA + "s = norm(A, A); s.squash_mask(names=['a']); print(type(said(s.get_data, 'b')).__name__)",
    ),
    mistake(
        "data-squash-of-no-names-takes-all",
        BASE,
        "BaseDataSparsifier.squash_mask",
        "if names is None:",
        "if not names:",
        DATA + "s = norm(A); s.squash_mask(names=[]); print(type(said(s.get_data, 'a')).__name__)",
    ),
    mistake(
        "data-step-runs-though-updates-are-off",
        BASE,
        "BaseDataSparsifier.step",
        "if not self.enable_mask_update:",
        "if False:",
        DATA + "s = norm(A); s.enable_mask_update = False; s.step(); print(masks(s))",
    ),
    mistake(
        "data-step-updates-the-first-alone",
        BASE,
        "BaseDataSparsifier.step",
        "in self.data_groups.items():",
        "in list(self.data_groups.items())[:1]:",
        DATA + "s = norm(A, A); s.step(); print(masks(s))",
    ),
    mistake(
        "data-step-sees-sparsified-data",
        BASE,
        "BaseDataSparsifier.step",
        "self.get_data(name)",
        "self.get_data(name, return_original=False)",
        DATA + "s = norm(A.clone()); s.step(); s.get_data('a').copy_(A.flip(0)); s.step(); print(masks(s))",
    ),
    mistake(
        "replaced-data-gets-a-new-mask-by-default",
        BASE,
        "BaseDataSparsifier.add_data",
        "data, reuse_mask=True",
        "data, reuse_mask=False",
        DATA + "s = norm(A); s.step(); s.add_data('a', A + 1); print(masks(s))",
    ),
    mistake(
        "replaced-data-of-another-shape-is-taken",
        BASE,
        "BaseDataSparsifier.add_data",
        "if weight.shape != current_data.shape:",
        "if weight.dim() != current_data.dim():",
        DATA + "s = norm(A); print(str(said(s.add_data, 'a', torch.ones(2, 2)))[:28])",
    ),
    mistake(
        "replaced-data-loses-its-settings",
        BASE,
        "BaseDataSparsifier.add_data",
        "local_args = copy.deepcopy(old_args)",
        "local_args = copy.deepcopy(self.defaults)",
        DATA + "s = norm(); s.add_data('a', A, sparsity_level=0.9); s.add_data('a', A); print(s.data_groups['a']['sparsity_level'])",
    ),
    mistake(
        "replaced-data-keeps-its-old-settings-alone",
        BASE,
        "BaseDataSparsifier.add_data",
        "local_args.update(config)",
        "pass",
        DATA + "s = norm(); s.add_data('a', A, sparsity_level=0.9); s.add_data('a', A, sparsity_level=0.1)\n"
        "print(s.data_groups['a']['sparsity_level'])",
        after="old_args = self",
    ),
    mistake(
        "data-is-copied-on-its-way-in",
        BASE,
        "BaseDataSparsifier.add_data",
        "tensor=weight)",
        "tensor=weight.clone())",
        DATA + "a = A.clone(); s = norm(a); a.zero_(); print(s.get_data('a').sum())",
    ),
    mistake(
        "data-defaults-are-shared",
        BASE,
        "BaseDataSparsifier.add_data",
        "local_args = copy.deepcopy(self.defaults)",
        "local_args = self.defaults",
        DATA + "s = norm(A, A); s.data_groups['a']['sparsity_level'] = 0.1; print(s.data_groups['b']['sparsity_level'])",
    ),
    mistake(
        "data-of-any-type-is-taken",
        BASE,
        "BaseDataSparsifier.add_data",
        "if type(data) not in SUPPORTED_TYPES:",
        "if data is None:",
        DATA + "print(str(said(norm, nn.Linear(2, 2)))[:25])",
    ),
    mistake(
        "data-returns-nothing-when-added",
        BASE,
        "BaseDataSparsifier.add_data",
        "return getattr(self._container, name)",
        "return None",
        DATA + "print(norm().add_data('a', A))",
    ),
    mistake("embedding-bags-are-not-taken", BASE, "", "nn.EmbeddingBag,", "", DATA + "print(str(said(norm, nn.EmbeddingBag(4, 4)))[:20])"),
    mistake(
        "data-is-sparsified-by-default",
        BASE,
        "BaseDataSparsifier.get_data",
        "return_original: bool = True",
        "return_original: bool = False",
        DATA + "s = norm(A); s.step(); print(int((s.get_data('a') == 0).sum()))",
    ),
    mistake(
        "unknown-data-makes-a-group",
        BASE,
        "BaseDataSparsifier.get_data",
        "if name not in self.data_groups:",
        "if self.data_groups[name] is None:",
        DATA + "s = norm(A); said(s.get_data, 'x'); print(list(s.data_groups))",
    ),
    mistake(
        "unknown-mask-makes-a-state",
        BASE,
        "BaseDataSparsifier.get_mask",
        "if name not in self.state:",
        "if self.state[name] is None:",
        DATA + "s = norm(A); print(said(s.get_mask, 'x'), list(s.state))",
    ),
    mistake(
        "data-state-is-dense",
        BASE,
        "BaseDataSparsifier.state_dict",
        "self._convert_mask(self.state)",
        "self._convert_mask(self.state, sparse_coo=False)",
        DATA + "print(norm(A).state_dict()['state']['a']['mask'].layout)",
    ),
    mistake(
        "data-masks-are-converted-in-place",
        BASE,
        "BaseDataSparsifier._convert_mask",
        "states = copy.deepcopy(states)",
        "pass",
        DATA + "s = norm(A); s.state_dict(); print(s.get_mask('a').layout)",
    ),
    mistake(
        "data-load-keeps-what-was-there",
        BASE,
        "BaseDataSparsifier.load_state_dict",
        "if strict:",
        "if strict is None:",
        DATA + "s, t = norm(A), norm(A, A)\n"
        "print(said(lambda: (t.load_state_dict(s.state_dict()), sorted(n for n, _ in t._container.named_modules()))[1]))",
    ),
    mistake(
        "data-load-keeps-nothing-when-lenient",
        BASE,
        "BaseDataSparsifier.load_state_dict",
        "states.update(self.state)",
        "pass",
        DATA + "s, t = norm(A), DataNormSparsifier([('z', A)]); t.load_state_dict(s.state_dict(), strict=False); print(sorted(t.state))",
    ),
    mistake(
        "data-load-takes-the-state-over",
        BASE,
        "BaseDataSparsifier.load_state_dict",
        'copy.deepcopy(state_dict["data_groups"])',
        'state_dict["data_groups"]',
        DATA + "s, t = norm(A), norm(A); t.load_state_dict(s.state_dict()); print(t.data_groups is s.data_groups)",
    ),
    mistake(
        "data-load-needs-no-settings",
        BASE,
        "BaseDataSparsifier._load_container_from_state",
        "if config_name is None:",
        "if False:",
        DATA + "s, t = norm(A), norm(); d = s.state_dict(); d['data_groups'] = {}; print(said(t.load_state_dict, d))",
    ),
    mistake(
        "data-getstate-loses-the-container",
        BASE,
        "BaseDataSparsifier.__getstate__",
        '"_container": self._container.state_dict(),',
        "",
        DATA + "print(sorted(norm(A).__getstate__()))",
    ),
    mistake(
        "data-repr-shows-no-name",
        BASE,
        "BaseDataSparsifier.__repr__",
        'format_string += f"\\t    name: {name}\\n"',
        "pass",
        DATA + "print(repr(norm(A)))",
    ),
    mistake(
        "data-prepare-does-nothing",
        BASE,
        "BaseDataSparsifier.prepare",
        'raise NotImplementedError("this function is undefined for this class")',
        "return None",
        DATA + "print(said(norm(A).prepare, None, None))",
    ),
    # norms of data
    mistake(
        "data-norm-two-is-one",
        NORM,
        "DataNormSparsifier.update_mask",
        "(data * data).squeeze()",
        "data.abs().squeeze()",
        DATA + "d = torch.tensor([[3.0, 0, 0, 0, 2, 2, 0, 0]]); s = norm(d, norm='L2'); s.step(); print(masks(s))",
    ),
    mistake(
        "data-norm-forgets-the-sign",
        NORM,
        "DataNormSparsifier.update_mask",
        "torch.abs(data).squeeze()",
        "data.squeeze()",
        DATA + "s = norm(-A); s.step(); print(masks(s))",
    ),
    mistake(
        "data-norm-default-is-two",
        NORM,
        "DataNormSparsifier.__init__",
        'norm: str = "L1"',
        'norm: str = "L2"',
        DATA + "print(norm(A).norm)",
    ),
    mistake(
        "data-level-is-truncated",
        NORM,
        "DataNormSparsifier.__get_data_level_mask",
        "round(sparsity_level * num_blocks)",
        "int(sparsity_level * num_blocks)",
        DATA + "s = norm(A, sparsity_level=0.7); s.step(); print(masks(s))",
    ),
    mistake(
        "data-blocks-keep-too-few",
        NORM,
        "DataNormSparsifier.__get_block_level_mask",
        ":zeros_per_block",
        "zeros_per_block:",
        DATA + "s = norm(A, sparsity_level=1.0, zeros_per_block=1); s.step(); print(masks(s))",
    ),
    mistake(
        "data-masks-are-joined-the-other-way",
        NORM,
        "DataNormSparsifier.update_mask",
        "torch.where(data_lvl_mask == 1, data_lvl_mask, block_lvl_mask)",
        "torch.where(data_lvl_mask == 0, data_lvl_mask, block_lvl_mask)",
        DATA + "s = norm(A, zeros_per_block=1); s.step(); print(masks(s))",
    ),
    mistake(
        "data-lower-level-gives-nothing-back",
        NORM,
        "DataNormSparsifier.update_mask",
        "mask.data = torch.where(data_lvl_mask == 1, data_lvl_mask, block_lvl_mask)",
        "mask.data = mask.to(torch.int8) * torch.where(data_lvl_mask == 1, data_lvl_mask, block_lvl_mask)",
        DATA + "s = norm(A, sparsity_level=0.8); s.step(); s.data_groups['a']['sparsity_level'] = 0.1; s.step(); print(masks(s))",
    ),
    mistake(
        "data-of-three-dimensions-is-taken",
        NORM,
        "DataNormSparsifier.update_mask",
        "if len(data_norm.shape) > 2:",
        "if len(data_norm.shape) > 3:",
        DATA + "print(said(norm(torch.ones(2, 2, 4)).step))",
    ),
    mistake(
        "data-zeros-of-a-block-are-not-checked",
        NORM,
        "DataNormSparsifier.update_mask",
        "if zeros_per_block < 0:",
        "if zeros_per_block < -8:",
        DATA + "print(str(said(norm(A, zeros_per_block=-1).step))[:40])",
    ),
    mistake(
        "data-zeros-default-ignores-the-block",
        NORM,
        "DataNormSparsifier.__init__",
        "reduce(operator.mul, sparse_block_shape)",
        "4",
        DATA + "print(norm(A, sparse_block_shape=(2, 4)).defaults)",
    ),
    mistake(
        "data-padding-is-cut-away-wrongly",
        NORM,
        "DataNormSparsifier.__get_data_level_mask",
        ":height, :width",
        "dh:, dw:",
        DATA + "s = norm(A[:, :6].flip(1).contiguous(), sparsity_level=0.6); s.step(); print(masks(s))",
    ),
    # embeddings
    mistake(
        "embeddings-are-found-at-the-top-alone",
        EMBEDDING,
        "_fetch_all_embeddings",
        "stack.append(child)",
        "pass",
        EMB + "n = Net(); q(n, DataNormSparsifier); show(n)",
    ),
    mistake(
        "embedding-bags-are-not-found",
        EMBEDDING,
        "",
        "SUPPORTED_MODULES = {nn.Embedding, nn.EmbeddingBag}",
        "SUPPORTED_MODULES = {nn.Embedding}",
        EMB + "n = Net(); q(n, DataNormSparsifier); show(n)",
    ),
    mistake(
        "embeddings-are-quantized-first-by-default",
        EMBEDDING,
        "post_training_sparse_quantize",
        "sparsify_first=True,",
        "sparsify_first=False,",
        EMB + "n = Net(); q(n, DataNormSparsifier); show(n)",
    ),
    mistake(
        "selected-embeddings-are-all",
        EMBEDDING,
        "post_training_sparse_quantize",
        "if select_embeddings is None:",
        "if True:",
        EMB + "n = Net(); q(n, DataNormSparsifier, select_embeddings=[n.a]); show(n)",
    ),
    mistake(
        "norm-of-the-sparsifier-is-lost",
        EMBEDDING,
        "post_training_sparse_quantize",
        "data_sparsifier_class(**sparse_config)",
        "data_sparsifier_class(**{name: value for name, value in sparse_config.items() if name != 'norm'})",
        EMB + "n = Net(); q(n, DataNormSparsifier, norm='L2', sparsity_level=0.5); show(n)",
    ),
    mistake(
        "settings-of-the-sparsifier-are-lost",
        EMBEDDING,
        "post_training_sparse_quantize",
        "data_sparsifier_class(**sparse_config)",
        "data_sparsifier_class()",
        EMB + "n = Net(); q(n, DataNormSparsifier, sparsity_level=1.0); show(n)",
    ),
    mistake(
        "embeddings-are-not-sparsified",
        EMBEDDING,
        "post_training_sparse_quantize",
        "data_sparsifier.squash_mask()",
        "data_sparsifier.squash_mask(leave_parametrized=False)",
        EMB + "n = Net(); q(n, DataNormSparsifier); show(n)",
        after="data_sparsifier.add_data(name=valid_name",
    ),
    mistake(
        "selection-need-not-be-a-list",
        EMBEDDING,
        "post_training_sparse_quantize",
        "if not isinstance(select_embeddings, list):",
        "if not hasattr(select_embeddings, '__iter__'):",
        EMB + "n = Net(); print(said(q, n, DataNormSparsifier, select_embeddings=(n.a,)))",
    ),
    mistake(
        "selection-of-others-is-taken",
        EMBEDDING,
        "post_training_sparse_quantize",
        "if fqn_name is None:",
        "if fqn_name == '':",
        EMB + "n = Net(); print(str(said(q, n, DataNormSparsifier, select_embeddings=[nn.Embedding(4, 4)]))[:20])",
    ),
    mistake(
        "scales-are-found-anew",
        EMBEDDING,
        "post_training_sparse_quantize",
        'scales=quantize_params["scales"][name],',
        'scales=quantize_params["scales"][name] * 2,',
        EMB + "n = Net(); q(n, DataNormSparsifier, False); show(n)",
    ),
    mistake(
        "weights-are-quantized-but-not-set",
        EMBEDDING,
        "post_training_sparse_quantize",
        "quantized_emb.set_weight(requantized_vector)",
        "pass",
        EMB + "n = Net(); q(n, DataNormSparsifier, False, sparsity_level=1.0); show(n)",
    ),
    # callbacks
    mistake(
        "post-training-changes-the-model-itself",
        CALLBACKS,
        "PostTrainingDataSparsity.on_fit_end",
        "deepcopy(pl_module.model).eval()",
        "pl_module.model.eval()",
        LIGHT + "post.on_fit_end(None, module); print(post.sparsified is module.model)",
    ),
    mistake(
        "post-training-leaves-the-model-in-training",
        CALLBACKS,
        "PostTrainingDataSparsity.on_fit_end",
        ".eval()",
        "",
        LIGHT + "post.on_fit_end(None, module); print(post.sparsified.training)",
    ),
    mistake(
        "post-training-does-not-squash",
        CALLBACKS,
        "PostTrainingDataSparsity.on_fit_end",
        "self.data_sparsifier.squash_mask()",
        "pass",
        LIGHT + "post.on_fit_end(None, module); print(type(said(post.data_sparsifier.get_data, '0_weight')).__name__)",
    ),
    mistake(
        "post-training-loses-its-settings",
        CALLBACKS,
        "PostTrainingDataSparsity.on_fit_end",
        "self.data_sparsifier_class(**self.data_sparsifier_args)",
        "self.data_sparsifier_class()",
        LIGHT + "post.on_fit_end(None, module); print(post.data_sparsifier.defaults)",
    ),
    mistake(
        "training-starts-on-the-model-itself",
        CALLBACKS,
        "TrainingAwareDataSparsity.on_train_start",
        "deepcopy(pl_module.model)",
        "pl_module.model",
        LIGHT + "aware.on_train_start(None, module); print(aware.sparsified is module.model)",
    ),
    mistake(
        "settings-of-the-scheduler-are-changed",
        CALLBACKS,
        "TrainingAwareDataSparsity.on_train_start",
        "deepcopy(self.data_scheduler_args)",
        "self.data_scheduler_args",
        LIGHT + "aware.on_train_start(None, module); print(sorted(aware.data_scheduler_args))",
    ),
    mistake(
        "epochs-do-not-schedule",
        CALLBACKS,
        "TrainingAwareDataSparsity.on_train_epoch_end",
        "self.data_scheduler.step()",
        "pass",
        LIGHT + "epochs(3); print(aware.data_scheduler.last_epoch)",
    ),
    mistake(
        "epochs-forget-the-state",
        CALLBACKS,
        "TrainingAwareDataSparsity.on_train_epoch_end",
        "self.data_sparsifier_state_dict = self.data_sparsifier.state_dict()",
        "pass",
        LIGHT + "epochs(2); print(aware.data_sparsifier_state_dict is None)",
    ),
    mistake(
        "epochs-schedule-before-the-sparsifier",
        CALLBACKS,
        "TrainingAwareDataSparsity.on_train_epoch_end",
        "self.data_sparsifier.step()",
        "self.data_scheduler.step()\nself.data_sparsifier.step()",
        LIGHT + "epochs(2); print(aware.data_scheduler.last_epoch)",
    ),
    mistake(
        "training-ends-without-squashing",
        CALLBACKS,
        "TrainingAwareDataSparsity.on_train_end",
        "self.data_sparsifier.squash_mask()",
        "pass",
        LIGHT + "epochs(1); aware.on_train_end(None, module); print(type(said(aware.data_sparsifier.get_data, '0_weight')).__name__)",
    ),
    mistake(
        "weights-alone-are-attached",
        ATTACH,
        "_attach_model_to_data_sparsifier",
        "if type(parameter) in SUPPORTED_TYPES:",
        'if type(parameter) in SUPPORTED_TYPES and name.endswith("weight"):',
        LIGHT
        + "from torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks import _data_sparstity_utils as u\n"
        + "s = DataNormSparsifier(); u._attach_model_to_data_sparsifier(linears(2, 2), s); print(sorted(s.state))",
    ),
    mistake(
        "settings-by-name-are-not-used",
        ATTACH,
        "_attach_model_to_data_sparsifier",
        "**config.get(valid_name, {})",
        "**config.get(name, {})",
        LIGHT
        + "from torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks import _data_sparstity_utils as u\n"
        + "f = u._attach_model_to_data_sparsifier\n"
        "s = DataNormSparsifier(); f(linears(2, 2), s, {'0_weight': {'sparsity_level': 0.1}})\n"
        "print(s.data_groups['0_weight']['sparsity_level'])",
    ),
    mistake(
        "dots-become-nothing",
        ATTACH,
        "_get_valid_name",
        'name.replace(".", "_")',
        'name.replace(".", "_", 1)',
        LIGHT
        + "from torch.ao.pruning._experimental.data_sparsifier.lightning.callbacks import _data_sparstity_utils as u\n"
        + "print(u._get_valid_name('a.b.c'))",
    ),
    # activations
    mistake(
        "activations-are-kept-not-joined",
        ACTIVATION,
        "ActivationSparsifier._aggregate_hook",
        "out_data = agg_fn(data, input_data)",
        "out_data = input_data",
        ACT + "m, s = active(); m(V); m(V); print(s.data_groups['0']['data'])",
    ),
    mistake(
        "activation-function-of-the-layer-is-not-used",
        ACTIVATION,
        "ActivationSparsifier.register_layer",
        '"aggregate_fn": aggregate_fn,',
        "",
        ACT + "m, s = active(aggregate_fn=torch.maximum); m(V); m(V); print(s.data_groups['0']['data'])",
    ),
    mistake(
        "activation-settings-are-shared",
        ACTIVATION,
        "ActivationSparsifier.register_layer",
        "copy.deepcopy(self.defaults)",
        "dict(self.defaults)",
        ACT + "m, s = active(k=1); s.register_layer(m[1]); print(s.data_groups['1']['sparse_config'])",
    ),
    mistake(
        "activation-features-of-none-win",
        ACTIVATION,
        "ActivationSparsifier.register_layer",
        "for arg, val in update_dict.items() if val is not None",
        "for arg, val in update_dict.items()",
        ACT + "print(said(lambda: active()[1].data_groups['0']['reduce_fn'] is not None))",
    ),
    mistake(
        "activation-features-need-no-dimension",
        ACTIVATION,
        "ActivationSparsifier._safe_rail_checks",
        "if feature_dim is None:",
        "if False:",
        ACT + "print(str(said(active, features=[0]))[:30])",
    ),
    mistake(
        "activation-functions-are-not-checked",
        ACTIVATION,
        "ActivationSparsifier._safe_rail_checks",
        '"reduce_fn", "mask_fn"]',
        '"reduce_fn"]',
        ACT + "print(str(said(active, mask_fn=3))[:30])",
    ),
    mistake(
        "activation-first-feature-alone",
        ACTIVATION,
        "ActivationSparsifier.update_mask",
        "for feature_idx in range(len(features)):",
        "for feature_idx in range(1):",
        ACT + "m, s = active(features=[0, 2], feature_dim=1, mask_fn=torch.zeros_like); m(V); s.step(); print(s.get_mask('0'))",
    ),
    mistake(
        "activation-mask-ignores-its-settings",
        ACTIVATION,
        "ActivationSparsifier.update_mask",
        "mask.data = mask_fn(data, **sparse_config)",
        "mask.data = mask_fn(data)",
        ACT + "m, s = active(mask_fn=lambda x, k=2: x * k, k=5); m(V); s.step(); print(s.get_mask('0'))",
    ),
    mistake(
        "activation-data-pile-up",
        ACTIVATION,
        "ActivationSparsifier.step",
        'self.data_groups[name].pop("data")',
        "pass",
        ACT + "m, s = active(); m(V); s.step(); m(V); print(s.data_groups['0']['data'])",
    ),
    mistake(
        "activation-hook-sees-the-second-input",
        ACTIVATION,
        "ActivationSparsifier._sparsify_hook",
        "return input_data * mask",
        "return input_data",
        ACT + "m, s = active(); m(V); s.step(); s.squash_mask(); print(m(V))",
    ),
    mistake(
        "activation-squash-attaches-nothing-by-default",
        ACTIVATION,
        "ActivationSparsifier.squash_mask",
        "attach_sparsify_hook=True",
        "attach_sparsify_hook=False",
        ACT + "m, s = active(); m(V); s.step(); s.squash_mask(); print(m(V))",
    ),
    mistake(
        "activation-squash-keeps-the-first-hook",
        ACTIVATION,
        "ActivationSparsifier.squash_mask",
        'configs["hook"].remove()',
        "pass",
        ACT + "m, s = active(); m(V); s.step(); s.squash_mask(); print(len(m[0]._forward_pre_hooks))",
    ),
    mistake(
        "activation-squash-loses-further-keywords",
        ACTIVATION,
        "ActivationSparsifier.squash_mask",
        ", **kwargs",
        "",
        ACT + "m, s = active(); m(V); s.step(); print(said(s.squash_mask, further=1))",
    ),
    mistake(
        "activation-layer-stays-attached",
        ACTIVATION,
        "ActivationSparsifier.unregister_layer",
        'self.data_groups[name]["hook"].remove()',
        "pass",
        ACT + "m, s = active(); s.unregister_layer('0'); print(len(m[0]._forward_pre_hooks))",
    ),
    mistake(
        "activation-layer-is-registered-twice",
        ACTIVATION,
        "ActivationSparsifier.register_layer",
        "self.unregister_layer(name=name)",
        "pass",
        ACT + "m, s = active(); s.register_layer(m[0]); print(len(m[0]._forward_pre_hooks))",
    ),
    mistake(
        "activation-mask-is-saved-dense",
        ACTIVATION,
        "ActivationSparsifier.state_dict",
        "self._convert_mask(self.state)",
        "self._convert_mask(self.state, False)",
        ACT + "m, s = active(); m(V); s.step(); print(s.state_dict()['state']['0']['mask'].layout)",
    ),
    mistake(
        "activation-layer-is-saved",
        ACTIVATION,
        "ActivationSparsifier._get_serializable_data_groups",
        'if key not in ["hook", "layer"]',
        'if key not in ["hook"]',
        ACT + "m, s = active(); print(sorted(s.state_dict()['data_groups']['0']))",
    ),
    mistake(
        "activation-load-attaches-the-wrong-hook",
        ACTIVATION,
        "ActivationSparsifier.__set_state__",
        'config["hook_state"] == "aggregate":',
        'config["hook_state"] != "aggregate":',
        ACT + "m, s = active(); m(V); s.step(); s.squash_mask(); d = s.state_dict(); n, t = active(); t.load_state_dict(d); print(n(V))",
    ),
    mistake(
        "activation-mask-of-an-unknown-layer-is-made",
        ACTIVATION,
        "ActivationSparsifier.get_mask",
        "if name not in self.state:",
        "if self.state is None:",
        ACT + "m, s = active(); print(said(s.get_mask, 'x'), list(s.state))",
    ),
    mistake(
        "activation-feature-is-copied-back-elsewhere",
        ACTIVATION,
        "ActivationSparsifier._sparsify_hook",
        "* mask[feature_idx]",
        "* mask[0]",
        ACT + "m, s = active(features=[0, 2], feature_dim=1, mask_fn=lambda x: x * 0 + x.mean()); m(V); s.step()\n"
        "s.squash_mask(); print(m(V.clone()))",
    ),
    mistake(
        "activation-repr-shows-functions",
        ACTIVATION,
        "ActivationSparsifier.__repr__",
        '"reduce_fn", "mask_fn", "aggregate_fn"]',
        '"mask_fn", "aggregate_fn"]',
        ACT + "print('reduce_fn' in repr(active()[1]))",
    ),
    mistake(
        "activations-of-an-evaluation-are-passed-over",
        ACTIVATION,
        "ActivationSparsifier._aggregate_hook.hook",
        "input_data = input[0]",
        "input_data = input[0]\nif not module.training:\n    return",
        ACT + "m, s = active()\nm.eval()\nm(V)\nprint([sorted(c) for c in s.data_groups.values()])",
    ),
    mistake(
        "loaded-squashed-data-is-not-saved-again",
        BASE,
        "BaseDataSparsifier._load_container_from_state",
        "register_buffer(name=name, tensor=data)",
        "register_buffer(name=name, tensor=data, persistent=parametrized)",
        DATA + "s, t = norm(A), norm(); s.squash_mask(); t.load_state_dict(s.state_dict()); print(list(t.state_dict()['_container']))",
    ),
    mistake(
        "lenient-load-prefers-the-new",
        BASE,
        "BaseDataSparsifier.load_state_dict",
        "data_groups.update(self.data_groups)",
        "self.data_groups.update(data_groups); data_groups = self.data_groups",
        DATA + "s = norm(A); s.squash_mask(); t = norm(A, sparsity_level=0.1)\nt.squash_mask(); "
        "said(t.load_state_dict, s.state_dict(), strict=False); print(t.data_groups['a']['sparsity_level'])",
    ),
    mistake(
        "embeddings-switch-the-model-to-eval",
        EMBEDDING,
        "post_training_sparse_quantize",
        "data_sparsifier = data_sparsifier_class(**sparse_config)",
        "model.eval()\ndata_sparsifier = data_sparsifier_class(**sparse_config)",
        EMB + "m = Net(); q(m, DataNormSparsifier); print(m.training)",
    ),
    mistake(
        "tied-parameters-are-attached-twice",
        ATTACH,
        "_attach_model_to_data_sparsifier",
        "module.named_parameters()",
        "module.named_parameters(remove_duplicate=False)",
        LIGHT + "l = nn.Linear(8, 8, bias=False); module.model = nn.Sequential(l, l); post.on_fit_end(None, module); "
        "print(list(post.data_sparsifier.state))",
    ),
    mistake(
        "frozen-parameters-are-not-attached",
        ATTACH,
        "_attach_model_to_data_sparsifier",
        "if type(parameter) in SUPPORTED_TYPES:",
        "if type(parameter) in SUPPORTED_TYPES and parameter.requires_grad:",
        LIGHT
        + "module.model[0].weight.requires_grad_(False); aware.on_train_start(None, module); print(list(aware.data_sparsifier.state))",
    ),
    mistake(
        "epoch-end-leaves-the-copy-in-eval",
        CALLBACKS,
        "TrainingAwareDataSparsity.on_train_epoch_end",
        "deepcopy(pl_module.model)",
        "deepcopy(pl_module.model.eval())",
        LIGHT + "epochs(1); print(module.model.training)",
    ),
    mistake(
        "every-fit-goes-on-with-the-last-args",
        CALLBACKS,
        "TrainingAwareDataSparsity.on_train_start",
        "self.data_sparsifier = self.data_sparsifier_class(**self.data_sparsifier_args)",
        "self.data_sparsifier = self.data_sparsifier or self.data_sparsifier_class(**self.data_sparsifier_args)",
        LIGHT + "aware.on_train_start(None, module); a = aware.data_sparsifier; aware.on_train_start(None, module); "
        "print(a is aware.data_sparsifier)",
    ),
    mistake(
        "root-layer-has-no-mask-by-layer",
        ACTIVATION,
        "ActivationSparsifier.get_mask",
        "if name is None:",
        "if not name:",
        ACT + "m = nn.Identity(); s = ActivationSparsifier(m, torch.add, lambda x: x, lambda x: x); s.register_layer(m); m(V); "
        "print(said(s.get_mask, layer=m))",
        after="name = module_to_fqn(self.model, layer)",
    ),
    mistake(
        "train-start-switches-the-model-to-eval",
        CALLBACKS,
        "TrainingAwareDataSparsity.on_train_start",
        "deepcopy(pl_module.model)",
        "deepcopy(pl_module.model.eval())",
        LIGHT + "aware.on_train_start(None, module); print(module.model.training)",
    ),
    mistake(
        "buffers-are-attached-too",
        ATTACH,
        "_attach_model_to_data_sparsifier",
        "in module.named_parameters():",
        "in [*module.named_parameters(), *module.named_buffers()]:",
        LIGHT + "module.model.append(nn.BatchNorm1d(8)); said(post.on_fit_end, None, module); print(sorted(post.data_sparsifier.state))",
    ),
    mistake(
        "selected-embeddings-are-reversed",
        EMBEDDING,
        "post_training_sparse_quantize",
        "for emb in select_embeddings:",
        "select_embeddings.reverse()\nfor emb in select_embeddings:",
        EMB + "m = Net(); l = [m.a, m.deep[0]]; q(m, DataNormSparsifier, select_embeddings=l); print([type(e).__name__ for e in l])",
    ),
    mistake(
        "empty-layer-is-no-layer",
        ACTIVATION,
        "ActivationSparsifier.get_mask",
        "layer is None:",
        "not layer:",
        ACT + "m = nn.Sequential(nn.Sequential()); s = ActivationSparsifier(m, torch.add, lambda x: x, lambda x: x); "
        "s.register_layer(m[0]); m(V); print(said(s.get_mask, layer=m[0]))",
        after="if name is None and layer is None:",
    ),
    mistake(
        "registering-switches-the-layer-to-eval",
        ACTIVATION,
        "ActivationSparsifier.register_layer",
        "agg_hook = layer.register_forward_pre_hook(",
        "agg_hook = layer.eval().register_forward_pre_hook(",
        ACT + "m, s = active(); print(m[0].training)",
    ),
    mistake(
        "activation-mask-function-gets-a-keyword",
        ACTIVATION,
        "ActivationSparsifier.update_mask",
        "mask_fn(data, **sparse_config)",
        "mask_fn(data=data, **sparse_config)",
        ACT + "m, s = active(); m(V); print(said(s.step))",
    ),
    mistake(
        "activation-mask-function-of-a-feature-gets-a-keyword",
        ACTIVATION,
        "ActivationSparsifier.update_mask",
        "mask_fn(data_feature, **sparse_config)",
        "mask_fn(data=data_feature, **sparse_config)",
        ACT + "m, s = active(features=[0], feature_dim=1); m(V); print(said(s.step))",
    ),
    mistake(
        "activation-step-warns",
        ACTIVATION,
        "ActivationSparsifier.step",
        "with torch.no_grad():",
        "warnings.warn('deprecated', FutureWarning, stacklevel=2)\nwith torch.no_grad():",
        ACT + "m, s = active(); m(V); warnings.simplefilter('error'); print(said(s.step))",
    ),
    mistake(
        "activation-step-prints",
        ACTIVATION,
        "ActivationSparsifier.step",
        "with torch.no_grad():",
        "print(self)\nwith torch.no_grad():",
        ACT + "m, s = active(); m(V); s.step()",
    ),
    mistake(
        "activation-hook-prints",
        ACTIVATION,
        "ActivationSparsifier._aggregate_hook.hook",
        "input_data = input[0]",
        "input_data = input[0]\nprint(input_data.shape)",
        ACT + "m, s = active(); m(V)",
    ),
    mistake(
        "activation-step-draws-a-random-number",
        ACTIVATION,
        "ActivationSparsifier.step",
        "with torch.no_grad():",
        "torch.rand(1)\nwith torch.no_grad():",
        ACT + "m, s = active(); m(V); s.step()\nprint(torch.rand(1).item())",
    ),
    mistake(
        "activation-aggregation-draws-a-random-number",
        ACTIVATION,
        "ActivationSparsifier._aggregate_hook.hook",
        "input_data = input[0]",
        "torch.rand(1)\ninput_data = input[0]",
        ACT + "m, s = active(); m(V)\nprint(torch.rand(1).item())",
    ),
    mistake(
        "activation-sparsifying-draws-a-random-number",
        ACTIVATION,
        "ActivationSparsifier._sparsify_hook.hook",
        "input_data = input[0]",
        "torch.rand(1)\ninput_data = input[0]",
        ACT + "m, s = active(); m(V); s.step(); s.squash_mask(); m(V)\nprint(torch.rand(1).item())",
    ),
    mistake(
        "activation-registering-draws-a-random-number",
        ACTIVATION,
        "ActivationSparsifier.register_layer",
        "name = module_to_fqn(self.model, layer)",
        "torch.rand(1)\nname = module_to_fqn(self.model, layer)",
        ACT + "m, s = active(); \nprint(torch.rand(1).item())",
    ),
    mistake(
        "activation-hook-comes-before-others",
        ACTIVATION,
        "ActivationSparsifier.register_layer",
        "self._aggregate_hook(name=name))",
        "self._aggregate_hook(name=name), prepend=True)",
        ACT + "m = nn.Sequential(nn.Identity()); m[0].register_forward_pre_hook(lambda m, a: (a[0] + 1,))\n"
        "m, s = active(m); m(V); print(s.data_groups['0']['data'])",
    ),
    mistake(
        "activation-sparsify-hook-comes-before-others",
        ACTIVATION,
        "ActivationSparsifier.squash_mask",
        "self._sparsify_hook(name)",
        "self._sparsify_hook(name), prepend=True",
        ACT + "m = nn.Sequential(nn.Identity()); m[0].register_forward_pre_hook(lambda m, a: (a[0] + 1,))\n"
        "m, s = active(m); m(V); s.step(); s.squash_mask(); print(m(V))",
    ),
    mistake(
        "data-squash-empties-the-list-of-names",
        BASE,
        "BaseDataSparsifier.squash_mask",
        "for name in names:",
        "while names:\n    name = names.pop(0)",
        DATA + "s = norm(A); names = ['a']; s.squash_mask(names=names); print(names)",
    ),
    mistake(
        "data-import-hides-all-warnings",
        BASE,
        "",
        'warnings.simplefilter("once")',
        'warnings.simplefilter("ignore")',
        "import torch.ao.pruning._experimental.data_sparsifier.base_data_sparsifier as b, importlib\n"
        "warnings.resetwarnings(); importlib.reload(b); print(warnings.filters[0][0])",
    ),
    mistake(
        "data-zeros-are-not-checked-at-level-zero",
        NORM,
        "DataNormSparsifier.update_mask",
        "if zeros_per_block > values_per_block:",
        "if zeros_per_block > values_per_block and sparsity_level > 0:",
        DATA + "print(said(norm(A, zeros_per_block=9, sparsity_level=0.0).step))",
    ),
    Mistake(
        "activation-step-turns-gradients-on",
        (
            Function(
                ACTIVATION,
                "ActivationSparsifier.step",
                """
                def step(self):
                    torch.set_grad_enabled(False)
                    for name, configs in self.data_groups.items():
                        self.update_mask(name, configs.pop("data"), configs)
                    torch.set_grad_enabled(True)
                """,
            ),
        ),
        ACT + "m, s = active(); m(V); torch.set_grad_enabled(False); s.step(); print(torch.is_grad_enabled())",
    ),
    mistake(
        "data-add-draws-a-random-number",
        BASE,
        "BaseDataSparsifier.add_data",
        "local_args = copy.deepcopy(self.defaults)",
        "torch.rand(1)\nlocal_args = copy.deepcopy(self.defaults)",
        DATA + "norm(A); print(torch.rand(1).item())",
    ),
    mistake(
        "data-step-prints",
        BASE,
        "BaseDataSparsifier.step",
        "with torch.no_grad():",
        "print(self)\nwith torch.no_grad():",
        DATA + "norm(A).step()",
    ),
]
