"""Times the sparse kernels and a sparsifier's step, and prints one line of JSON.

    python stopwatch.py [SECONDS [SIZE]]

A file of its own, for the interpreter under validation: it needs torch alone, on any Python from 3.10 on. SECONDS (15 by
default) is about how long it may measure, SIZE (4096) the rows and columns of the weight for the step. What it prints has
``ratios``, a list of objects with ``what`` (engine, mode and layer), ``zeros`` (the part of the weight's blocks that are zero),
``sparse`` and ``dense`` (seconds of the processor for one call, medians) and ``ratio`` (the median of sparse over dense, each pair
timed one right after the other); and ``problems``, what could not be timed and why. For the sparsifier's step ``sparse`` is the
step and ``dense`` is a sort of as many numbers.
"""

import json
import statistics
import sys
import time
import warnings

import torch

BLOCK = (1, 4)
ZEROS = (0.5, 0.75, 0.9, 0.95)
#: Rows (outputs) and columns (inputs) of the layers; rows of their input.
LAYERS = ((256, 256), (1024, 1024))
BATCH = 32
#: The step's and the kernels' shares of the time.
STEP_SHARE = 0.45
MIN_CALL_SECONDS = 0.002
MIN_PAIRS, MAX_PAIRS = 5, 60
SCALE, ZERO_POINT = 0.1, 64


def make_weight(rows, columns, zeros, generator):
    """A qint8 weight of which a part ``zeros`` of the 1 x 4 blocks, chosen at random, is zero."""
    integers = torch.randint(1, 127, (rows, columns), generator=generator, dtype=torch.int8)
    blocks = rows * columns // BLOCK[1]
    order = torch.randperm(blocks, generator=generator)
    integers.view(blocks, BLOCK[1])[order[: int(zeros * blocks)]] = 0
    return torch._make_per_tensor_quantized_tensor(integers, SCALE, 0)


def make_calls(mode, rows, columns, zeros, generator):
    """(sparse, dense): functions without arguments, each of which runs its kernel on the same weight and input once.

    Raises:
        RuntimeError: the engine in use has no such kernel.
    """
    weight = make_weight(rows, columns, zeros, generator)
    bias = torch.zeros(rows)
    numbers = torch.rand(BATCH, columns, generator=generator)
    sparse_weight = torch.ops.sparse.qlinear_prepack(weight, bias, *BLOCK)
    dense_weight = torch.ops.quantized.linear_prepack(weight, bias)
    if mode == "dynamic":
        return (
            lambda: torch.ops.sparse.qlinear_dynamic(numbers, sparse_weight),
            lambda: torch.ops.quantized.linear_dynamic(numbers, dense_weight),
        )
    quantized = torch.quantize_per_tensor(numbers, 1 / 128, ZERO_POINT, torch.quint8)
    return (
        lambda: torch.ops.sparse.qlinear(quantized, sparse_weight, SCALE, ZERO_POINT),
        lambda: torch.ops.quantized.linear(quantized, dense_weight, SCALE, ZERO_POINT),
    )


def timed(call, repeats=1):
    """Seconds of the processor for one of ``repeats`` calls; what else the machine does hardly counts."""
    started = time.process_time()
    for _ in range(repeats):
        call()
    return max(time.process_time() - started, 1e-9) / repeats


def time_pairs(one, other, seconds, fewest=MIN_PAIRS, repeats=None):
    """Time two calls in turn for about so many seconds: the medians of both and the median of their ratios.

    ``repeats`` is how often each is called for one reading; by default as often as takes `MIN_CALL_SECONDS`, after a call to warm up.
    """
    end = time.perf_counter() + seconds
    if repeats is None:
        warm = [(timed(call), timed(call))[1] for call in (one, other)]
        repeats = [max(1, round(MIN_CALL_SECONDS / max(found, 1e-9))) for found in warm]
    pairs = []
    while len(pairs) < fewest or (len(pairs) < MAX_PAIRS and time.perf_counter() < end):
        first = timed(one, repeats[0])
        pairs.append((first, timed(other, repeats[1])))
    return {
        "sparse": statistics.median(pair[0] for pair in pairs),
        "dense": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def time_kernels(seconds, problems):
    """The ratios of every engine that has the kernels; an engine or mode without them is no problem."""
    cases = []
    generator = torch.Generator().manual_seed(0)
    for engine in torch.backends.quantized.supported_engines:
        if engine == "none":
            continue
        for mode in ("static", "dynamic"):
            for rows, columns in LAYERS:
                for zeros in ZEROS:
                    torch.backends.quantized.engine = engine
                    try:
                        sparse, dense = make_calls(mode, rows, columns, zeros, generator)
                        sparse(), dense()
                    except (RuntimeError, NotImplementedError, AttributeError):
                        continue
                    cases.append((engine, f"{engine} {mode} {rows}x{columns}", zeros, sparse, dense))
    found = []
    for engine, what, zeros, sparse, dense in cases:
        torch.backends.quantized.engine = engine
        try:
            found.append({"what": what, "zeros": zeros, **time_pairs(sparse, dense, seconds / len(cases))})
        except RuntimeError as error:
            problems.append(f"{what}: {error}".splitlines()[0])
    return found


def time_step(seconds, size, problems):
    """The step of WeightNormSparsifier on a weight of size x size over a sort of as many numbers."""
    what = f"step {size}x{size}"
    try:
        from torch.ao.pruning import WeightNormSparsifier

        model = torch.nn.Sequential(torch.nn.Linear(size, size, bias=False))
        sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=BLOCK, zeros_per_block=BLOCK[1])
        sparsifier.prepare(model, config=[{"tensor_fqn": "0.weight"}])
        numbers = torch.rand(size * size, generator=torch.Generator().manual_seed(0))
        sparsifier.step()  # the first takes twice as long
        return [{"what": what, "zeros": 0.5, **time_pairs(sparsifier.step, lambda: torch.sort(numbers), seconds, 2, (1, 1))}]
    except Exception as error:  # whatever a broken build raises: the kernels' figures are told all the same
        problems.append(f"{what}: {type(error).__name__}: {error}".splitlines()[0])
        return []


def main(seconds=15.0, size=4096):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    problems = []
    with torch.no_grad():
        ratios = time_kernels(seconds * (1 - STEP_SHARE), problems) + time_step(seconds * STEP_SHARE, int(size), problems)
    print(json.dumps({"torch": str(torch.__version__), "ratios": ratios, "problems": problems}))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:3]))
