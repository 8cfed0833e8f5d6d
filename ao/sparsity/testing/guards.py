"""Process-wide state that a test may change but must not leave behind.

Tests run in a private, empty folder, one per process: what appears there is a test's doing, whoever else writes elsewhere.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import unittest
import warnings
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as nn_module

# Imported here, under a filter of our own, because it resets the warnings filters of whoever imports it first.
with warnings.catch_warnings():
    import torch.ao.pruning._experimental.data_sparsifier
    from torch.ao.nn.sparse.quantized.utils import LinearBlockSparsePattern

FILES = "files in the working directory"
OUTPUT, SHOWN = "words on standard output", 200
# A first import in a test may change these as it likes: sympy adds a filter, torch._inductor sets a variable and may start threads.
IMPORTS_MAY_CHANGE = ("warnings filters", "environment variables", "running threads")
_PROJECT = ("ao.", "sparsity.")  # pytest leaves out the first folder
_FOREIGN = ("torch.", "unittest.")  # large base classes that hold no model
_GLOBAL_HOOKS = tuple(name for name in vars(nn_module) if name.startswith("_global_") and name.endswith("hooks"))
_MODULE_HOOKS = tuple(name for name in vars(nn.Identity()) if name.endswith("hooks"))


class Guard:
    """One resource: how to read it, how to put it back, and how to name it in a failure."""

    def __init__(self, name: str, read: Callable[[], Any], restore: Callable[[Any], Any]) -> None:
        self.name, self.read, self.restore = name, read, restore


def _restore_engine(engine):
    torch.backends.quantized.engine = engine


def _read_pattern():
    return {name: value for name, value in vars(LinearBlockSparsePattern).items() if isinstance(value, int)}


def _restore_pattern(state):
    for name, value in state.items():
        setattr(LinearBlockSparsePattern, name, value)


def _read_pattern_lock():
    return LinearBlockSparsePattern.rlock._is_owned()


def _restore_pattern_lock(owned):
    while LinearBlockSparsePattern.rlock._is_owned() and not owned:
        LinearBlockSparsePattern.rlock.release()


def restore_filters(filters: list) -> None:
    """Set the warnings filters, and let Python know."""
    warnings.filters[:] = filters  # type: ignore[index]
    mutated = getattr(warnings, "_filters_mutated", None) or warnings._filters_mutated_lock_held  # type: ignore[attr-defined]
    mutated()


def _read_global_hooks():
    return {name: dict(getattr(nn_module, name)) for name in _GLOBAL_HOOKS}


def _restore_global_hooks(hooks):
    for name, entries in hooks.items():
        current = getattr(nn_module, name)
        current.clear()
        current.update(entries)


_environment: tuple[Any, dict[str, str]] = (None, {})  # as os.environ keeps it, and as text


def _read_environment():
    """The environment; made text anew only where it has changed, as that takes most of the time."""
    global _environment
    raw = getattr(os.environ, "_data", None)
    if raw is None or raw != _environment[0]:
        _environment = (None if raw is None else dict(raw), dict(os.environ))
    return _environment[1]


def _restore_environment(environment):
    os.environ.clear()
    os.environ.update(environment)


def _read_logging():
    root = logging.getLogger()
    return root.level, list(root.handlers), logging.root.manager.disable


def _restore_logging(state):
    root = logging.getLogger()
    root.level, root.handlers[:], logging.root.manager.disable = state[0], state[1], state[2]


# For the private folders of this process and of those that it forks; it is removed when this process ends, a child of multiprocessing too.
_FOLDERS = tempfile.mkdtemp(prefix="ao_sparsity_")
atexit.register(Finalize(None, shutil.rmtree, (_FOLDERS, True), exitpriority=0))  # whichever end comes first; once, in this process alone

# What torch compiles is of this run alone: a folder of an earlier one says nothing of this build, and torch asks for the user's name,
# which not every user of a container has, or for a folder that may not be there any more.
os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(_FOLDERS, "compiled")


def private_folder() -> str:
    """The folder in which the tests of this process run; nobody else's files are in it."""
    folder = os.path.join(_FOLDERS, str(os.getpid()))
    if not os.path.isdir(folder):
        os.mkdir(folder)
    return folder


def _read_files() -> list[str]:
    return sorted(os.listdir(private_folder()))


def _restore_files(files: list[str]) -> None:
    for path in pathlib.Path(private_folder()).iterdir():
        if path.name not in files:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


GUARDS: list[Guard] = [
    Guard("quantized engine", lambda: torch.backends.quantized.engine, _restore_engine),
    Guard("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Guard("number of threads", torch.get_num_threads, torch.set_num_threads),
    Guard("LinearBlockSparsePattern", _read_pattern, _restore_pattern),
    Guard("LinearBlockSparsePattern's lock is held", _read_pattern_lock, _restore_pattern_lock),
    Guard("warnings filters", lambda: list(warnings.filters), restore_filters),
    Guard("gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Guard("global module hooks", _read_global_hooks, _restore_global_hooks),
    Guard("environment variables", _read_environment, _restore_environment),
    Guard("working directory", os.getcwd, os.chdir),
    Guard("sys.path", lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path)),
    Guard("root logger", _read_logging, _restore_logging),
    Guard(FILES, _read_files, _restore_files),
    Guard("running threads", lambda: sorted(t.name for t in threading.enumerate() if not t.daemon), lambda names: None),
]


def _hooks_of(model):
    return {
        (path, name): list(getattr(module, name))
        for path, module in model.named_modules()
        for name in _MODULE_HOOKS
        if getattr(module, name, None)
    }


def _shared_models(case):
    """Models that more than one test can reach: attributes of the test's class and of its module."""
    own = (holder for holder in type(case).__mro__ if not holder.__module__.startswith(_FOREIGN))
    owners = (*own, sys.modules[type(case).__module__])
    return {f"{owner.__name__}.{name}": value for owner in owners for name, value in vars(owner).items() if isinstance(value, nn.Module)}


class _Listener:
    """Standard output that also keeps what is written to it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.heard = stream, ""

    def write(self, text: str) -> int:
        self.heard += text
        return 0 if self.stream is None else self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_spare: list[np.random.MT19937] = []  # generators for _numpy_aside; making one is slow


def _numpy_aside() -> tuple[Any, Any]:
    """Let numpy.random draw from another generator, where NumPy can (from 1.24 on), as that is quicker than a copy of the state."""
    if not hasattr(np.random, "set_bit_generator"):
        return np.random.get_state(), None
    before, own = np.random.get_bit_generator(), _spare.pop() if _spare else np.random.MT19937(0)  # type: ignore[attr-defined]
    np.random.set_bit_generator(own)  # type: ignore[attr-defined]
    return before, own


def _numpy_back(before: Any, own: Any) -> None:
    if own is None:
        np.random.set_state(before)
    else:
        np.random.set_bit_generator(before)  # type: ignore[attr-defined]
        _spare.append(own)


class Snapshot:
    """State of all guards when a test starts; from then on it runs in the private folder of its process."""

    def __init__(self, case: unittest.TestCase) -> None:
        self._modules = len(sys.modules)
        self._folder = os.getcwd()
        os.chdir(private_folder())
        self._state = [(guard, guard.read()) for guard in GUARDS]
        self._hooks = {name: (model, _hooks_of(model)) for name, model in _shared_models(case).items()}
        # Drawing numbers is allowed (every nn.Linear does): these are put back without complaint.
        self._random = torch.get_rng_state(), _numpy_aside(), random.getstate()
        self._output = sys.stdout = _Listener(sys.stdout)  # type: ignore[assignment]

    def restore(self) -> list[str]:
        """Put everything back, the working directory of the process as well.

        Returns:
            What was left behind, one ``name: before -> after`` each, words on standard output too: what is to be printed, a test reads.
            Filters, variables and threads are no leak of a test in which a module of others was imported for the first time: then that
            module may have changed them.
        """
        leaks = []
        if self._output.heard:
            leaks.append(f"{OUTPUT}: {self._output.heard[:SHOWN]!r}")
        if sys.stdout not in (self._output, self._output.stream):  # the latter where a debugger stopped the test under pytest
            leaks.append(f"another sys.stdout: {sys.stdout!r}")
        sys.stdout = self._output.stream
        new = itertools.islice(reversed(sys.modules), max(0, len(sys.modules) - self._modules))
        imported = [name for name in new if not name.startswith(_PROJECT)]
        for guard, before in self._state:
            after = guard.read()
            if after != before:
                if not (imported and guard.name in IMPORTS_MAY_CHANGE):
                    leaks.append(f"{guard.name}: {_difference(before, after)}")
                guard.restore(before)
        with contextlib.suppress(OSError):  # an unprivileged user may have started in a folder that is closed to him
            os.chdir(self._folder)
        for name, (model, before) in self._hooks.items():
            after = _hooks_of(model)
            if after != before:
                leaks.append(f"hooks on the shared model {name}: {sorted(set(after) ^ set(before)) or sorted(after)}")
                _remove_new_hooks(model, before)
        torch.set_rng_state(self._random[0])
        _numpy_back(*self._random[1])
        random.setstate(self._random[2])
        return leaks


def _difference(before, after):
    """Short text for a change; for dicts and lists only what differs."""
    if isinstance(before, dict):
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        return ", ".join(f"{key} {before.get(key)!r} -> {after.get(key)!r}" for key in keys)
    if isinstance(before, list):
        added = [item for item in after if item not in before]
        gone = [item for item in before if item not in after]
        return f"added {added!r}, gone {gone!r}" if added or gone else "another order"
    return f"{before!r} -> {after!r}"


def _remove_new_hooks(model, before):
    for path, module in model.named_modules():
        for name in _MODULE_HOOKS:
            hooks = getattr(module, name, None)
            for key in list(hooks or ()):
                if key not in before.get((path, name), ()):
                    del hooks[key]
