"""Known defects of the data sparsifiers and of the quantization of embeddings."""

from ao.sparsity.testing.register.entry import Defect

BASE = "torch.ao.pruning._experimental.data_sparsifier.base_data_sparsifier: BaseDataSparsifier."
NORM = "torch.ao.pruning._experimental.data_sparsifier.data_norm_sparsifier: DataNormSparsifier."
QUANTIZE = "torch.ao.pruning._experimental.data_sparsifier.quantization_utils: post_training_sparse_quantize"

SQUEEZE = "update_mask squeezes the data and never gives the mask the shape of the data"
SQUASHED = "squashed data stays in data_groups, where everything else takes it for masked"
BOTH_SIDES = "load_state_dict(strict=False) registers data that is already there"
FLAT_NAMES = 'names become attributes of a module after replacing "." by "_", and nobody looks whether they are free'
LOADED_CLASS = "the parametrization is looked up in data_groups, not in data_groups[name]"
CONSTRUCTOR = "DataNormSparsifier settles norm and zeros_per_block in the constructor, before the config is known"
MASK_DTYPE = "a mask has the dtype of the first data until the first step()"
IN_PLACE = "add_data changes the container before it is known whether the new data can be registered"
ROOT = "embeddings are looked for, and replaced, only below the model"
FROM_FLOAT = "quantized embeddings drop options of the float ones, and the caller does not refuse them"
IDENTITY = "a shared embedding is handled under one of its names only"

# What most reproductions start with.
START = """
            import torch
            from torch import nn
            from torch.ao.pruning._experimental.data_sparsifier import DataNormSparsifier
"""
START_QUANTIZE = (
    START
    + """
            from torch.ao.pruning._experimental.data_sparsifier.quantization_utils import post_training_sparse_quantize
"""
)

DEFECTS = [
    Defect(
        id="norm-given-to-add-data-is-ignored",
        area="data_sparsifier",
        kind="wrong result",
        summary='add_data(..., norm="L2") is stored in the group but the mask is computed with the norm of the constructor.',
        where=NORM + "__init__",
        contract='Class docstring: "All arguments to the DataNormSparsifier constructor are "default" arguments and could be '
        'overridden by the configuration provided in the `add_data` step."',
        error="AssertionError",
        match="norm of add_data",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier(norm="L1")
            sparsifier.add_data("a", torch.tensor([[3., 3, 3, 3], [0, 0, 0, 11]]), norm="L2")
            sparsifier.step()
            print(sparsifier.get_mask("a")[0].tolist())  # prints [1, 1, 1, 1], should be [0, 0, 0, 0]
        """,
        mend="put norm into the defaults and read it from the configuration in update_mask",
        cause=CONSTRUCTOR,
    ),
    Defect(
        id="negative-data-level-prunes",
        area="data_sparsifier",
        kind="wrong result",
        summary="A sparsity_level below 0 prunes most blocks: the branch that sets the mask to ones does not return.",
        where=NORM + "update_mask",
        contract="The code itself: `if sparsity_level <= 0: mask.data = torch.ones_like(mask)`; WeightNormSparsifier obeys it.",
        error="AssertionError",
        match="negative level",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(4, 4))], sparsity_level=-0.25)
            sparsifier.step()
            print(int(sparsifier.get_mask("a").sum()))  # prints 4, should be 16
        """,
        mend="return after each of the two early branches",
    ),
    Defect(
        id="replacing-data-drops-its-parametrization",
        area="data_sparsifier",
        kind="wrong result",
        summary="Data added with a parametrization class of its own gets FakeSparsity when it is replaced.",
        where=BASE + "add_data",
        contract='Docstring, note 4: "By default, the config of the replaced data is used as config for the replacing data".',
        error="AssertionError",
        match="parametrization of the replaced data",
        reproduce=START
        + """
            class Negated(nn.Identity):
                def forward(self, x):
                    return -x
            sparsifier = DataNormSparsifier()
            print(sparsifier.add_data("a", torch.ones(1, 4), parametrization=Negated))
            print(sparsifier.add_data("a", torch.ones(1, 4)))  # prints ones, should be -1 as above
        """,
        mend="take mask and parametrization from local_args after it has become the configuration of the replaced data",
    ),
    Defect(
        id="data-sparsifier-import-overrides-warning-filters",
        area="data_sparsifier",
        kind="corrupted state",
        summary='Importing the data sparsifier puts a filter "once" for every warning in front of the application\'s own.',
        where="torch.ao.pruning._experimental.data_sparsifier.base_data_sparsifier: module level",
        contract="Importing a library does not change the process's warning filters (documentation of the warnings module: "
        "they belong to the application; libraries use catch_warnings).",
        error="AssertionError",
        match="warning filters after the import",
        reproduce="""
            import importlib, sys, warnings
            import torch.ao.pruning._experimental.data_sparsifier.base_data_sparsifier as module
            warnings.simplefilter("ignore")
            importlib.reload(module)
            print(warnings.filters[0][0])  # prints once (unless Python runs with -W), should be ignore
        """,
        mend="drop the module-level warnings.simplefilter, or warn once per name inside add_data",
    ),
    Defect(
        id="copied-data-sparsifier-cannot-step",
        area="data_sparsifier",
        kind="crash",
        summary="deepcopy and pickle lose enable_mask_update, groups and the norm: step() of the copy raises AttributeError.",
        where=BASE + "__getstate__",
        contract="The class implements __getstate__ and __setstate__; a copy behaves as its original (documentation of copy).",
        error="AttributeError",
        match="enable_mask_update|norm",
        reproduce=START
        + """
            import copy
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4))])
            try:
                copy.deepcopy(sparsifier).step()
            except AttributeError as error:
                print(error)  # prints no attribute 'enable_mask_update', should be silent
        """,
        mend="start __getstate__ from a copy of __dict__ and replace what needs another form",
    ),
    Defect(
        id="one-dimensional-data-gets-a-two-dimensional-mask",
        area="data_sparsifier",
        kind="crash",
        summary="step() gives a vector of n elements a mask of shape (1, n), and from then on the data cannot be read.",
        where=NORM + "update_mask",
        contract='Comment: "in case the data is bias (or 1D)"; FakeSparsity needs a mask of the shape of the data.',
        error="AssertionError",
        match="mask of a vector",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("bias", torch.ones(8))])
            sparsifier.step()
            print(sparsifier.get_mask("bias").shape)  # prints (1, 8), should be (8,)
        """,
        mend="reshape the computed mask to the shape of the data",
        cause=SQUEEZE,
    ),
    Defect(
        id="one-element-data-cannot-step",
        area="data_sparsifier",
        kind="crash",
        summary="step() raises IndexError for data of one element, such as the bias of nn.Linear(1, 1).",
        where=NORM + "update_mask",
        contract="One element is one (cut off) block; squeeze() leaves no dimension, for which there is no branch.",
        error="IndexError",
        match="index out of range",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("bias", nn.Linear(1, 1).bias)])
            try:
                sparsifier.step()
            except IndexError as error:
                print(error)  # prints tuple index out of range, should be silent
        """,
        mend="view data of fewer than two dimensions as one row instead of squeezing",
        cause=SQUEEZE,
    ),
    Defect(
        id="column-data-gets-a-row-mask",
        area="data_sparsifier",
        kind="crash",
        summary="step() gives data of shape (n, 1) a mask of shape (1, n): an nn.Embedding(n, 1) is unusable afterwards.",
        where=NORM + "update_mask",
        contract="Two-dimensional data is what the class supports; FakeSparsity needs a mask of the shape of the data.",
        error="AssertionError",
        match="mask of a column",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", nn.Embedding(8, 1))], sparse_block_shape=(1, 1))
            sparsifier.step()
            print(sparsifier.get_mask("a").shape)  # prints (1, 8), should be (8, 1)
        """,
        mend="squeeze only data of more than two dimensions",
        cause=SQUEEZE,
    ),
    Defect(
        id="unit-dimensions-are-missing-from-the-mask",
        area="data_sparsifier",
        kind="crash",
        summary="Data such as (1, n, m) is accepted by squeezing it, but its mask stays (n, m): the data cannot be read any more.",
        where=NORM + "update_mask",
        contract='Only more than two dimensions after squeeze() are refused ("only supports 2-D at the moment"); FakeSparsity '
        "needs a mask of the shape of the data.",
        error="AssertionError",
        match="mask without unit dimensions",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(1, 4, 4))])
            sparsifier.step()
            print(sparsifier.get_mask("a").shape)  # prints (4, 4), should be (1, 4, 4)
        """,
        mend="reshape the computed mask to the shape of the data",
        cause=SQUEEZE,
    ),
    Defect(
        id="empty-data-cannot-step",
        area="data_sparsifier",
        kind="crash",
        summary="step() raises RuntimeError from avg_pool2d for data without elements, which add_data accepts.",
        where=NORM + "__get_data_level_mask",
        contract="Tensors without elements are valid in PyTorch, nn.Embedding(0, 4) among them; no block, nothing to prune.",
        error="RuntimeError",
        match="[Ee]xpected",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.empty(0, 4))])
            try:
                sparsifier.step()
            except RuntimeError as error:
                print(error)  # prints Expected 3D or 4D ..., should be silent
        """,
        mend="return early for data without elements",
    ),
    Defect(
        id="zeros-per-block-does-not-follow-the-block-shape",
        area="data_sparsifier",
        kind="wrong result",
        summary="A sparse_block_shape given to add_data keeps the zeros_per_block derived from the constructor's block shape: "
        "larger blocks are zeroed in part, smaller ones raise.",
        where=NORM + "__init__",
        contract='Class docstring: "By default we assume that all elements within a block are zeroed-out", and the block shape may '
        "be overridden in add_data.",
        error="AssertionError",
        match="blocks of the shape given to add_data",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier(sparsity_level=1.0)
            sparsifier.add_data("a", torch.ones(1, 8), sparse_block_shape=(1, 8))
            sparsifier.step()
            print(int(sparsifier.get_mask("a").sum()))  # prints 4, should be 0
        """,
        mend="keep None as the default and derive zeros_per_block from the block shape in update_mask",
        cause=CONSTRUCTOR,
    ),
    Defect(
        id="zeros-per-block-none-is-no-config",
        area="data_sparsifier",
        kind="crash",
        summary="zeros_per_block=None, the constructor's default, makes step() raise TypeError when it is given to add_data.",
        where=NORM + "__init__",
        contract='Class docstring: "All arguments to the DataNormSparsifier constructor are "default" arguments and could be '
        'overridden by the configuration provided in the `add_data` step."',
        error="TypeError",
        match="NoneType",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier(zeros_per_block=2)
            sparsifier.add_data("a", torch.ones(1, 8), zeros_per_block=None)
            try:
                sparsifier.step()
            except TypeError as error:
                print(error)  # prints '>' not supported ..., should be silent: all elements of a block
        """,
        mend="keep None as the default and derive zeros_per_block from the block shape in update_mask",
        cause=CONSTRUCTOR,
    ),
    Defect(
        id="l2-norm-of-half-data-underflows",
        area="data_sparsifier",
        kind="wrong result",
        summary="With norm L2 float16 data is squared in float16: values below 2e-4 become 0, above 256 infinite, and blocks are "
        "pruned by their position.",
        where=NORM + "update_mask",
        contract='Class docstring: blocks "with the lowest norm" are zeroed out; torch.linalg.vector_norm ranks the same float16 '
        "data correctly.",
        error="AssertionError",
        match="float16",
        reproduce=START
        + """
            data = torch.tensor([[400.] * 4, [300.] * 4]).half()
            sparsifier = DataNormSparsifier([("a", data)], norm="L2")
            sparsifier.step()
            print(sparsifier.get_mask("a")[:, 0].tolist())  # prints [0, 1], should be [1, 0]
            print(torch.linalg.vector_norm(data, dim=1))  # prints 800 and 600
        """,
        mend="square in float32: data.float().square()",
    ),
    Defect(
        id="data-list-groups-share-the-defaults",
        area="data_sparsifier",
        kind="corrupted state",
        summary="The constructor passes the defaults as each data's configuration, so that all groups of data_list share the "
        "default's own objects.",
        where=BASE + "__init__",
        contract="add_data deep-copies the defaults for every group; changing one group's value must not change another's.",
        error="AssertionError",
        match="another group's value",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4)), ("b", torch.ones(2, 4))], sparse_block_shape=[1, 4])
            sparsifier.data_groups["a"]["sparse_block_shape"][1] = 2
            print(sparsifier.data_groups["b"]["sparse_block_shape"])  # prints [1, 2], should be [1, 4]
        """,
        mend="call self.add_data(name, data): the defaults are added, and copied, there",
    ),
    Defect(
        id="data-state-dict-shares-the-groups",
        area="data_sparsifier",
        kind="corrupted state",
        summary="state_dict() returns the sparsifier's own data_groups: a scheduler's next step, or new data, changes the saved state.",
        where=BASE + "state_dict",
        contract="The masks in the same dictionary are copied, and BaseSparsifier.state_dict and torch.optim build new groups: "
        "a state is that of the moment it was asked for.",
        error="AssertionError",
        match="saved level",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4))], sparsity_level=0.5)
            state = sparsifier.state_dict()
            sparsifier.data_groups["a"]["sparsity_level"] = 0.9
            print(state["data_groups"]["a"]["sparsity_level"])  # prints 0.9, should be 0.5
        """,
        mend="return copy.deepcopy(self.data_groups)",
    ),
    Defect(
        id="data-sparsifier-state-needs-an-unsafe-load",
        area="data_sparsifier",
        kind="crash",
        summary="torch.load with its default weights_only=True rejects the saved state_dict(): it holds collections.defaultdict.",
        where=BASE + "state_dict",
        contract='README: "Returns dictionary that can be serialized"; torch.load reads dictionaries of tensors and numbers safely.',
        error="UnpicklingError",
        match="Weights only load failed",
        reproduce=START
        + """
            import io
            file = io.BytesIO()
            torch.save(DataNormSparsifier([("a", torch.ones(2, 4))]).state_dict(), file)
            file.seek(0)
            try:
                torch.load(file)
            except Exception as error:
                print(type(error))  # prints UnpicklingError, should be silent
        """,
        mend="return plain dictionaries, and make them defaultdicts again in load_state_dict",
        since="2.6",
    ),
    Defect(
        id="plain-dict-state-breaks-add-data",
        area="data_sparsifier",
        kind="corrupted state",
        summary="A state of plain dictionaries loads, but replaces the defaultdict of the sparsifier: add_data raises KeyError then.",
        where=BASE + "load_state_dict",
        contract='Docstring: "state_dict - the dictionary to which the current sparsifier needs to be restored to"; a state that '
        "loads leaves a sparsifier that works.",
        error="KeyError",
        match="later",
        reproduce=START
        + """
            state = {key: dict(value) for key, value in DataNormSparsifier([("a", torch.ones(2, 4))]).state_dict().items()}
            sparsifier = DataNormSparsifier()
            sparsifier.load_state_dict(state)
            try:
                sparsifier.add_data("later", torch.ones(2, 4))
            except KeyError as error:
                print(error)  # prints 'later', should be silent
        """,
        mend='self.state[name] = {"mask": mask} in add_data',
    ),
    Defect(
        id="copied-data-no-longer-requires-gradients",
        area="data_sparsifier",
        kind="wrong result",
        summary="deepcopy, pickle and load_state_dict turn parameters into buffers: what is read from the copy gets no gradient.",
        where=BASE + "_load_container_from_state",
        contract="A deep copy of a parameter is a parameter that requires gradients; nn.Module.__deepcopy__ and load_state_dict keep it.",
        error="AssertionError",
        match="no longer a parameter",
        reproduce=START
        + """
            import copy
            sparsifier = DataNormSparsifier([("a", nn.Parameter(torch.ones(2, 4)))])
            print(copy.deepcopy(sparsifier).get_data("a").requires_grad)  # prints False, should be True
        """,
        mend="save which data are parameters (and requires_grad) and register them as such",
    ),
    Defect(
        id="loading-drops-the-parametrization",
        area="data_sparsifier",
        kind="wrong result",
        summary="load_state_dict, deepcopy and pickle put FakeSparsity in place of the parametrization in the data's configuration.",
        where=BASE + "_load_container_from_state",
        contract='Docstring of strict: "restored exactly to the state in state_dict", which has the class in data_groups[name].',
        error="AssertionError",
        match="parametrization of the loaded data",
        reproduce=START
        + """
            class Negated(nn.Identity):
                def forward(self, x):
                    return -x
            sparsifier = DataNormSparsifier()
            print(sparsifier.add_data("a", torch.ones(1, 4), parametrization=Negated))
            sparsifier.load_state_dict(sparsifier.state_dict())
            print(sparsifier.get_data("a", return_original=False))  # prints ones, should be -1 as above
        """,
        mend='config_name.get("parametrization", utils.FakeSparsity)',
        cause=LOADED_CLASS,
    ),
    Defect(
        id="data-named-parametrization-cannot-be-loaded",
        area="data_sparsifier",
        kind="crash",
        summary='load_state_dict calls the configuration of the data named "parametrization" as if it were a class.',
        where=BASE + "_load_container_from_state",
        contract="A name is free: add_data accepts it, state_dict saves it.",
        error="TypeError",
        match="not callable",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("parametrization", torch.ones(2, 4))])
            try:
                sparsifier.load_state_dict(sparsifier.state_dict())
            except TypeError as error:
                print(error)  # prints 'dict' object is not callable, should be silent
        """,
        mend='config_name.get("parametrization", utils.FakeSparsity)',
        cause=LOADED_CLASS,
    ),
    Defect(
        id="refused-load-empties-the-data-sparsifier",
        area="data_sparsifier",
        kind="corrupted state",
        summary="A strict load that raises RuntimeError for an incomplete state has already thrown away the data of the sparsifier.",
        where=BASE + "load_state_dict",
        contract="A state that is refused leaves the object as it was (Optimizer.load_state_dict checks before it changes anything).",
        error="AssertionError",
        match="refused load",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4))])
            try:
                sparsifier.load_state_dict({**sparsifier.state_dict(), "data_groups": {}})
            except RuntimeError as error:
                print(error)
            print(list(sparsifier.data_groups), list(sparsifier._container.state_dict()))  # prints ['a'] [], the data is gone
        """,
        mend="fill a new container and assign it after it is complete",
    ),
    Defect(
        id="lenient-load-fails-on-common-names",
        area="data_sparsifier",
        kind="crash",
        summary="load_state_dict(strict=False) raises KeyError if a name of the state is already in the sparsifier.",
        where=BASE + "load_state_dict",
        contract='Docstring of strict: "If False - ... data added before loading the state_dict is not erased"; the merge of the '
        "masks and the groups below foresees common names.",
        error="KeyError",
        match="already exists",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4))])
            try:
                sparsifier.load_state_dict(sparsifier.state_dict(), strict=False)
            except KeyError as error:
                print(error)  # prints attribute 'a' already exists, should be silent
        """,
        mend="with strict=False load only the names that the sparsifier lacks",
        cause=BOTH_SIDES,
    ),
    Defect(
        id="lenient-load-overwrites-squashed-data",
        area="data_sparsifier",
        kind="corrupted state",
        summary="load_state_dict(strict=False) replaces data that was squashed before by the data of the same name in the state, "
        "while mask and group stay the old ones.",
        where=BASE + "load_state_dict",
        contract='Docstring of strict: "If False - ... data added before loading the state_dict is not erased".',
        error="AssertionError",
        match="erased by a lenient load",
        reproduce=START
        + """
            saved = DataNormSparsifier([("a", torch.zeros(1, 4))])
            sparsifier = DataNormSparsifier([("a", torch.ones(1, 4))])
            sparsifier.squash_mask()
            sparsifier.load_state_dict(saved.state_dict(), strict=False)
            print(sparsifier.get_data("a", return_original=False))  # prints zeros, should be ones
        """,
        mend="with strict=False load only the names that the sparsifier lacks",
        cause=BOTH_SIDES,
    ),
    Defect(
        id="squash-after-a-partial-squash-fails",
        area="data_sparsifier",
        kind="crash",
        summary="After squash_mask(names=[...]) a squash_mask() for the rest raises ValueError.",
        where=BASE + "squash_mask",
        contract='Docstring: names is a "list of strings to squash mask for"; "If none, squashes mask for all the keys".',
        error="ValueError",
        match="does not have a parametrization",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4)), ("b", torch.ones(2, 4))])
            sparsifier.squash_mask(names=["a"])
            try:
                sparsifier.squash_mask()
            except ValueError as error:
                print(error)  # prints ... does not have a parametrization on a, should be silent
        """,
        mend="by default squash the names that are still parametrized",
        cause=SQUASHED,
    ),
    Defect(
        id="step-fails-after-a-partial-squash",
        area="data_sparsifier",
        kind="crash",
        summary="After squash_mask(names=[...]) step() raises ValueError, and the data that is still masked cannot be updated.",
        where=BASE + "step",
        contract="squash_mask(names) ends the masking of those names only; the others stay parametrized and go on.",
        error="ValueError",
        match="mask squashed",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4)), ("b", torch.ones(2, 4))])
            sparsifier.squash_mask(names=["a"])
            try:
                sparsifier.step()
            except ValueError as error:
                print(error)  # prints mask squashed ..., should be silent
        """,
        mend="in step() pass over data that is not parametrized any more",
        cause=SQUASHED,
    ),
    Defect(
        id="squashed-data-cannot-be-replaced",
        area="data_sparsifier",
        kind="crash",
        summary="add_data with the name of squashed data raises ValueError, although its mask is still there to be reused.",
        where=BASE + "add_data",
        contract='Docstring, notes 1 and 2: "If the data with name already exists, it replaces the data", "the old mask is reused".',
        error="ValueError",
        match="mask squashed",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4))])
            sparsifier.squash_mask()
            try:
                sparsifier.add_data("a", torch.ones(2, 4))
            except ValueError as error:
                print(error)  # prints mask squashed ..., should be silent
        """,
        mend="compare with the shape of get_data(name, return_original=False)",
        cause=SQUASHED,
    ),
    Defect(
        id="squashed-data-cannot-be-deleted",
        area="data_sparsifier",
        kind="crash",
        summary="add_data(..., reuse_mask=False) with the name of squashed data raises ValueError while it deletes the old data.",
        where=BASE + "_delete_data",
        contract='Docstring, note 1: "If the data with name already exists, it replaces the data".',
        error="ValueError",
        match="does not have a parametrization",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4))])
            sparsifier.squash_mask()
            try:
                sparsifier.add_data("a", torch.ones(2, 4), reuse_mask=False)
            except ValueError as error:
                print(error)  # prints ... does not have a parametrization on a, should be silent
        """,
        mend="in _delete_data squash only what is parametrized",
        cause=SQUASHED,
    ),
    Defect(
        id="failed-replacement-loses-the-old-data",
        area="data_sparsifier",
        kind="corrupted state",
        summary="add_data deletes the old data before the new one is registered: if that raises, the old data, mask and "
        "configuration are gone.",
        where=BASE + "add_data",
        contract="A replacement that is refused leaves what there was, as it does for a wrong shape with reuse_mask=True.",
        error="AssertionError",
        match="the old data is lost",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4))])
            try:
                sparsifier.add_data("a", torch.ones(2, 4), reuse_mask=False, mask=torch.ones(3, 3))
            except AssertionError as error:
                print(error)
            print(list(sparsifier.data_groups))  # prints [], should be ['a']
        """,
        mend="build and check the new parametrization before deleting the old data",
        cause=IN_PLACE,
    ),
    Defect(
        id="refused-data-stays-in-the-container",
        area="data_sparsifier",
        kind="corrupted state",
        summary="Data that add_data refuses (a mask of another shape) stays in the container and in every state saved later.",
        where=BASE + "add_data",
        contract="state_dict: the container's state is that of the data in data_groups; the refused name is in no group.",
        error="AssertionError",
        match="the refused data is saved",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier()
            try:
                sparsifier.add_data("a", torch.ones(2, 4), mask=torch.ones(3, 3))
            except AssertionError as error:
                print(error)
            print(list(sparsifier.data_groups), list(sparsifier.state_dict()["_container"]))  # prints [] ['a'], should be [] []
        """,
        mend="delete the buffer if registering the parametrization raises",
        cause=IN_PLACE,
    ),
    Defect(
        id="reused-mask-keeps-the-old-dtype",
        area="data_sparsifier",
        kind="crash",
        summary="Before the first step() data cannot be replaced by data of a narrower dtype: the reused mask promotes it and "
        "registering raises ValueError. After a step() it can.",
        where=BASE + "add_data",
        contract='Docstring, note 3: with reuse_mask=True the replacing data "needs to have the same shape"; nothing else is asked.',
        error="ValueError",
        match="dtype",
        reproduce=START
        + """
            sparsifier = DataNormSparsifier([("a", torch.ones(2, 4))])
            try:
                sparsifier.add_data("a", torch.ones(2, 4).half())
            except ValueError as error:
                print(error)  # prints ... may not change the dtype ..., should be silent
        """,
        mend="create masks as int8 (as step() makes them) or bool, which promote nothing",
        cause=MASK_DTYPE,
    ),
    Defect(
        id="first-mask-promotes-converted-data",
        area="data_sparsifier",
        kind="wrong result",
        summary="If attached parameters are converted (module.half()) before the first step(), the sparse data is float32 and "
        "squash_mask raises.",
        where=BASE + "add_data",
        contract="Masking keeps the dtype (parametrizations may not change it); after the first step() the same conversion works.",
        error="AssertionError",
        match="dtype of the sparse data",
        reproduce=START
        + """
            embedding = nn.Embedding(4, 4)
            sparsifier = DataNormSparsifier([("a", embedding)])
            embedding.half()
            print(sparsifier.get_data("a", return_original=False).dtype)  # prints torch.float32, should be torch.float16
        """,
        mend="create masks as int8 (as step() makes them) or bool, which promote nothing",
        cause=MASK_DTYPE,
    ),
    Defect(
        id="squash-mask-ignores-sparsified",
        area="data_sparsifier",
        kind="wrong result",
        summary="squash_mask(sparsified=False) applies the mask: the documented argument disappears in **kwargs.",
        where=BASE + "squash_mask",
        contract='Docstring: "sparsified: if true - applies the mask before squashing, if false - does not apply the mask before '
        'squashing".',
        error="AssertionError",
        match="sparsified=False",
        reproduce=START
        + """
            data = torch.ones(2, 4)
            sparsifier = DataNormSparsifier([("a", data)], sparsity_level=1.0)
            sparsifier.step()
            sparsifier.squash_mask(sparsified=False)
            print(data)  # prints zeros, should be ones
        """,
        mend="rename leave_parametrized to the documented sparsified, or document leave_parametrized",
    ),
    Defect(
        id="data-cannot-be-named-like-module-attributes",
        area="data_sparsifier",
        kind="crash",
        summary='Names such as "values", "keys", "forward" or "training" raise KeyError, because data becomes an attribute of a '
        "module; a model may well have an embedding called values.",
        where=BASE + "add_data",
        contract="data_list is a list of (name, data) tuples without reserved names; the container is internal.",
        error="KeyError",
        match="already exists",
        reproduce=START
        + """
            try:
                DataNormSparsifier([("values", torch.ones(2, 4))])
            except KeyError as error:
                print(error)  # prints attribute 'values' already exists, should be silent
        """,
        mend="prefix the names of the attributes in the container",
        cause=FLAT_NAMES,
    ),
    Defect(
        id="quantize-skips-an-embedding-whose-name-collides",
        area="data_sparsifier",
        kind="wrong result",
        summary='Of two embeddings "emb.0" and "emb_0" only one is sparsified: the second replaces the first in the sparsifier.',
        where=QUANTIZE,
        contract='Docstring of select_embeddings: "If None, all embedding modules will be sparsified".',
        error="AssertionError",
        match="an embedding is not sparsified",
        reproduce=START_QUANTIZE
        + """
            model = nn.ModuleDict({"emb": nn.ModuleList([nn.Embedding(4, 4)]), "emb_0": nn.Embedding(4, 4)})
            embeddings = model["emb"][0], model["emb_0"]
            post_training_sparse_quantize(model, DataNormSparsifier, sparsity_level=1.0)
            print([int((e.weight == 0).sum()) for e in embeddings])  # prints a 0 and a 16, should be 16 twice
        """,
        mend="number the names, or refuse a name that is taken",
        cause=FLAT_NAMES,
    ),
    Defect(
        id="quantize-first-skips-an-embedding-whose-name-collides",
        area="data_sparsifier",
        kind="wrong result",
        summary='With sparsify_first=False only one of two embeddings "emb.0" and "emb_0" is sparsified.',
        where=QUANTIZE,
        contract='Docstring of select_embeddings: "If None, all embedding modules will be sparsified".',
        error="AssertionError",
        match="a quantized embedding is not sparsified",
        reproduce=START_QUANTIZE
        + """
            model = nn.ModuleDict({"emb": nn.ModuleList([nn.Embedding(4, 4)]), "emb_0": nn.Embedding(4, 4)})
            post_training_sparse_quantize(model, DataNormSparsifier, sparsify_first=False, sparsity_level=1.0)
            for embedding in (model["emb"][0], model["emb_0"]):
                print(float(embedding.weight().dequantize().abs().max()))  # prints 2 or so for one, should be about 0 twice
        """,
        mend="number the names, or refuse a name that is taken",
        cause=FLAT_NAMES,
    ),
    Defect(
        id="requantization-clamps-the-zeros-away",
        area="data_sparsifier",
        kind="wrong result",
        summary="With sparsify_first=False the zeros of a row whose range excludes 0 are clamped to its end: no sparsity is left.",
        where=QUANTIZE,
        contract='Docstring: "embedding layers are sparsified", then requantized: the result is a sparse quantized embedding.',
        error="AssertionError",
        match="no sparsity is left",
        reproduce=START_QUANTIZE
        + """
            model = nn.ModuleDict({"table": nn.Embedding.from_pretrained(1 + torch.rand(4, 4))})
            post_training_sparse_quantize(model, DataNormSparsifier, sparsify_first=False, sparsity_level=1.0)
            print(float(model["table"].weight().dequantize().min()))  # prints 1 or more, should be 0
        """,
        mend="choose scales and zero points anew from the sparse weight, or include 0 in the range before the first quantization",
    ),
    Defect(
        id="root-embedding-is-not-quantized",
        area="data_sparsifier",
        kind="wrong result",
        summary="For a model that is itself an nn.Embedding nothing happens, without a word.",
        where="torch.ao.pruning._experimental.data_sparsifier.quantization_utils: _fetch_all_embeddings",
        contract='Docstring of select_embeddings: "If None, all embedding modules will be sparsified"; the alternative is a refusal.',
        error="AssertionError",
        match="the root embedding was neither sparsified nor refused",
        reproduce=START_QUANTIZE
        + """
            model = nn.Embedding(4, 4)
            post_training_sparse_quantize(model, DataNormSparsifier, sparsity_level=1.0)
            print(int((model.weight == 0).sum()))  # prints 0, should be 16 (or an error)
        """,
        mend="refuse a root embedding, which cannot be replaced in place",
        cause=ROOT,
    ),
    Defect(
        id="selected-root-embedding-has-no-name",
        area="data_sparsifier",
        kind="crash",
        summary='select_embeddings=[model] fails inside nn.Module with KeyError: the name of the root is "".',
        where=QUANTIZE,
        contract="The three checks on select_embeddings accept it: a list, of an embedding, that is part of the model.",
        error="KeyError",
        match="empty string",
        reproduce=START_QUANTIZE
        + """
            model = nn.Embedding(4, 4)
            try:
                post_training_sparse_quantize(model, DataNormSparsifier, select_embeddings=[model])
            except KeyError as error:
                print(error)  # prints buffer name can't be empty string "", should be an answer about embeddings
        """,
        mend="refuse a root embedding, which cannot be replaced in place",
        cause=ROOT,
    ),
    Defect(
        id="quantize-converts-modules-that-were-not-selected",
        area="data_sparsifier",
        kind="wrong result",
        summary="Every module that has a qconfig of its own is converted along: an embedding that was not selected, or an nn.Linear, "
        "uncalibrated.",
        where=QUANTIZE,
        contract='Docstring: "applies sparsification and quantization to only embeddings & embeddingbags"; select_embeddings is the '
        '"list of embedding modules in the model to be sparsified & quantized".',
        error="AssertionError",
        match="was not selected",
        reproduce=START_QUANTIZE
        + """
            model = nn.ModuleDict({"a": nn.Embedding(4, 4), "b": nn.Embedding(4, 4)})
            model["b"].qconfig = torch.ao.quantization.float_qparams_weight_only_qconfig  # meant for later
            post_training_sparse_quantize(model, DataNormSparsifier, select_embeddings=[model["a"]])
            print(type(model["b"]))  # prints the quantized Embedding, should be torch.nn.Embedding
        """,
        mend="swap just the chosen modules, or hide the other modules' qconfig meanwhile",
    ),
    Defect(
        id="quantized-embedding-bag-sums-instead-of-averaging",
        area="data_sparsifier",
        kind="wrong result",
        summary='nn.EmbeddingBag with mode "mean" (its default) or "max" returns sums after post_training_sparse_quantize.',
        where=QUANTIZE + " (and torch.ao.nn.quantized.EmbeddingBag.forward)",
        contract='Quantization approximates the float module: EmbeddingBag is in SUPPORTED_MODULES, "mean" is its default mode, and '
        "the quantized module keeps the mode it ignores.",
        error="AssertionError",
        match="bags of mode",
        reproduce=START_QUANTIZE
        + """
            model = nn.ModuleDict({"bag": nn.EmbeddingBag.from_pretrained(torch.ones(4, 4))})  # mode="mean"
            indices, offsets = torch.tensor([0, 1]), torch.tensor([0])
            print(model["bag"](indices, offsets))  # prints ones
            post_training_sparse_quantize(model, DataNormSparsifier, sparsity_level=0.0)
            print(model["bag"](indices, offsets))  # prints twos, should be ones
        """,
        mend='refuse bags whose mode is not "sum", or divide by their size',
        cause=FROM_FLOAT,
    ),
    Defect(
        id="quantized-embedding-bag-counts-its-padding",
        area="data_sparsifier",
        kind="wrong result",
        summary="nn.EmbeddingBag(padding_idx=...) adds the padding row after post_training_sparse_quantize.",
        where=QUANTIZE + " (and torch.ao.nn.quantized.EmbeddingBag.from_float)",
        contract='nn.EmbeddingBag: "the embedding vector at padding_idx is excluded from the reduction".',
        error="AssertionError",
        match="padding row",
        reproduce=START_QUANTIZE
        + """
            model = nn.ModuleDict({"bag": nn.EmbeddingBag.from_pretrained(torch.ones(4, 4), mode="sum", padding_idx=1)})
            indices, offsets = torch.tensor([0, 1]), torch.tensor([0])
            print(model["bag"](indices, offsets))  # prints ones
            post_training_sparse_quantize(model, DataNormSparsifier, sparsity_level=0.0)
            print(model["bag"](indices, offsets))  # prints twos, should be ones
        """,
        mend="refuse bags with a padding index, or keep its row at zero",
        cause=FROM_FLOAT,
    ),
    Defect(
        id="quantized-embedding-forgets-its-max-norm",
        area="data_sparsifier",
        kind="wrong result",
        summary="nn.Embedding(max_norm=...) returns rows of any norm after post_training_sparse_quantize.",
        where=QUANTIZE + " (and torch.ao.nn.quantized.Embedding.from_float)",
        contract='nn.Embedding: "each embedding vector with norm larger than max_norm is renormalized to have norm max_norm"; the '
        "quantized module takes the argument and ignores it.",
        error="AssertionError",
        match="max_norm",
        reproduce=START_QUANTIZE
        + """
            model = nn.ModuleDict({"table": nn.Embedding.from_pretrained(torch.ones(4, 4), max_norm=1.0)})
            post_training_sparse_quantize(model, DataNormSparsifier, sparsity_level=0.0)
            print(float(model["table"](torch.tensor([0])).norm()))  # prints 2.0, should be 1.0
        """,
        mend="renormalize the rows before quantizing them",
        cause=FROM_FLOAT,
    ),
    Defect(
        id="shared-embedding-stays-dense-in-its-second-parent",
        area="data_sparsifier",
        kind="wrong result",
        summary="With sparsify_first=False an embedding used by two modules is quantized in both, but made sparse only in the first.",
        where=QUANTIZE,
        contract='Docstring of select_embeddings: "If None, all embedding modules will be sparsified"; sharing is supported by '
        "nn.Module, and with sparsify_first=True both are sparse.",
        error="AssertionError",
        match="second parent",
        reproduce=START_QUANTIZE
        + """
            shared = nn.Embedding(4, 4)
            model = nn.ModuleDict({"a": nn.ModuleDict({"table": shared}), "b": nn.ModuleDict({"table": shared})})
            post_training_sparse_quantize(model, DataNormSparsifier, sparsify_first=False, sparsity_level=1.0)
            for part in model.values():
                print(float(part["table"].weight().dequantize().abs().max()))  # prints 2 or so for b, should be about 0 twice
        """,
        mend="go over all names of an embedding (named_modules(remove_duplicate=False))",
        cause=IDENTITY,
    ),
    Defect(
        id="embedding-selected-twice-is-requantized-from-freed-memory",
        area="data_sparsifier",
        kind="wrong result",
        summary="With sparsify_first=False an embedding that comes up twice (listed twice, or shared) ends with random weights: the "
        "saved scales are views of a packed weight that set_weight frees after the first time.",
        where=QUANTIZE,
        contract='Docstring: "scales and zero-points are saved"; with sparsify_first=True the same call works.',
        error="AssertionError",
        match="are not those of the embedding",
        reproduce=START_QUANTIZE
        + """
            model = nn.ModuleDict({"table": nn.Embedding.from_pretrained(torch.ones(64, 4) * torch.arange(4.))})
            selection = [model["table"], model["table"]]
            post_training_sparse_quantize(model, DataNormSparsifier, False, selection, sparsity_level=0.0)
            print(model["table"].weight().dequantize()[:4])  # prints anything, should be about 0, 1, 2, 3 in each row
        """,
        mend="save clones of the scales and zero points, and go over each embedding once",
    ),
    Defect(
        id="embedding-shared-in-one-parent-stays-float",
        area="data_sparsifier",
        kind="wrong result",
        summary="Of two attributes of one module that hold the same embedding only the first is quantized.",
        where=QUANTIZE + " (and torch.ao.quantization.convert)",
        contract="Both names are one embedding of the model; with two parents both are quantized.",
        error="AssertionError",
        match="stays float",
        reproduce=START_QUANTIZE
        + """
            shared = nn.Embedding(4, 4)
            model = nn.ModuleDict({"a": shared, "b": shared})
            post_training_sparse_quantize(model, DataNormSparsifier)
            print(type(model["b"]))  # prints torch.nn.Embedding, should be the quantized one
        """,
        mend="replace the module under all of its names",
        cause=IDENTITY,
    ),
]
