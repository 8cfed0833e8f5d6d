"""What the register holds about one defect."""

import dataclasses
import re
import textwrap

from ao.sparsity.testing.preflight import version_tuple

KINDS = ("wrong result", "corrupted state", "crash", "leak")


@dataclasses.dataclass(frozen=True)
class Defect:
    """One real defect of PyTorch.

    Args:
        id: says what is wrong, in words joined by hyphens: ``fpgm-drifts-above-level``.
        area: the area of the suite, the ``x`` of its ``test_x.py``.
        kind: one of KINDS.
        summary: what goes wrong, in one sentence.
        where: module and symbol, ``torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier.load_state_dict``.
        contract: what is promised instead, and where that is stated.
        error: name of the exception (or of a base class of it) that the test of the right behaviour raises today;
            ``ProcessDied`` where the process is killed.
        match: regular expression found in that exception's text: the failing comparison, a key word, a signal.
        reproduce: the shortest statements that show it at a Python prompt; what is printed and what ought to be, as comments.
        mend: what would mend it, in one line.
        since: first torch release known to have it (the oldest validated, where nothing older was tried).
        fixed: first torch release without it, or None while the newest has it.
        upstream: address or number of the issue in PyTorch's tracker, or None.
        cause: a few words naming the root cause, shared by entries that one mend would close, or None.
    """

    id: str
    area: str
    kind: str
    summary: str
    where: str
    contract: str
    error: str
    match: str
    reproduce: str
    mend: str
    since: str = "2.1"
    fixed: str = None
    upstream: str = None
    cause: str = None

    def __post_init__(self):
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", self.id):
            raise ValueError(f"the id {self.id!r} is not words joined by hyphens")
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}: the kind {self.kind!r} is none of {KINDS}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{self.id}: {field.name} is {value!r}, expected some text")
        re.compile(self.match)
        object.__setattr__(self, "reproduce", textwrap.dedent(self.reproduce).strip())

    def known_in(self, version):
        """Whether torch ``version`` (a tuple of numbers) is known to have the defect."""
        version = version[:2]
        return version_tuple(self.since)[:2] <= version and (self.fixed is None or version < version_tuple(self.fixed)[:2])

    def shows_as(self, error):
        """Whether ``error`` is the registered way in which the defect shows."""
        names = {kind.__name__ for kind in type(error).__mro__}
        return self.error in names and re.search(self.match, str(error), re.DOTALL) is not None
