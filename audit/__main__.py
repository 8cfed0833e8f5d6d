"""Command line of the audit."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from audit.project import AUDIT, AuditError, Project


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return int(part), int(parts)


def _coverage(arguments) -> int:
    from audit import accepted, lines

    modules, gaps, green = lines.measure(Project(), arguments.k, arguments.only)
    entries = accepted.load().coverage
    whole = not arguments.k and not arguments.only
    reasons, complaints = accepted.sort_gaps(entries, gaps)
    unlisted = [gap for gap in gaps if gap not in reasons]
    for gap in unlisted:
        print(gap)
    print(lines.table(modules))
    print(f"{len(unlisted)} not reached, {len(reasons)} accepted")
    if whole:
        print("".join(f"{complaint}\n" for complaint in complaints), end="")
    if not green:
        print("audit: the suite is red", file=sys.stderr)
    return int(bool(unlisted or (whole and complaints) or not green))


def _mutate(arguments) -> int:
    from audit import mutants, mutate

    out = mutate.mutate(
        Project(), arguments.work, arguments.only, arguments.shard, arguments.k, arguments.survivors, arguments.workers
    )
    _, found = mutants.load(out)
    for mutant in found:
        if mutant.verdict in ("survived", "no tests"):
            print(f"{mutant.verdict}: {mutant}")
    print(mutate.summary(found))
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m audit", description=sys.modules["audit"].__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("coverage", help="list the lines and branches of the packages that the suite never reaches")
    command.add_argument("--only", action="append", default=[], metavar="PATTERN", help="modules")
    command.add_argument("-k", action="append", default=[], metavar="PATTERN", help="run the tests that match alone")
    command.set_defaults(call=_coverage)

    command = commands.add_parser("mutate", help="put small mistakes into a copy of the packages, see which are noticed")
    command.add_argument("--only", action="append", default=[], metavar="PATTERN", help="modules or module.Class.method")
    command.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="run the I-th of N parts")
    command.add_argument("-k", action="append", default=[], metavar="PATTERN", help="run the tests that match alone")
    command.add_argument("--survivors", action="store_true", help="keep what was noticed before the tests changed")
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="mutants at a time")
    command.add_argument("--work", type=Path, default=AUDIT / "work", metavar="FOLDER", help="default: audit/work")
    command.set_defaults(call=_mutate)

    arguments = parser.parse_args(arguments)
    try:
        return arguments.call(arguments)
    except AuditError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("audit: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
