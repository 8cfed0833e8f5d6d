"""Long runs of random calls against a small model of the state; a run that fails is told by a short list of calls.

A machine is an object with a method for each verb and ``draw(generator)``, which chooses the next call: the verb and its
arguments, plain values. A method does the call and checks what must hold after it. ``hold`` plays many histories; of one that
fails it leaves out call after call as long as the rest still fails.
"""

import random
import typing

Call = tuple  # the verb, then its arguments


class Machine(typing.Protocol):
    """What is played; a new one for each history."""

    def draw(self, generator: random.Random) -> Call:
        """The next call, of those that are allowed in the present state."""


def hold(make: typing.Callable[[], Machine], histories: int, length: int) -> None:
    """Play ``histories`` random histories of ``length`` calls, the same ones each time.

    Args:
        make: makes a machine.
        histories, length: how many, and how many calls each.

    Raises:
        AssertionError: if a call or a check fails; with the calls that are enough for it, and with what failed.
    """
    for seed in range(histories):
        generator, machine = random.Random(seed), make()
        calls: list[Call] = []
        error = None
        while error is None and len(calls) < length:
            calls.append(machine.draw(generator))
            error = _failure_of(machine, calls[-1])
        if error is not None:
            calls, error = _shortened(make, calls, error)
            raise AssertionError(f"{error}\nafter these calls: {calls}") from error


def _failure_of(machine, call):
    verb, *arguments = call
    try:
        getattr(machine, verb)(*arguments)
    except Exception as error:
        return error
    return None


def _failure_of_all(make, calls):
    machine = make()
    for call in calls:
        error = _failure_of(machine, call)
        if error is not None:
            return error
    return None


def _shortened(make, calls, error):
    index = len(calls) - 2
    while index >= 0:
        rest = calls[:index] + calls[index + 1 :]
        failure = _failure_of_all(make, rest)
        if type(failure) is type(error):
            calls, error = rest, failure
        index -= 1
    return calls, error
