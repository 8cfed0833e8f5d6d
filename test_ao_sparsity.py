# Owner(s): ["module: sparse"]
"""Validates the sparsity stack of the installed PyTorch: ``python test_ao_sparsity.py``."""

import logging
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # python -I and PYTHONSAFEPATH leave it out

from ao.sparsity.testing.session import load_tests  # noqa: F401  (first: it asks whether there is a torch to validate)

from torch.testing._internal.common_utils import IS_ARM64, run_tests

# Kernels
from ao.sparsity.test_kernels import (  # noqa: F401
    TestQuantizedSparseKernels,  # noqa: F401
    TestQuantizedSparseLayers,  # noqa: F401
)
from ao.sparsity.test_qlinear_packed_params import (  # noqa: F401
    TestQlinearPackedParams,  # noqa: F401
)

# Parametrizations
from ao.sparsity.test_parametrization import (  # noqa: F401
    TestFakeSparsity,  # noqa: F401
)

# Scheduler
from ao.sparsity.test_scheduler import (  # noqa: F401
    TestScheduler,  # noqa: F401
    TestCubicScheduler,  # noqa: F401
)

# Sparsifier
from ao.sparsity.test_sparsifier import (  # noqa: F401
    TestBaseSparsifier,  # noqa: F401
    TestWeightNormSparsifier,  # noqa: F401
    TestNearlyDiagonalSparsifier,  # noqa: F401
    TestSparsifierHistories,  # noqa: F401
)

# Structured Pruning
from ao.sparsity.test_structured_sparsifier import (  # noqa: F401
    TestSaliencyPruner,  # noqa: F401
    TestBaseStructuredSparsifier,  # noqa: F401
    TestFPGMPruner,  # noqa: F401
    TestStructuredParametrizations,  # noqa: F401
    TestStructuredMatching,  # noqa: F401
    TestStructuredPruneFunctions,  # noqa: F401
    TestStructuredBiases,  # noqa: F401
    TestStructuredChains,  # noqa: F401
    TestStructuredModels,  # noqa: F401
)

# Composability
if not IS_ARM64:
    from ao.sparsity.test_composability import (  # noqa: F401
        TestComposability,  # noqa: F401
        TestFxComposability,  # noqa: F401
    )

# Activation Sparsifier
from ao.sparsity.test_activation_sparsifier import (  # noqa: F401
    TestActivationSparsifier,  # noqa: F401
)

# Data Scheduler
from ao.sparsity.test_data_scheduler import (  # noqa: F401
    TestBaseDataScheduler,  # noqa: F401
)

# Data Sparsifier
from ao.sparsity.test_data_sparsifier import (  # noqa: F401
    TestBaseDataSparsifier,  # noqa: F401
    TestDataSparsifierHistories,  # noqa: F401
    TestNormDataSparsifiers,  # noqa: F401
    TestQuantizationUtils,  # noqa: F401
)
from ao.sparsity.test_lightning_callbacks import (  # noqa: F401
    TestDataSparsityUtils,  # noqa: F401
    TestPostTrainingDataSparsity,  # noqa: F401
    TestTrainingAwareDataSparsity,  # noqa: F401
)

# Utilities
from ao.sparsity.test_sparsity_utils import (  # noqa: F401
    TestSparsityUtilFunctions,  # noqa: F401
)
from ao.sparsity.test_surface import (  # noqa: F401
    TestPublicSurface,  # noqa: F401
)

if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s - %(name)s - %(levelname)s - %(message)s", level=logging.INFO)
    run_tests()
