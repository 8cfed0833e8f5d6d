"""What an administrator may have set for all programs of a machine; a folder for PYTHONPATH, see surroundings.py."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch

torch.set_printoptions(precision=2, sci_mode=True)
torch.use_deterministic_algorithms(True)
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
torch.set_default_device("meta")
