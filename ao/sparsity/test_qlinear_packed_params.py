# Owner(s): ["module: sparse"]
"""The packed weight of a sparse quantized linear: what its state holds, unpacking, saving and loading, across engines too."""

if __name__ == "__main__":
    raise SystemExit("A file of tests runs nothing by itself, use: python test_ao_sparsity.py -k NAME")

import copy
import io
import pathlib
import pickle
import subprocess
import sys
import tempfile

from ao.sparsity.testing.kernels import BLOCK, COLUMN_BLOCK, KernelCase, quantized_weight  # first

import numpy as np
import torch
from torch import nn
from torch.testing._internal.common_utils import instantiate_parametrized_tests, parametrize as over, subtest

from ao.sparsity.testing import build
from ao.sparsity.testing.child import run_in_child
from ao.sparsity.testing.companion import beside
from ao.sparsity.testing.known_defects import known_defect
from ao.sparsity.testing.oracles import quantized as oracle

# Weights by name: rows, columns, which blocks are kept. Ragged edges, empty rows and columns of blocks, one single block.
WEIGHTS = {
    "chessboard": (8, 8, lambda i, j: (i + j) % 2 == 0),
    "ragged": (9, 13, lambda i, j: (i + j) % 3 != 0),
    "empty rows": (6, 12, lambda i, j: i % 3 == 0),
    "empty first row": (17, 4, lambda i, j: i >= 1),
    "empty columns": (5, 16, lambda i, j: j == 2),
    "dense": (3, 4, lambda i, j: i >= 0),
    "one by one": (1, 1, lambda i, j: i >= 0),
}
STATE = (
    "version",
    "bias",
    "row block size",
    "column block size",
    "scales",
    "zero points",
    "per tensor",
    "row block indices",
    "column block indices",
    "values",
    "out channels",
    "in channels",
)

# As a C++ program does it: load and run a saved module with torch's libraries alone, without the import of torch (1 s). Argument: a path.
LOAD_AND_RUN = """
import importlib.util, os, sys, types
sys.modules["numpy"] = None
spec = importlib.util.find_spec("torch")
sys.modules["torch"] = torch = types.ModuleType("torch")
torch.__path__ = spec.submodule_search_locations
torch.compiler = types.SimpleNamespace(is_exporting=lambda: False)
from torch import _C
_C._set_qengine(2)  # qnnpack: c10/core/QEngine.h
module = _C.import_ir_module(_C.CompilationUnit(), sys.argv[1], None, {}, False)
try:
    print(module._get_method("forward")())
except RuntimeError as error:
    print(error)
sys.stdout.flush()
os._exit(0)
"""


class Holder(nn.Module):
    """A module around a packed weight, as those who save one have it."""

    def __init__(self, packed):
        super().__init__()
        self.packed = packed


class Multiplier(Holder):
    """Multiplies a row of ones by the packed weight; the first number of the result."""

    def forward(self):
        return float(torch.ops.sparse.qlinear_dynamic(torch.ones(1, 8), self.packed)[0, 0])


def _pack(w, scale=0.5, zero_point=0, bias=None, block=BLOCK):
    return torch.ops.sparse.qlinear_prepack(quantized_weight(w, scale, zero_point), bias, *block)


def _state(packed):
    """The state by name; indices of any width as plain non-negative integers."""
    state = dict(zip(STATE, packed.__getstate__()[0]))
    for name in ("row block indices", "column block indices"):
        width = 8 * state[name].element_size()
        state[name] = [index % 2**width for index in state[name].tolist()]
    return state


def _saved(packed):
    """The bytes of torch.save."""
    buffer = io.BytesIO()
    torch.save(Holder(packed), buffer)
    return buffer.getvalue()


def _loaded(data):
    return torch.load(io.BytesIO(data), weights_only=False).packed


def _load_and_run(path):
    """What LOAD_AND_RUN prints, where no test has used qnnpack: a fork then knows no more of it than a fresh interpreter."""
    with build.quantized_engine("qnnpack"):
        try:
            return str(torch.jit.load(path)())
        except RuntimeError as error:
            return str(error)


def _in_an_interpreter(source, *arguments):
    """What Python prints."""
    return subprocess.run([sys.executable, "-c", source, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def _cases(block, zero_points):
    """(case, w, scale, zero_point, bias) over WEIGHTS; schemes and, where they are supported, zero points take turns."""
    for number, (name, (rows, columns, kept)) in enumerate(WEIGHTS.items()):
        per_channel, offset = bool(number % 2), zero_points and number % 4 > 1
        scale = [0.25 * (row + 1) for row in range(rows)] if per_channel else 0.25
        zero_point = 0 if not offset else [row % 5 for row in range(rows)] if per_channel else 3
        zeros = np.reshape(zero_point, (-1, 1))
        w = oracle.block_sparse(rows, columns, block, lambda i, j: i >= 0)
        w[w == zeros] = 77
        row, column = np.indices(w.shape)
        w = np.where(kept(row // block[0], column // block[1]), w, zeros)
        yield {"weight": name, "per_channel": per_channel, "zero_point": zero_point}, w, scale, zero_point, torch.arange(rows) - 1.5


@instantiate_parametrized_tests
class TestQlinearPackedParams(KernelCase):
    """torch.classes.sparse.LinearPackedParamsBase: its state, and its way through unpacking, saving and loading."""

    def test_qlinear_packed_params_fbgemm(self):
        """fbgemm's packed weight: state, unpacking, saving and loading, with 1 x 4 blocks."""
        self._check_engine("fbgemm", [BLOCK], zero_points=False)

    def test_qlinear_packed_params_qnnpack(self):
        """qnnpack's packed weight: state, unpacking, saving and loading, with 1 x 4 and 8 x 1 blocks and zero points."""
        self._check_engine("qnnpack", [BLOCK, COLUMN_BLOCK], zero_points=True)

    def _check_engine(self, engine, blocks, zero_points):
        self.skip_unless_packs(engine)
        with build.quantized_engine(engine):
            for block in blocks:
                for case, w, scale, zero_point, bias in _cases(block, zero_points and block == BLOCK):
                    with self.subTest(engine=engine, block=block, **case):
                        packed = _pack(w, scale, zero_point, bias, block)
                        for holder, step in ((packed, "packed"), (_loaded(_saved(packed)), "loaded")):
                            self._check_state(holder, w, scale, zero_point, bias, block, step)
                            self._check_unpacked(holder, w, scale, zero_point, bias, block, step)

    def _check_state(self, packed, w, scale, zero_point, bias, block, step):
        """All twelve fields; ``zero_point`` as it was given, per tensor or per channel."""
        state = _state(packed)
        rows, columns, values = oracle.pack_blocks(w, *block, zero_point)
        per_channel = isinstance(scale, list)
        expected = {
            "version": 2,
            "row block size": block[0],
            "column block size": block[1],
            "scales": scale if per_channel else [scale],
            "zero points": np.broadcast_to(zero_point, len(w) if per_channel else 1).tolist(),
            "per tensor": not per_channel,
            "row block indices": rows,
            "column block indices": columns,
            "values": [value + 128 for value in values],
            "out channels": w.shape[0],
            "in channels": w.shape[1],
        }
        found = {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in state.items() if name != "bias"}
        self.assertDictEqual(found, expected, step)
        self.assertExact(state["bias"], bias, step)
        dtypes = {name: state[name].dtype for name in ("scales", "zero points", "values")}
        self.assertDictEqual(dtypes, {"scales": torch.float32, "zero points": torch.int8, "values": torch.uint8}, step)

    def _check_unpacked(self, packed, w, scale, zero_point, bias, block, step):
        weight, found, sizes = torch.ops.sparse.qlinear_unpack(packed)
        self.assertExact(weight, quantized_weight(w, scale, zero_point), step)
        self.assertExact(found, bias, step)
        self.assertListEqual(sizes, list(block), step)

    def test_qlinear_packed_params_fbgemm_qnnpack_cross_compatibility(self):
        """Saved by one engine and loaded by the other, both ways, the packed weight holds the same; saved again, too."""
        self.skip_unless_packs("fbgemm", "qnnpack")
        for writer, reader in (("fbgemm", "qnnpack"), ("qnnpack", "fbgemm")):
            for case, w, scale, zero_point, bias in _cases(BLOCK, zero_points=False):
                with self.subTest(writer=writer, reader=reader, **case):
                    with build.quantized_engine(writer):
                        data = _saved(_pack(w, scale, zero_point, bias))
                    with build.quantized_engine(reader):
                        loaded = _loaded(data)
                        again = _saved(loaded)
                        self._check_state(loaded, w, scale, zero_point, bias, BLOCK, "read")
                        self._check_unpacked(loaded, w, scale, zero_point, bias, BLOCK, "read")
                    with build.quantized_engine(writer):
                        self._check_state(_loaded(again), w, scale, zero_point, bias, BLOCK, "read back")

    def test_loaded_weights_multiply_as_the_packed_ones(self):
        """The kernels: a weight that was loaded gives the integer model's numbers, whichever engine wrote it."""
        w = oracle.block_sparse(9, 13, BLOCK, WEIGHTS["ragged"][2])
        x = (np.arange(26).reshape(2, 13) * 29 % 256 - 100).astype(np.float64)
        x.flat[0], x.flat[-1] = -100, 155
        readers = [engine for engine in self.engines("pack") if build.sparse_qlinear_refusal(engine, "dynamic") is None]
        if not readers:
            self.skipTest("dynamic kernels (no qnnpack)")
        for reader in readers:
            for writer in build.engines_with("pack"):
                with self.subTest(writer=writer, reader=reader):
                    with build.quantized_engine(writer):
                        data = _saved(_pack(w, 0.25, bias=torch.arange(9.0)))
                    with build.quantized_engine(reader):
                        packed = _pack(w)  # the reading process has packed before
                        result = torch.ops.sparse.qlinear_dynamic(torch.tensor(x, dtype=torch.float32), _loaded(data))
                    expected = oracle.dynamic_linear(x, w, 0.25, bias=np.arange(9))
                    self.assertExact(result, torch.tensor(expected, dtype=torch.float32))
                    del packed

    def test_indices_of_any_width_are_saved_and_loaded(self):
        """Saving: row and column indices survive on both sides of every integer width, 8 and 16 bits and beyond."""
        for engine in self.engines("pack"):
            for blocks in (128, 255, 256, 65536):
                with self.subTest(engine=engine, blocks=blocks), build.quantized_engine(engine):
                    w = torch.arange(4 * blocks) % 100 + 1
                    loaded = _loaded(_saved(_pack(w[None])))
                    self.assertExact(torch.ops.sparse.qlinear_unpack(loaded)[0].int_repr()[0], w.to(torch.int8))

    def test_copies_hold_the_same(self):
        """copy.deepcopy, copy.copy, pickle: a copy's state is the original's, and the original stays as it was."""
        w, bias = oracle.block_sparse(9, 13, BLOCK, WEIGHTS["ragged"][2]), torch.arange(9.0)
        ways = {"deepcopy": copy.deepcopy, "copy": copy.copy, "pickle": lambda packed: pickle.loads(pickle.dumps(packed))}
        for engine in self.engines("pack"):
            for name, way in ways.items():
                with self.subTest(engine=engine, way=name), build.quantized_engine(engine):
                    packed = _pack(w, 0.25, bias=bias)
                    for holder in (way(packed), packed):
                        self._check_state(holder, w, 0.25, 0, bias, BLOCK, name)

    def test_unpacking_makes_a_weight_of_its_own(self):
        """qlinear_unpack: the weight is a new contiguous tensor each time; writing into one changes neither pack nor source."""
        w = oracle.block_sparse(9, 13, BLOCK, WEIGHTS["ragged"][2])
        for engine in self.engines("pack"):
            with self.subTest(engine=engine), build.quantized_engine(engine):
                source = quantized_weight(w, 0.25)
                packed = torch.ops.sparse.qlinear_prepack(source, None, *BLOCK)
                weight = torch.ops.sparse.qlinear_unpack(packed)[0]
                self.assertTrue(weight.is_contiguous())
                for tensor in (weight, source):
                    tensor.copy_(quantized_weight(np.zeros((9, 13)), 0.25))
                self.assertExact(torch.ops.sparse.qlinear_unpack(packed)[0], quantized_weight(w, 0.25))

    def test_a_zero_weight_is_packed(self):
        """Packing: a weight without a single block that is not zero is unpacked as it was."""
        for engine in self.engines("pack"):
            for scale in (0.25, [0.25, 0.5, 1.0]):
                with self.subTest(engine=engine, scale=scale), build.quantized_engine(engine):
                    weight = quantized_weight(np.zeros((3, 6)), scale)
                    packed = torch.ops.sparse.qlinear_prepack(weight, None, *BLOCK)
                    self.assertExact(torch.ops.sparse.qlinear_unpack(packed)[0], weight)

    def test_no_bias_is_unpacked_as_none(self):
        """qlinear_unpack: without a bias its place is None, after loading too, where the engine can tell (fbgemm)."""
        self.skip_unless_packs("fbgemm")
        with build.quantized_engine("fbgemm"):
            packed = _pack(np.ones((3, 4)))
            for holder in (packed, _loaded(_saved(packed)), copy.deepcopy(packed)):
                self.assertIsNone(torch.ops.sparse.qlinear_unpack(holder)[1])
                self.assertIsNone(_state(holder)["bias"])

    @beside(first=True)
    @known_defect("loaded-qnnpack-weight-runs-only-after-packing-another")
    def test_a_fresh_process_runs_a_loaded_weight(self):
        """torch.jit.save and load: the process that loads a weight need not have packed one."""
        self.skip_without_torchscript()
        self.skip_unless_packs("fbgemm")
        # Packing with qnnpack here would hide the fault from a fork.
        if run_in_child(build.sparse_qlinear_refusal, "qnnpack", "dynamic") is not None:
            self.skipTest("dynamic kernels (no qnnpack)")
        with build.quantized_engine("fbgemm"), tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "saved.pt")
            torch.jit.save(torch.jit.script(Multiplier(_pack(np.ones((8, 8)), 1.0))), path)
            answer = run_in_child(_load_and_run, path) if self.is_first_here() else _in_an_interpreter(LOAD_AND_RUN, path)
        self.assertEqual(answer.splitlines()[-1:], ["8.0"], msg=answer)

    @over("engine", ["fbgemm", subtest("qnnpack", decorators=[known_defect("qnnpack-zero-weight-cannot-be-saved")])])
    def test_a_zero_weight_is_saved(self, engine):
        """copy.deepcopy, pickle: a weight without a single block that is not zero comes out as it was."""
        self.skip_unless_packs(engine)
        self.assertEqual(run_in_child(_copy_of_zeros, engine), [[0] * 6] * 3)

    def test_wide_weights_of_fbgemm_are_read_by_qnnpack(self):
        """Saved by fbgemm and loaded by qnnpack: the same, with as many blocks as 8 bits just hold, too."""
        self.skip_unless_packs("fbgemm", "qnnpack")
        self.assertTrue(_written_and_read("fbgemm", "qnnpack", 128), "weight of 128 blocks")

    @known_defect("fbgemm-misreads-the-indices-that-qnnpack-saved")
    def test_wide_weights_of_qnnpack_are_read_by_fbgemm(self):
        """Saved by qnnpack and loaded by fbgemm: the same, with as many blocks as 8 bits just hold, too."""
        self.skip_unless_packs("fbgemm", "qnnpack")
        self.assertTrue(run_in_child(_written_and_read, "qnnpack", "fbgemm", 128), "weight of 128 blocks")

    @over("engine", [subtest("fbgemm", decorators=[known_defect("fbgemm-ignores-the-version-of-a-saved-weight")]), "qnnpack"])
    def test_a_later_version_is_refused(self, engine):
        """Loading: a state of a later serialization version is an error."""
        self.skip_unless_packs(engine)
        with build.quantized_engine(engine):
            (version, *state), name = _pack(np.ones((3, 4))).__getstate__()
            loaded = torch._C.ScriptObject.__new__(torch._C.ScriptObject)
            with self.assertRaises(RuntimeError):
                loaded.__setstate__(((version + 1, *state), name))

    @over(
        "engine",
        [
            subtest("fbgemm", decorators=[known_defect("copied-fbgemm-weight-shares-its-bias")]),
            subtest("qnnpack", decorators=[known_defect("copied-qnnpack-weight-shares-its-bias")]),
        ],
    )
    def test_copies_have_a_bias_of_their_own(self, engine):
        """copy.deepcopy: writing into the copy's bias leaves the original's."""
        self.skip_unless_packs(engine)
        with build.quantized_engine(engine):
            packed = _pack(np.ones((3, 4)), bias=torch.zeros(3))
            torch.ops.sparse.qlinear_unpack(copy.deepcopy(packed))[1].fill_(7)
            bias = torch.ops.sparse.qlinear_unpack(packed)[1]
        self.assertEqual(f"bias {bias.tolist()}", f"bias {[0.0] * 3}")

    def test_pickled_weights_have_a_bias_of_their_own(self):
        """pickle: writing into the loaded weight's bias leaves the saved one's."""
        for engine in self.engines("pack"):
            with build.quantized_engine(engine):
                packed = _pack(np.ones((3, 4)), bias=torch.zeros(3))
                torch.ops.sparse.qlinear_unpack(pickle.loads(pickle.dumps(packed)))[1].fill_(7)
                self.assertEqual(torch.ops.sparse.qlinear_unpack(packed)[1], torch.zeros(3), msg=engine)


def _copy_of_zeros(engine):
    torch.backends.quantized.engine = engine
    return torch.ops.sparse.qlinear_unpack(copy.deepcopy(_pack(np.zeros((3, 6)))))[0].int_repr().tolist()


def _written_and_read(writer, reader, blocks):
    """Whether a weight of ones comes through."""
    with build.quantized_engine(writer):
        data = _saved(_pack(np.ones((1, 4 * blocks))))
    with build.quantized_engine(reader):
        return bool(torch.ops.sparse.qlinear_unpack(_loaded(data))[0].int_repr().eq(1).all())
