"""Mends of the schedulers."""

from audit.edits import Edit

MODULE = "torch.ao.pruning.scheduler.base_scheduler"
CUBIC = "torch.ao.pruning.scheduler.cubic_scheduler"

MENDS = {
    "scheduler-epoch-changes-only-the-message": [
        Edit(MODULE, "BaseScheduler.step", "self.last_epoch += 1", "self.last_epoch = self.last_epoch + 1 if epoch is None else epoch"),
    ],
    "cubic-falling-level-never-moves": [
        Edit(CUBIC, "CubicSL.sparsity_compute_fn", "_clamp(s_t, s_0, s_f)", "_clamp(s_t, min(s_0, s_f), max(s_0, s_f))"),
    ],
}
