"""Command line of the audit."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from audit.project import AUDIT, OPERATORS, WORK, AuditError, Project


#: At most this share of the mutants may be noticed by tests of known defects only.
MOST_KNOWN_ONLY = 0.02


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N")
    return int(part), int(parts)


def _coverage(arguments: argparse.Namespace) -> int:
    from audit import accepted, lines

    modules, gaps, green = lines.measure(Project(runner=arguments.tests), arguments.k, arguments.only)
    entries = accepted.load().of("coverage")
    reasons, complaints = accepted.sort_gaps(entries, gaps)
    unlisted = [gap for gap in gaps if gap not in reasons]
    for gap in unlisted:
        print(gap)
    print(lines.table(modules))
    print(f"{len(unlisted)} not reached, {len(reasons)} accepted")
    if arguments.k or arguments.only or arguments.tests != Project.runner:  # a part: entries for the rest are not wrong
        complaints = []
    for complaint in complaints:
        print(complaint)
    if not green:
        print("audit: the suite is red", file=sys.stderr)
    return int(bool(unlisted or complaints or not green))


def _mutate(arguments: argparse.Namespace) -> int:
    from audit import mutants, mutate

    out = mutate.mutate(
        Project(runner=arguments.tests),
        arguments.work,
        arguments.operators,
        arguments.only,
        arguments.shard,
        arguments.k,
        arguments.survivors,
        arguments.workers,
    )
    _, found = mutants.load(out)
    for mutant in found:
        if mutant.verdict in ("survived", "no tests", "known only"):
            print(f"{mutant.verdict}: {mutant}")
    print(mutants.summary(found))
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    from audit import merge, mutants

    print(mutants.summary(merge.merge(arguments.folders, arguments.work, arguments.operators)))
    return 0


def _mends(arguments: argparse.Namespace) -> int:
    from audit import mending, mends

    project, known = Project(runner=arguments.tests), mends.load()
    if arguments.diff is not None:
        sys.stdout.write(mending.diff(project, known, arguments.diff))
        return 0
    if arguments.overlay:
        mending.write_overlay(project, known, mending.selected(known, arguments.only), arguments.overlay)
        print(f"written: PYTHONPATH={arguments.overlay}/site python {project.runner}")
        return 0
    return mending.mend(project, arguments.work, known, arguments.only, arguments.shard, arguments.k, arguments.workers, arguments.together)


def _probes(arguments: argparse.Namespace) -> int:
    from audit import probes, variants

    chosen = probes.selected(arguments.only)
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        faults = probes.faults(variants.Asker(Project(), Path(folder), [], arguments.workers), chosen)
    for fault in faults:
        print(fault)
    print(f"{len(chosen)} mistakes, {len(faults)} without proof")
    return int(bool(faults))


def _report(arguments: argparse.Namespace) -> int:
    from audit import accepted, mending, mutants, mutate, report

    entries = accepted.load()
    parts, wanting = [], False
    for operators in OPERATORS:
        file = mutate.results_file(arguments.work, operators)
        if not file.is_file():
            continue
        header, found = mutants.load(file)
        listed = entries.of(operators) if entries.holds_for(header["product"].split()[1]) else ()
        reasons, complaints = accepted.sort_mutants(listed, found)
        asked = [mutant for mutant in found if mutant.verdict != "not checked"]
        reasons = {mutant.name: reasons[mutant.name] for mutant in asked if mutant.name in reasons}
        parts.append(report.Part(operators, header, asked, reasons, len(found) - len(asked)))
        found = asked
        left = report.unlisted(found, reasons)
        if report.partial(header):  # a part: entries for the rest are not wrong
            complaints = []
        hidden = [mutant for mutant in found if mutant.verdict == "known only"]
        for line in (*(f"{mutant.verdict}: {mutant}" for mutant in [*left, *hidden]), *complaints):
            print(line)
        print(f"{operators}: {mutants.summary(found)}; {len(reasons)} accepted, {len(left)} open")
        wanting |= bool(complaints or left) or len(hidden) > MOST_KNOWN_ONLY * len(found)
    notes = mending.summary_file(arguments.work)
    if not parts:
        raise AuditError(f"no results in {arguments.work}: run python -m audit mutate first")
    earlier = arguments.out.read_text() if arguments.out.is_file() else ""
    arguments.out.write_text(report.render(parts, list(json.loads(notes.read_text()).values()) if notes.is_file() else [], earlier))
    print(f"written: {arguments.out}")
    return int(wanting)


def _cost(arguments: argparse.Namespace) -> int:
    from audit import cost

    measure = cost.measure_project if arguments.project else cost.measure
    result = measure(Project(), arguments.python, arguments.rounds)
    print(result)
    return 0 if result.within else 1


def _tests(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tests", default=Project.runner, metavar="FILE", help="one test file in the runner's place")
    command.add_argument("-k", action="append", default=[], metavar="PATTERN", help="run the tests that match alone")


def _operators(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--operators",
        choices=OPERATORS,
        default="mutmut",
        help="mutmut's (default), the project's own, both on what runs at import, mistakes made by hand, or both on mended lines",
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m audit", description="What the suite reaches, notices and costs, and whether its tests of known defects are right."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("coverage", help="list the lines and branches of the packages that the suite never reaches")
    command.add_argument("--only", action="append", default=[], metavar="PATTERN", help="modules")
    _tests(command)
    command.set_defaults(call=_coverage)

    command = commands.add_parser("mutate", help="put small mistakes into a copy of the packages, see which are noticed")
    command.add_argument("--only", action="append", default=[], metavar="PATTERN", help="modules or module.Class.method")
    _operators(command)
    command.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="run the I-th of N parts")
    _tests(command)
    command.add_argument("--survivors", action="store_true", help="keep what was noticed before the tests changed")
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="mutants at a time")
    command.add_argument("--work", type=Path, default=WORK, metavar="FOLDER", help="default: build/audit-work")
    command.set_defaults(call=_mutate)

    command = commands.add_parser("mends", help="put the mends of the known defects into a copy: do exactly their tests flip?")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--together", action="store_true", help="all mends at once: is no defect in Python code left?")
    what.add_argument("--diff", nargs="*", metavar="CAUSE", help="print the mends of these root causes (none: all) as a diff")
    what.add_argument("--overlay", type=Path, metavar="DIR", help="write the mended packages to DIR, for PYTHONPATH=DIR/site")
    command.add_argument("--only", action="append", default=[], metavar="PATTERN", help="root causes or areas")
    command.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="run the I-th of N parts")
    _tests(command)
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="mends at a time")
    command.add_argument("--work", type=Path, default=WORK, metavar="FOLDER", help="default: build/audit-work")
    command.set_defaults(call=_mends)

    command = commands.add_parser("probes", help="prove that each mistake of --operators history changes what the packages do")
    command.add_argument("--only", action="append", default=[], metavar="PATTERN", help="names, or modules")
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="probes at a time")
    command.set_defaults(call=_probes)

    command = commands.add_parser("merge", help="put the results of several machines together")
    command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="work folders of the machines")
    _operators(command)
    command.add_argument("--work", type=Path, default=WORK, metavar="FOLDER", help="where the whole goes")
    command.set_defaults(call=_merge)

    command = commands.add_parser("report", help="write SCORE.md; list what is neither noticed nor accepted")
    command.add_argument("--work", type=Path, default=WORK, metavar="FOLDER", help="default: build/audit-work")
    command.add_argument("--out", type=Path, default=AUDIT / "SCORE.md", metavar="FILE", help="default: audit/SCORE.md")
    command.set_defaults(call=_report)

    command = commands.add_parser("cost", help="time and memory of the suite, against a bare import of torch's test tools")
    command.add_argument("--python", default=sys.executable, help="the interpreter to use; the goals are for requirements.txt alone")
    command.add_argument("--rounds", type=int, default=5, metavar="N", help="medians of so many (default: 5)")
    command.add_argument("--project", action="store_true", help="of the project's own tests under pytest, and of those that are not slow")
    command.set_defaults(call=_cost)

    parsed = parser.parse_args(arguments)
    try:
        return parsed.call(parsed)
    except AuditError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("audit: interrupted; the same command goes on from here", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    # To end by these would leave the processes that test the mutants at work in the folder, beside those of the next run.
    for ending in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
        if signal.getsignal(ending) is signal.SIG_DFL:
            signal.signal(ending, _interrupt)
    if hasattr(signal, "SIGCHLD"):  # where the caller has it ignored, a run that is red would be one that ended with status 0
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    sys.exit(main())
