"""Results as files that travel: JUnit XML (other programs read it) with the environment as JSON beside it.

What is written keeps to the narrowest schema in use, that of Jenkins' xUnit plugin: no properties within a test case, seconds with
three decimals. The exact outcome is the ``type`` of a case's element.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nightly.files import write_whole
from nightly.history import ResultLike, Row, RunRow
from nightly.intake import checked_run, fit_area, worst_rows
from nightly.outcomes import (
    CRASH,
    DEFECT_GONE,
    ERROR,
    EXPECTED_FAILURE,
    FAIL,
    FLAKY,
    NOT_RUN,
    PASS,
    SKIP,
    TIMEOUT,
    UNEXPECTED_SUCCESS,
    NightlyError,
)
from nightly.texts import clean, clean_name, telling_line

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
    "suite_version",
    "suite_commit",
    "strict",
    "selection",
    "environment",
    "notes",
)
#: What XML 1.0 cannot hold, and the carriage return, which no reader gets as it was.
NOT_XML = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: The property of a test suite that says that the file was written here, and of which run.
UID_PROPERTY = "nightly.uid"
#: The element of a test case that an outcome becomes; the others pass.
ELEMENTS = {
    SKIP: "skipped",
    NOT_RUN: "skipped",
    EXPECTED_FAILURE: "skipped",
    FAIL: "failure",
    UNEXPECTED_SUCCESS: "failure",
    ERROR: "error",
    CRASH: "error",
    TIMEOUT: "error",
    FLAKY: "flakyFailure",
}
#: Element -> the outcome that it means where its type says no other.
MEANINGS = {"skipped": SKIP, "failure": FAIL, "error": ERROR, "flakyFailure": FLAKY, "flakyError": FLAKY}
#: How pytest and unittest-xml-reporting call what is an outcome of its own here: (element, type in lower case) -> outcome.
FOREIGN_TYPES = {
    ("skipped", "pytest.xfail"): EXPECTED_FAILURE,
    ("skipped", "xfail"): EXPECTED_FAILURE,
    ("error", "unexpectedsuccess"): UNEXPECTED_SUCCESS,
    ("failure", "unexpectedsuccess"): UNEXPECTED_SUCCESS,
}
#: The package of the suite: its classes have names of their own, so that a test has one name whoever ran it.
SUITE_PACKAGE = "ao.sparsity."
STEM_LIMIT = 80


def file_stem(run: RunRow) -> str:
    """The name, without ending, of the files that hold a run: safe in every file system, and of this target alone."""
    label = re.sub(r"[^A-Za-z0-9.=_-]+", "_", f"{run.target}@{run.machine}").strip("_.")[:STEM_LIMIT]
    digest = hashlib.sha256(json.dumps([clean(run.target), clean(run.machine)]).encode()).hexdigest()[:8]
    return f"{label}-{digest}".lstrip("-")


def write(folder: str | Path, run: RunRow, results: Iterable[ResultLike]) -> None:
    """Write ``<target>.xml`` and ``<target>.json`` of a run into a folder, which is made if it is not there.

    Raises:
        NightlyError: they could not be written.
    """
    stem = Path(folder) / file_stem(run)
    about = {key: getattr(run, key) for key in FIELDS} | {"strict": bool(run.strict)}
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(f"{stem}.xml"), to_xml(run, results))
        write_whole(Path(f"{stem}.json"), json.dumps(about, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise NightlyError(f"JUnit files {stem}.*: {error.strerror}: name another place with --junit") from None


def to_xml(run: RunRow, results: Iterable[ResultLike]) -> bytes:
    """The JUnit XML of a run."""
    rows = worst_rows(Row(row.name, row.area, row.outcome, row.seconds, row.message) for row in results)
    elements = [ELEMENTS.get(row.outcome) for row in rows]
    counts = {"tests": len(rows), "failures": elements.count("failure"), "errors": elements.count("error")}
    told = {key: str(value) for key, value in counts.items()} | {"time": decimals(sum(row.seconds for row in rows))}
    root = ElementTree.Element("testsuites", told)
    about = {"name": xml_text(run.target), "timestamp": run.started, "skipped": str(elements.count("skipped")), **told}
    suite = ElementTree.SubElement(root, "testsuite", about)
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", {"name": UID_PROPERTY, "value": xml_text(run.uid)})
    for row in rows:
        add_case(suite, row)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "utf-8", xml_declaration=True)


def add_case(suite: ElementTree.Element, row: Row) -> None:
    """A test as other programs understand it; what they show first is the line that tells most."""
    class_name, dot, method = row.name.rpartition(".")
    if not method.strip():
        class_name, dot, method = "", "", row.name
    about = {
        "classname": xml_text(f"{row.area}.{class_name}" if dot else row.area),
        "name": xml_text(method),
        "time": decimals(row.seconds),
    }
    case = ElementTree.SubElement(suite, "testcase", about)
    message = xml_text(row.message)
    if row.outcome in ELEMENTS:
        telling = {"message": telling_line(message) or row.outcome, "type": row.outcome}
        child = ElementTree.SubElement(case, ELEMENTS[row.outcome], telling)
        if row.outcome == FLAKY:
            child = ElementTree.SubElement(child, "stackTrace")
        child.text = message
    elif row.outcome == DEFECT_GONE or message:
        text = f"{DEFECT_GONE}: {message}" if row.outcome == DEFECT_GONE else message
        ElementTree.SubElement(case, "system-out").text = text


def decimals(seconds: float) -> str:
    """Seconds as the schema has them."""
    return f"{max(seconds, 0.0):.3f}"


def xml_text(text: str) -> str:
    """Text that XML can hold; what it cannot is shown as an escape."""
    return NOT_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), clean(text).replace("\r\n", "\n"))


def read(path: str | Path) -> tuple[RunRow, list[Row]]:
    """The (run, results) of a JUnit file and the JSON beside it.

    A run without a uid of its own is known by all that the two files say: the same results of another day or another machine are
    another run.

    Raises:
        NightlyError: one of them is missing or is not what it should be.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NightlyError(f"{path}: {error.strerror}") from None
    about = read_environment(path)
    try:
        suites = read_suites(content)
        rows = [row for suite in suites for row in read_suite(suite)]
    except NightlyError as error:
        raise NightlyError(f"{path}: {error}") from None
    except Exception as error:  # whatever the parser raises for what is no XML
        raise NightlyError(f"{path} is no JUnit XML: {clean(error)}") from None
    stated = next(filter(None, map(stated_uid, suites)), None)
    if stated is not None and stated != xml_text(about.get("uid") or ""):
        raise NightlyError(f"{path}: {path.with_suffix('.json').name} beside it is of another run: import them again when both are written")
    identity = json.dumps(about, sort_keys=True).encode() + b"\0" + content
    about.setdefault("uid", hashlib.sha256(identity).hexdigest()[:32])
    about.setdefault("started", next((suite.get("timestamp") for suite in suites if suite.get("timestamp")), None))
    try:
        run = checked_run(about)
    except NightlyError as error:
        raise NightlyError(f"{path.with_suffix('.json')}: {error}") from None
    return run, worst_rows(rows)


def read_environment(path: Path) -> dict[str, Any]:
    """What the JSON file beside a JUnit file says of its run."""
    beside = path.with_suffix(".json")
    try:
        told = json.loads(beside.read_bytes())
    except FileNotFoundError:
        raise NightlyError(f"{path}: the environment is missing: {beside.name} beside it, with at least target and started") from None
    except OSError as error:
        raise NightlyError(f"{beside}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise NightlyError(f"{beside} is no environment of a run: {clean(error)}") from None
    if not isinstance(told, dict):
        raise NightlyError(f"{beside} is no environment of a run: no JSON object")
    return {key: told[key] for key in FIELDS if told.get(key) is not None}


def read_suites(content: bytes) -> list[ElementTree.Element]:
    """The test suites of a JUnit file, those within others too; namespaces are left out."""
    root = ElementTree.fromstring(content)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
    if root.tag not in ("testsuites", "testsuite"):
        raise NightlyError(f"no JUnit XML: its root is {clean(root.tag)[:80]!r}, not testsuites or testsuite")
    return list(root.iter("testsuite"))


def stated_uid(suite: ElementTree.Element) -> str | None:
    """The uid of the run that a test suite was written for, if it was written here."""
    found = (item.get("value") for item in suite.iterfind("properties/property") if item.get("name") == UID_PROPERTY)
    return next(found, None)


def read_suite(suite: ElementTree.Element) -> list[Row]:
    """The results of the test cases that stand directly in a suite, written by `write` or by another program."""
    own = stated_uid(suite) is not None
    return [read_case(case, own) for case in suite.iterfind("testcase")]


def read_case(case: ElementTree.Element, own: bool) -> Row:
    """The result of one test case; ``own`` if it was written by `write`."""
    method, class_name = case.get("name"), case.get("classname") or ""
    if not clean_name(method or ""):
        raise NightlyError("a testcase has no name")
    name, area = (own_name if own else foreign_name)(class_name, method or "")
    said = case.findtext("system-out") or ""
    found = [Row(name, area, *read_child(child, own)) for child in case if child.tag in MEANINGS]
    if not found and own and said.startswith(f"{DEFECT_GONE}: "):
        found = [Row(name, area, DEFECT_GONE, 0.0, said.removeprefix(f"{DEFECT_GONE}: "))]
    if not found:
        found = [Row(name, area, PASS, 0.0, said if own else "")]
    seconds = read_seconds(case.get("time"))
    return worst_rows(found)[0]._replace(seconds=seconds)


def read_child(child: ElementTree.Element, own: bool) -> tuple[str, float, str]:
    """(outcome, 0, message) of an element within a test case."""
    message, kind = child.get("message") or "", child.get("type") or ""
    trace = child.find("stackTrace")
    text = "".join((child if trace is None else trace).itertext())
    if own and ELEMENTS.get(kind) == child.tag:
        return kind, 0.0, text
    outcome = FOREIGN_TYPES.get((child.tag, kind.lower()), MEANINGS[child.tag])
    if child.tag == "failure" and message.startswith("[XPASS(strict)]"):
        outcome = UNEXPECTED_SUCCESS
    if outcome in (SKIP, EXPECTED_FAILURE):  # the text of a skip is where it stands; why, is its message
        return outcome, 0.0, message or text.strip()
    return outcome, 0.0, text.strip() or message


def own_name(class_name: str, method: str) -> tuple[str, str]:
    """(name, area) of a test case that `write` wrote."""
    area, dot, rest = class_name.partition(".")
    return f"{rest}.{method}" if dot else method, area


def foreign_name(class_name: str, method: str) -> tuple[str, str]:
    """(name, area) of a test case of another program: the name keeps its module, but that of the suite itself."""
    module, _, last = class_name.rpartition(".")
    if module.startswith(SUITE_PACKAGE):
        return f"{last}.{method}", area_of(module)
    return f"{class_name}.{method}" if class_name else method, area_of(module or class_name)


def area_of(module: str) -> str:
    """The area that a test's module stands for: ``ao.sparsity.test_kernels`` is ``kernels``, and so is what it hands to
    ``ao.sparsity.kernels.packing``."""
    inside = module.removeprefix(SUITE_PACKAGE) if module.startswith(SUITE_PACKAGE) else module.rpartition(".")[2]
    return fit_area(inside.partition(".")[0].removeprefix("test_"))


def read_seconds(text: str | None) -> float:
    """The seconds of a test case; 0 where they are no number from zero up."""
    try:
        seconds = float((text or "0").replace(",", ""))
    except ValueError:
        return 0.0
    return seconds if 0.0 <= seconds < float("inf") else 0.0
