"""Results as files that travel: JUnit XML (other programs read it) with the environment as JSON beside it."""

import hashlib
import json
import re
from pathlib import Path

from nightly.history import COMPLETE, COULD_NOT_RUN, Row, RunRow, now, parse_time, recorded
from nightly.outcomes import (
    CRASH,
    ERROR,
    EXPECTED_FAILURE,
    FAIL,
    NOT_RUN,
    OUTCOMES,
    PASS,
    SKIP,
    TIMEOUT,
    UNEXPECTED_SUCCESS,
    NightlyError,
)

#: The fields of a run that travel in the JSON file.
FIELDS = (
    "uid",
    "target",
    "machine",
    "started",
    "finished",
    "state",
    "reason",
    "torch",
    "torch_commit",
    "python",
    "suite_commit",
    "selection",
    "environment",
    "notes",
)
#: What XML 1.0 cannot hold.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def file_stem(run):
    """The name, without ending, of the files that hold a run: safe in every file system."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "_", f"{run.target}@{run.machine}").strip("_")


def write(folder, run, results):
    """Write ``<target>.xml`` and ``<target>.json`` of a run into a folder, which is made if it is not there.

    Raises:
        NightlyError: they could not be written.
    """
    import junitparser

    suite = junitparser.TestSuite(run.target)
    for row in results:
        suite.add_testcase(test_case(junitparser, row))
    suite.timestamp = run.started
    xml = junitparser.JUnitXml()
    xml.add_testsuite(suite)
    stem = Path(folder) / file_stem(run)
    about = {key: getattr(run, key) for key in FIELDS}
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        xml.write(f"{stem}.xml", pretty=True)
        Path(f"{stem}.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise NightlyError(f"JUnit files {stem}.*: {error.strerror}: name another place with --junit") from None


def test_case(junitparser, row):
    """A test as other programs understand it; the exact outcome stands in a property."""
    class_name, _, method = row.name.rpartition(".")
    case = junitparser.TestCase(method, f"{row.area}.{class_name}", round(row.seconds, 4))
    message = NOT_XML.sub("?", row.message)
    kinds = {
        SKIP: junitparser.Skipped,
        NOT_RUN: junitparser.Skipped,
        EXPECTED_FAILURE: junitparser.Skipped,
        FAIL: junitparser.Failure,
        UNEXPECTED_SUCCESS: junitparser.Failure,
        ERROR: junitparser.Error,
        CRASH: junitparser.Error,
        TIMEOUT: junitparser.Error,
    }
    if row.outcome in kinds:
        first_line = message.strip().splitlines()[-1] if message.strip() else row.outcome
        child = kinds[row.outcome](first_line, row.outcome)
        child.text = message
        case.result = [child]
    elif message:
        case.system_out = message
    properties = junitparser.Properties()
    properties.add_property(junitparser.Property("outcome", row.outcome))
    case.append(properties)
    return case


def read(path):
    """The (run, results) of a JUnit file and the JSON beside it.

    Raises:
        NightlyError: one of them is missing or is not what it should be.
    """
    import junitparser

    path = Path(path)
    about = read_environment(path)
    try:
        content = path.read_bytes()
        xml = junitparser.JUnitXml.fromstring(content)
        suites = [xml] if isinstance(xml, junitparser.TestSuite) else list(xml)
        rows = [row_of(junitparser, case) for suite in suites for case in suite]
    except OSError as error:
        raise NightlyError(f"{path}: {error.strerror}") from None
    except Exception as error:  # whatever the parser in use raises for what is no XML, or no JUnit
        raise NightlyError(f"{path} is no JUnit XML: {error}") from None
    run = RunRow(**{"uid": hashlib.sha256(content).hexdigest()[:32], "machine": "unknown", **about})
    run.finished = run.finished or run.started
    return run, rows


def read_environment(path):
    """What the JSON file beside a JUnit file says of its run."""
    beside = path.with_suffix(".json")
    try:
        about = json.loads(beside.read_text())
        about = {key: about[key] for key in FIELDS if about.get(key) is not None}
    except FileNotFoundError:
        raise NightlyError(f"{path}: the environment is missing: {beside.name} beside it, with at least target and started") from None
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise NightlyError(f"{beside} is no environment of a run: {error}") from None
    kinds = {"environment": dict, "notes": list}
    wrong = [key for key, value in about.items() if not isinstance(value, kinds.get(key, str))]
    if "target" not in about or wrong:
        raise NightlyError(f"{beside}: {f'{wrong[0]} is of the wrong type' if wrong else 'target is missing'}")
    try:
        for key in ("started", "finished"):
            if key in about:
                about[key] = recorded(parse_time(about[key]))
    except ValueError as error:
        raise NightlyError(f"{beside}: {error}") from None
    about.setdefault("started", now())
    about.setdefault("state", COMPLETE)
    if about["state"] not in (COMPLETE, COULD_NOT_RUN):
        raise NightlyError(f"{beside}: state {about['state']!r} is not that of a finished run")
    return about


def row_of(junitparser, case):
    """The `Row` of a test case written by `write`, by unittest-xml-reporting or by pytest."""
    stated = next((item.value for item in case.child(junitparser.Properties) or [] if item.name == "outcome"), None)
    module, _, class_name = (case.classname or "").rpartition(".")
    outcome, message = PASS, case.system_out or ""
    for child in case.result:
        message = child.text or child.message or ""
        if isinstance(child, junitparser.Skipped):
            outcome = SKIP
        else:
            outcome = FAIL if isinstance(child, junitparser.Failure) else ERROR
    area = module.rpartition(".")[2].removeprefix("test_") or "main"
    name = f"{class_name}.{case.name}" if class_name else case.name
    return Row(name, area, stated if stated in OUTCOMES else outcome, case.time or 0.0, message)
