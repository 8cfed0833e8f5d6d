"""What this build of PyTorch can do, asked of the build itself rather than assumed from a name."""

import contextlib
import functools
import platform
import sys
import warnings

import torch

from ao.sparsity.testing.preflight import version_tuple

TORCH_VERSION = version_tuple(torch.__version__)
BARE_ASSERTS = TORCH_VERSION < (2, 13)  # many checks of torch.ao raise an AssertionError without a text
NO_ASSERTS = TORCH_VERSION < (2, 11) and sys.flags.optimize > 0  # python -O removes checks of torch.ao that are assert statements
WARNINGS_NAME_CALLER = TORCH_VERSION >= (2, 10)  # the warnings of torch.ao.pruning carry a stacklevel
ACCELERATOR = "accelerator"  # stands for the device of a machine that has none
SPARSE_ENGINES = ("fbgemm", "x86", "qnnpack", "onednn")


def torch_release():
    """Release of this build, ``"2.13"``."""
    return f"{TORCH_VERSION[0]}.{TORCH_VERSION[1]}"


def engines():
    """Names of the quantized engines that this build lists, without the placeholder ``none``."""
    return [name for name in torch.backends.quantized.supported_engines if name != "none"]


def accelerator() -> str | None:
    """Type of this machine's accelerator as torch names it, ``"cuda"`` for one, or None where there is none."""
    if hasattr(torch, "accelerator"):  # since 2.6
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return None if device is None else device.type
    for name in ("cuda", "mps", "xpu", torch._C._get_privateuse1_backend_name()):
        module = getattr(torch.backends if name == "mps" else torch, name, None)
        if module is not None and module.is_available():
            return name
    return None


DEVICES = ("cpu", accelerator() or ACCELERATOR)


def devices() -> list[str]:
    """Those of DEVICES that this machine has."""
    return [name for name in DEVICES if name != ACCELERATOR]


def cpu_capability():
    """The instruction set of torch's own CPU kernels, ``"AVX512"``: the processor's best, or what ATEN_CPU_CAPABILITY lowers it to."""
    return torch.backends.cpu.get_cpu_capability()


def describe():
    """One line: torch version and commit, Python, platform, capability of the processor, quantized engines, devices."""
    commit = (torch.version.git_version or "unknown")[:12]
    return (
        f"torch {torch.__version__} (git {commit}), Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {cpu_capability()}, "
        f"quantized engines: {' '.join(engines()) or 'none'}, devices: {' '.join(devices())}"
    )


@contextlib.contextmanager
def quantized_engine(name):
    """Select the quantized engine ``name`` for the block, then the previous one again."""
    previous = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = previous


@functools.cache
def sparse_qlinear_refusal(engine, mode, block_shape=(1, 4), relu=False):
    """Why this build cannot run a sparse quantized linear, or None where it can.

    Args:
        engine: quantized engine, one of SPARSE_ENGINES.
        mode: ``"static"`` (``sparse::qlinear``), ``"dynamic"`` (``sparse::qlinear_dynamic``) or ``"pack"``
            (only ``sparse::qlinear_prepack`` and ``qlinear_unpack``).
        block_shape: (rows, columns) of a weight block.
        relu: ask for the fused ReLU operator.

    Returns:
        str | None: first line of the refusal. The question is put to the operators with an 8 x 8 weight.
    """
    if engine not in engines():
        return f"no {engine}"
    ops = torch.ops.sparse
    with quantized_engine(engine), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ones = torch.ones(8, 8, dtype=torch.float32)  # whatever the default is when the question comes up
        weight = torch.quantize_per_tensor(ones, 0.5, 0, torch.qint8)
        try:
            packed = ops.qlinear_prepack(weight, torch.zeros(8, dtype=torch.float32), *block_shape)
            if mode == "pack":
                ops.qlinear_unpack(packed)
            elif mode == "static":
                x = torch.quantize_per_tensor(ones[:2], 0.5, 0, torch.quint8)
                (ops.qlinear_relu if relu else ops.qlinear)(x, packed, 1.0, 0)
            else:
                (ops.qlinear_relu_dynamic if relu else ops.qlinear_dynamic)(ones[:2], packed)
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            return f"{engine} refuses: {str(error).splitlines()[0]}"
    return None


def engines_with(mode, block_shape=(1, 4), relu=False):
    """Engines of this build on which the sparse quantized linear works, see sparse_qlinear_refusal."""
    return [name for name in engines() if sparse_qlinear_refusal(name, mode, block_shape, relu) is None]
