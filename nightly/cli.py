"""The command line of nightly."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightly import execute
from nightly.files import write_whole
from nightly.outcomes import (
    ALL_WELL,
    COULD_NOT_RUN,
    INTERRUPTED,
    NIGHTLY_FAILED,
    WORSE,
    WRONG_COMMAND_LINE,
    CommandLineError,
    Mistake,
    NightlyError,
)
from nightly.texts import one_line

if TYPE_CHECKING:
    from nightly.compare import Judgement
    from nightly.targets import Target

CHECKOUT = Path(__file__).resolve().parent.parent
APPLICATION = "ao-sparsity-nightly"
TARGET_FILE = CHECKOUT / "nightly.toml"
#: The largest count that the command line takes.
MOST = 1_000_000

STATUSES = """exit statuses of run, and of import --compare:
  0    all well (and nothing printed if nothing changed)
  1    something got worse: new failures, vanished or fewer tests, new skips
  2    the command line is wrong
  3    a target or the history could not be run or used
  4    nothing got worse: known failures, flaky or slow tests, known defects that vanished or are back
  5    nightly itself made a mistake: the line says where, please report it
  130  interrupted
With several targets it is the first of 5, 1, 3, 4, 0 that one of them has.
diff: 1 if the second is worse. watch: 1 if a record is missing. Of all commands: 0, 2, 3, 5 and 130."""


def number(text: str) -> float:
    """A positive number of the command line."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def wait(text: str) -> float:
    """Seconds of the command line, or 0."""
    return number(text) if float(text) else 0.0


def count(text: str) -> int:
    """A whole number from 1 to `MOST`."""
    value = int(text)
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to {MOST:,}")
    return value


def size(text: str) -> int:
    """``500M`` or ``8G`` in bytes; 0 for no limit."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([MG]?)", text)
    if not found or (not found[2] and float(found[1])):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it as 500M or 8G (0: no limit)")
    return int(float(found[1]) * execute.MIB * (1024 if found[2] == "G" else 1))


def checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser whose ValueError becomes argparse's own message."""

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    from nightly import verbs
    from nightly.schedule import parse_age, parse_time_of_day

    parser = argparse.ArgumentParser(
        prog="python -m nightly", description=__doc__, epilog=STATUSES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(
        name: str,
        function: Callable[[argparse.Namespace], int],
        summary: str,
        locked: bool = False,
        history: bool = True,
        epilog: str = STATUSES,
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=summary, description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        added.set_defaults(function=function)
        if history:
            added.add_argument("--history", type=Path, metavar="FILE", help="the history (default: in the user's state folder)")
        if locked:
            added.add_argument("--wait", type=wait, default=0.0, metavar="SECONDS", help="wait so long for another run to end (default: 0)")
            added.add_argument("--verbose", action="store_true", help="say what is being done, and the summary even if all is well")
        return added

    run = command("run", run_command, "validate the targets, record the results and say what changed", locked=True)
    run.add_argument("--python", action="append", default=[], metavar="PATH", help="an interpreter to validate; its torch is not touched")
    run.add_argument(
        "--torch",
        action="append",
        default=[],
        metavar="REQUIREMENTS",
        help="what pip is to install and validate, such as 'torch==2.13.0' or '--pre torch --index-url URL'",
    )
    run.add_argument(
        "--targets", type=Path, metavar="FILE", help=f"a file of targets (default: {TARGET_FILE.name} of the checkout if nothing is named)"
    )
    run.add_argument("--name", help="the name of the one target of the command line")
    run.add_argument("--machine", help="the machine's name in the history (default: its host name)")
    run.add_argument("-k", action="append", default=[], metavar="PATTERN", help="run only tests that match (as the runner's own -k)")
    run.add_argument("--jobs", type=count, metavar="N", help="targets at a time (default: one for two cores)")
    run.add_argument("--time-limit", type=number, default=3600.0, metavar="SECONDS", help="for one target, reruns included (default: 3600)")
    run.add_argument("--test-limit", type=number, default=300.0, metavar="SECONDS", help="for one test (default: 300)")
    run.add_argument(
        "--memory-limit", type=size, metavar="SIZE", help="for one test process, such as 8G (default: its share of 3/4 of the machine)"
    )
    run.add_argument(
        "--keep",
        type=number,
        default=400.0,
        metavar="DAYS",
        help="forget older nights, and environments that no run has used since (default: 400)",
    )
    run.add_argument("--junit", type=Path, metavar="DIR", help="also write each target's results as JUnit XML with the environment as JSON")
    run.add_argument("--cache", type=Path, metavar="DIR", help="where environments are kept (default: in the user's cache folder)")
    run.add_argument("--runner", type=Path, default=CHECKOUT / "test_ao_sparsity.py", metavar="FILE", help=argparse.SUPPRESS)

    run.add_argument(
        "--speed", action="store_true", help="also time the sparse kernels against the dense ones (less than half a minute a target)"
    )
    verbs.add_telling(run)

    report = command("report", report_command, "write the history's last nights as one HTML page")
    report.add_argument(
        "--output", "-o", type=Path, default=Path("nightly.html"), metavar="FILE", help="(default: nightly.html; - is standard output)"
    )
    report.add_argument(
        "--source", default="", metavar="ADDRESS", help="where the suite's files can be read, for links to the pages of known defects"
    )
    report.add_argument("--nights", type=count, default=30, metavar="N", help="nights in the grid (default: 30)")

    importer = command("import", import_command, "take in results of other machines", locked=True)
    importer.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="JUnit XML with the environment beside it (as run --junit writes it), a folder of such, or another history",
    )
    importer.add_argument("--compare", action="store_true", help="then judge what is new, as run does")
    verbs.add_telling(importer)

    install = command("install", install_command, "print the crontab line (or systemd timer) that runs the night", history=False)
    install.add_argument("--at", type=checked(parse_time_of_day), default=(2, 30), metavar="HH:MM", help="when (default: 02:30)")
    install.add_argument("--systemd", action="store_true", help="a systemd user timer instead of a crontab line")
    install.add_argument("--write", action="store_true", help="install it, in place of an earlier one of this checkout")
    install.add_argument("arguments", nargs="*", metavar="-- ARGUMENT", help="arguments for run, after --")

    watch = command("watch", watch_command, "complain when no record is younger than a given age (for a second machine)")
    watch.add_argument("--age", type=checked(parse_age), default=26 * 3600.0, metavar="AGE", help="such as 26h or 2d (default: 26h)")
    watch.add_argument("--target", action="append", default=[], metavar="NAME", help="watch only this target (may be repeated)")
    verbs.register(command)
    return parser


def history_path(arguments: argparse.Namespace) -> Path:
    """The history that a command works on."""
    return arguments.history or own_folder("user_state_path", "--history") / "history.sqlite"


def cache_path(arguments: argparse.Namespace) -> Path:
    """Where environments are kept."""
    return arguments.cache or own_folder("user_cache_path", "--cache")


def own_folder(function: str, option: str) -> Path:
    """The folder of this program that a function of platformdirs names.

    Raises:
        NightlyError: it lies in the user's home, and there is none.
    """
    import platformdirs

    try:
        folder: Path = getattr(platformdirs, function)(APPLICATION)
    except RuntimeError:  # from release 4.12 on; a release before it leaves the ~ in the path
        folder = Path("~")
    if folder.parts[:1] == ("~",):
        raise NightlyError(f"this user has no home folder: set HOME, or name another place with {option}")
    return folder


def find_targets(arguments: argparse.Namespace) -> tuple[list[Target], list[str]]:
    """The targets to validate, and lines about those that could not be made out."""
    from nightly import targets

    found, problems = targets.from_options(arguments.python, arguments.torch), []
    if arguments.name is not None:
        found = found or targets.from_options([sys.executable], [])
        if len(found) != 1 or arguments.targets:
            raise CommandLineError("--name goes with exactly one --python or --torch")
        found = [targets.Target(arguments.name, found[0].python, found[0].torch)]
    file = arguments.targets or (TARGET_FILE if not found and TARGET_FILE.exists() else None)
    if file is not None:
        try:
            found += targets.from_file(file)
        except NightlyError as error:
            problems.append(str(error))
    elif not found:
        found = targets.from_options([sys.executable], [])
    return targets.check_names(found), problems


def run_command(arguments: argparse.Namespace) -> int:
    from nightly import night
    from nightly.history import History

    found, problems = find_targets(arguments)
    jobs = min(arguments.jobs or max(1, execute.core_count() // 2), max(len(found), 1))
    memory = arguments.memory_limit if arguments.memory_limit is not None else execute.machine_memory() * 3 // 4 // jobs
    options = night.Options(
        history=history_path(arguments),
        cache=cache_path(arguments),
        runner=arguments.runner.absolute(),
        targets=found,
        arguments=[word for pattern in arguments.k for word in ("-k", pattern)],
        limits=execute.Limits(arguments.time_limit, arguments.test_limit, memory),
        jobs=jobs,
        keep_days=arguments.keep,
        junit=arguments.junit,
        speed=arguments.speed,
        wait=arguments.wait,
        **({"machine": arguments.machine} if arguments.machine else {}),
    )
    progress = night.Progress(arguments.verbose)
    work = night.Night(options, progress)
    judgements = work.run() if found else []
    progress.close()

    def set_told() -> None:
        with suppress(NightlyError), History(options.history) as history:  # else the next night tells it again
            history.set_told(judgement.run for judgement in judgements)

    status = tell(judgements, problems + work.problems, arguments, set_told)
    return INTERRUPTED if work.stopping.is_set() else status


def tell(judgements: Sequence[Judgement], problems: Sequence[str], arguments: argparse.Namespace, set_told: Callable[[], None]) -> int:
    """Print the summary where there is something to tell, and hand it on as the options say; returns the exit status.

    ``set_told`` is called once all of it got through; what did not is news the next time.
    """
    from nightly import digest, summary, verbs

    verbose = arguments.verbose
    failed = verbs.hand_on(judgements, problems, arguments)
    problems = [*problems, *failed]
    if arguments.format == "json":
        lost = show(json.dumps(digest.digest(judgements, problems), indent=2))
    else:
        height, width = summary.screen()
        text = summary.text(judgements, problems, height, width, unfold=verbose)
        if not text and verbose:
            text = "\n".join([summary.headline(judgements, problems)[1], *("  " + summary.target_line(item) for item in judgements)])
        lost = show(text) if text else ""
        if problem := summary.write_step_summary(judgements, problems):
            say(problem)
    if not (failed or lost):
        set_told()
    return summary.night_status(judgements, [*problems, lost] if lost else problems)


def report_command(arguments: argparse.Namespace) -> int:
    from nightly import report
    from nightly.history import History

    with History(history_path(arguments), say=say_progress) as history:
        page = report.page(history, arguments.nights, arguments.source)
    if str(arguments.output) == "-":
        sys.stdout.write(page)
        return ALL_WELL
    try:
        write_whole(arguments.output, page)
    except OSError as error:
        raise NightlyError(f"{arguments.output}: {error.strerror}: name another place with --output") from None
    print(one_line(arguments.output))
    return ALL_WELL


def import_command(arguments: argparse.Namespace) -> int:
    from nightly import night, transfer
    from nightly.history import History

    path = history_path(arguments)
    with night.only_one(path, arguments.wait), History(path, create=True, say=say_progress) as history:
        taken = transfer.take_in(history, arguments.files)
        if not arguments.compare:
            for problem in taken.problems:
                say(problem)
            if arguments.verbose:
                print(f"{len(taken.new)} new runs")
            return COULD_NOT_RUN if taken.problems else ALL_WELL
        telling = {run.uid for run in taken.untold}
        judgements = [night.judged(history, run, lambda earlier: bool(earlier.told) or earlier.uid in telling) for run in taken.untold]
        return tell(judgements, taken.problems + night.damage(history), arguments, lambda: history.set_told(taken.untold))


def say_progress(text: str) -> None:
    """A line on standard error about work that takes long, where a person is likely to read it."""
    if sys.stderr.isatty():
        print(f"nightly: {text}", file=sys.stderr, flush=True)


def install_command(arguments: argparse.Namespace) -> int:
    from nightly import schedule

    if arguments.systemd:
        units = schedule.systemd_units(CHECKOUT, arguments.arguments, arguments.at)
        print("\n".join(f"# {name}\n{content}" for name, content in units.items()), end="")
        if arguments.write:
            schedule.write_systemd(units)
        return ALL_WELL
    line = schedule.crontab_line(CHECKOUT, arguments.arguments, arguments.at)
    print(line)
    if arguments.write:
        schedule.write_crontab(line)
    return ALL_WELL


def watch_command(arguments: argparse.Namespace) -> int:
    from nightly import schedule
    from nightly.history import History

    with History(history_path(arguments), say=say_progress) as history:
        lines = schedule.silent_targets(history, arguments.age, arguments.target)
    for line in lines:
        print(f"nightly watch: {one_line(line)}")
    return WORSE if lines else ALL_WELL


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of nightly; returns its exit status."""
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the locale cannot show is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    arguments = make_parser().parse_args(argv)
    with redirect_stdout(Output(sys.stdout)):
        try:
            refuse_empty(sys.argv[1:] if argv is None else argv)
            status = arguments.function(arguments)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            return COULD_NOT_RUN
        except KeyboardInterrupt:
            return INTERRUPTED
        except CommandLineError as error:
            say(str(error))
            return WRONG_COMMAND_LINE
        except Exception as error:
            line = line_about(error, arguments.command)
            if arguments.command == "run" or getattr(arguments, "compare", False):
                with suppress(Exception):
                    return tell([], [line], arguments, lambda: None)
            say(line)
            return NIGHTLY_FAILED if isinstance(line, Mistake) else COULD_NOT_RUN


def refuse_empty(words: Sequence[str]) -> None:
    """See that no word is empty.

    Raises:
        CommandLineError: one is, as a variable of the shell that is not set: it names nothing, and nothing else is taken for it.
    """
    for word, before in zip(words, ["", *words]):
        if not word.strip() or re.fullmatch(r"--[\w-]+=\s*", word):
            raise CommandLineError(f"{one_line(word) or one_line(before) or 'a word'} is empty: name something, or leave it out")


def line_about(error: Exception, command: str) -> str:
    """The line that tells of an error, a `Mistake` if it is one of nightly itself."""
    if isinstance(error, NightlyError):
        return str(error)
    package = error.name or "" if isinstance(error, ModuleNotFoundError) else "nightly"
    if package.partition(".")[0] != "nightly":
        return f"{command} needs {'Jinja2' if package == 'jinja2' else package}: pip install -r requirements-dev.txt"
    from nightly.night import own_mistake

    return own_mistake(error)


def open_closed_streams() -> None:
    """Take the places of standard streams that were closed, which the next file would get; output is one that cannot be written."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    sys.stdout = sys.stdout or open(1, "w")
    sys.stderr = sys.stderr or open(2, "w")


class Output:
    """Standard output: once it cannot be written, which is an error of one line, what is still to be printed goes nowhere."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        return self.attempt(lambda: self.stream.write(text))

    def flush(self) -> None:
        self.attempt(self.stream.flush)

    def attempt(self, work: Callable[[], Any]) -> Any:
        """What the stream does.

        Raises:
            BrokenPipeError: its reader has left.
            NightlyError: it cannot be written.
        """
        try:
            return work()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise NightlyError(f"standard output cannot be written: {error.strerror}") from None


def show(text: str) -> str:
    """Print text on standard output; that its reader does not stay to the end is no fault. Returns a line, which is said, if it cannot
    be written."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return ""
    except NightlyError as error:
        say(str(error))
        return str(error)
    return ""


def say(text: str) -> None:
    """One line on standard error, safe for a terminal."""
    with suppress(OSError):
        print(f"nightly: {one_line(text)}", file=sys.stderr)
