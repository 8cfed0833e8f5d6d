"""Text of any origin, made fit for where it goes: a record, a terminal's line, Markdown, a title."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

#: The longest name of a test or target that is kept as it is.
NAME_LIMIT = 300
#: The longest field of a run, the longest text, and the most items of a list or an environment, that are kept.
FIELD_LIMIT, TEXT_LIMIT, ITEMS_LIMIT = 300, 2000, 100
#: What parts of the environment that have a meaning here are made of; others are a text, a number, or a list of such.
ENVIRONMENT = {
    "engines": list,
    "devices": list,
    "processor": str,
    "processor_model": str,
    "cpu_capability": str,
    "platform": str,
    "implementation": str,
    "cores": int,
    "threads": int,
}
#: A line that starts with the name of an exception.
EXCEPTION_LINE = re.compile(r"(?:[A-Za-z_]\w*\.)*\w*(?:Error|Exception|Warning|Failure|Interrupt|Exit|Iteration|Skip|Skipped)\b\s*(?::|$)")
#: The line that the suite's failures end in, and what torch's runner says in its place.
REPEAT_LINE = re.compile(r"To (?:repeat it|execute this test)\b")
#: What differs from one process to the next without meaning anything: addresses, and temporary folders.
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,16}\b")
TEMPORARY = re.compile(r"(?<![\w.-])((?:/[\w.+-]+)*/tmp)[a-z0-9_]{8}(?![\w-])")
#: What stands before the host of an address: its password, or, without one, a word that is as secret; the user of ssh is not.
SECRET = re.compile(r"(://[^\s/?#@:]*:|(?<!ssh)://)[^\s/?#]*@")
#: What moves a terminal's cursor, ends a line somewhere, or turns the direction of writing: all controls, and the marks of Unicode.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\U000e0000-\U000e007f]")


def clean(text: object) -> str:
    """Text that every encoding of Unicode, SQLite and JSON can hold: lone surrogates and NUL are written as escapes."""
    text = text if isinstance(text, str) else str(text)
    if text.isascii():
        return text if "\0" not in text else text.replace("\0", "\\x00")
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def clean_name(text: object) -> str:
    """A name as it is recorded: clean, without space around it, and no longer than `NAME_LIMIT`; two names never become one."""
    name = clean(text).strip()
    if len(name) <= NAME_LIMIT:
        return name
    return f"{name[: NAME_LIMIT - 13]}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def masked(text: str) -> str:
    """Text in which no address shows its password, as pip prints it: ``https://user:****@host``."""
    return SECRET.sub(r"\1****@", text)


def steady(text: str) -> str:
    """Text without what differs from one process to the next: addresses and the names of temporary folders."""
    return TEMPORARY.sub(r"\1...", ADDRESS.sub("0x...", text))


def one_line(text: object) -> str:
    """Text as one line that is safe for a terminal: what controls it is shown as an escape, space is closed up."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), " ".join(clean(text).split()))


def markdown(text: object) -> str:
    """One line of text that Markdown and HTML show as it is."""
    escaped = re.sub(r"([\\`*_{}\[\]()<>|#~!$@&+-])", r"\\\1", one_line(text))
    return escaped.replace("\\&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;").replace("://", ":\u200b//")


def telling_line(text: str) -> str:
    """The line of a traceback or message that says most: the exception's, with what it goes on to say, else the first."""
    lines = [line.strip() for line in clean(text).splitlines() if line.strip() and not REPEAT_LINE.match(line.strip())]
    for number, line in enumerate(lines):
        if EXCEPTION_LINE.match(line):
            bare = line.endswith(":") or line.endswith("Error") or line.endswith("Exception")
            return f"{line} {lines[number + 1]}" if bare and number + 1 < len(lines) else line
    return next((line for line in lines if not line.startswith(("Traceback (", 'File "'))), lines[0] if lines else "")


def fit_environment(environment: dict[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """What of an environment can be shown, and the keys of what cannot."""
    kept, wrong = {}, []
    for key, value in list(environment.items())[:ITEMS_LIMIT]:
        fitted = fit_value(value, ENVIRONMENT.get(key))
        if fitted is None and value is not None:
            wrong.append(str(key))
        elif value is not None:
            kept[clean(key)[:FIELD_LIMIT]] = fitted
    return kept, wrong


def fit_value(value: Any, kind: type | None) -> Any:
    """A value of an environment as it is recorded, or None if it is not of its kind (None: any plain one)."""
    if isinstance(value, list):
        plain = all(isinstance(item, str if kind else (str, int, float)) for item in value)
        return [fit_value(item, None) for item in value[:ITEMS_LIMIT]] if kind in (None, list) and plain else None
    if isinstance(value, str):
        return clean(value)[:TEXT_LIMIT] if kind in (None, str) else None
    if isinstance(value, (int, float)) and kind in (None, int) and not (kind and isinstance(value, (bool, float))):
        return value if abs(value) < 1e15 else str(value)[:FIELD_LIMIT]
    return None


def fit_notes(notes: Iterable[Any]) -> list[str]:
    """Notes as they are recorded."""
    return [clean(note)[:TEXT_LIMIT] for note in list(notes)[:ITEMS_LIMIT]]


def fit_area(area: str) -> str:
    """An area's name as it is recorded: a word."""
    return re.sub(r"[^\w-]+", "_", clean_name(area)).strip("_") or "main"
