"""Known defects of packed weights (torch.classes.sparse.LinearPackedParamsBase): saving, loading, copying."""

from ao.sparsity.testing.register.entry import Defect

DESERIALIZE = "aten/src/ATen/native/ao_sparse/quantized/cpu/qlinear_deserialize.cpp: "
SERIALIZE = "aten/src/ATen/native/ao_sparse/quantized/cpu/qlinear_serialize.cpp: "

# What most reproductions start with.
START = """
import copy, pickle, torch
engine, ops = torch.backends.quantized, torch.ops.sparse
weight = torch.quantize_per_tensor(torch.ones(8, 8), 0.5, 0, torch.qint8)
"""

DEFECTS = [
    Defect(
        id="qnnpack-zero-weight-cannot-be-saved",
        area="qlinear_packed_params",
        kind="crash",
        summary="Saving or copying a packed weight of zeros only, a fully pruned one, ends the process by SIGSEGV.",
        where=SERIALIZE + "PackedLinearWeightQnnp::serialize, BCSRMatrix::max_index",
        contract="A packed weight can be pickled and copied; fbgemm's can, and a weight of zeros is packed and run.",
        error="ProcessDied",
        match="SIGSEGV",
        reproduce=START
        + """
engine.engine = "qnnpack"
packed = ops.qlinear_prepack(torch.quantize_per_tensor(torch.zeros(8, 8), 0.5, 0, torch.qint8), None, 1, 4)
copy.deepcopy(packed)  # the process dies (SIGSEGV), should copy
""",
        mend="let max_index of a matrix without blocks be 0",
    ),
    Defect(
        id="loaded-qnnpack-weight-runs-only-after-packing-another",
        area="qlinear_packed_params",
        kind="crash",
        summary=(
            "In a process that has not packed a weight with qnnpack yet, a loaded one cannot be run (RuntimeError: Failed to create "
            "sparse linear operator): a saved model, from torch.jit.save for one, does not run in a fresh process."
        ),
        where=DESERIALIZE + "PackedLinearWeightQnnp::PackedLinearWeightQnnp(BCSRSerializationType)",
        contract="A model that was saved runs where it is loaded; packing initializes QNNPACK, and so must loading.",
        error="AssertionError",
        match="Failed to create sparse linear operator",
        reproduce=START
        + """
engine.engine = "fbgemm"  # any engine may have saved it; packing with qnnpack here would hide the fault
saved = pickle.dumps(ops.qlinear_prepack(weight, None, 1, 4))
engine.engine = "qnnpack"
print(ops.qlinear_dynamic(torch.ones(1, 8), pickle.loads(saved)))  # RuntimeError, should print 4s
""",
        mend="call initQNNPACK() in the constructor that takes a saved state",
    ),
    Defect(
        id="fbgemm-misreads-the-indices-that-qnnpack-saved",
        area="qlinear_packed_params",
        kind="crash",
        summary=(
            "A weight that qnnpack saved and fbgemm loads has other numbers, or ends the process by SIGSEGV, if it has 128 to 255 "
            "blocks (or 32768 to 65535): qnnpack writes its unsigned indices into int8 (int16) tensors, fbgemm reads them as signed."
        ),
        where=DESERIALIZE + "PackedLinearWeight::deserialize",
        contract="The state is one format for both engines (packed_params.h), and PyTorch tests that they read each other's.",
        error="AssertionError",
        match="weight of 128 blocks",
        reproduce=START
        + """
weight = torch.quantize_per_tensor(torch.ones(1, 512), 0.5, 0, torch.qint8)  # 128 blocks of 1 x 4
engine.engine = "qnnpack"
saved = pickle.dumps(ops.qlinear_prepack(weight, None, 1, 4))
engine.engine = "fbgemm"
print(ops.qlinear_unpack(pickle.loads(saved))[0].int_repr().sum())  # prints 0, should be 1024
""",
        mend="read the indices as unsigned, as qnnpack does",
    ),
    Defect(
        id="fbgemm-ignores-the-version-of-a-saved-weight",
        area="qlinear_packed_params",
        kind="corrupted state",
        summary="fbgemm loads the state of a packed weight of a later serialization version as if it were its own.",
        where=DESERIALIZE + "PackedLinearWeight::deserialize",
        contract=(
            'qnnpack refuses it: "Attempted to deserialize sparse qlinear packed params with an incompatible serialization '
            'version (3 > 2)".'
        ),
        error="AssertionError",
        match="not raised",
        reproduce=START
        + """
engine.engine = "fbgemm"
(version, *state), name = ops.qlinear_prepack(weight, None, 1, 4).__getstate__()
loaded = torch._C.ScriptObject.__new__(torch._C.ScriptObject)
loaded.__setstate__(((version + 1, *state), name))  # accepted, should be refused as qnnpack does
""",
        mend="the check that qnnpack has",
    ),
    Defect(
        id="copied-packed-weight-shares-its-bias",
        area="qlinear_packed_params",
        kind="corrupted state",
        summary="copy.deepcopy of a packed weight, or of a layer with one, shares the bias with the original.",
        where="torch.classes.sparse.LinearPackedParamsBase: __getstate__, __setstate__ and torch.ScriptObject.__deepcopy__",
        contract="A deep copy has nothing in common with its original; the weight's numbers are copied.",
        error="AssertionError",
        match="the original's bias",
        reproduce=START
        + """
engine.engine = "fbgemm"
packed = ops.qlinear_prepack(weight, torch.zeros(8), 1, 4)
ops.qlinear_unpack(copy.deepcopy(packed))[1].fill_(7)
print(ops.qlinear_unpack(packed)[1])  # prints 7s, should be zeros
""",
        mend="copy the tensors of the state in __deepcopy__",
    ),
]
