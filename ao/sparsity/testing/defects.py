"""The register of known defects as data: one page a root cause, ``ao/sparsity/defects/<area>/<cause>.md``.

A page has a title, a head of ``key: value`` lines, and a section for each symptom::

    # The input scale is remembered only once

    severity: wrong numbers in silence
    standing: clear
    affects you if: you run dynamic sparse layers on qnnpack
    where: torch.ao.pruning.sparsifier.base_sparsifier: BaseSparsifier.convert
    mend: store the new scale whenever it changes
    since: 2.1

    Prose, if the symptoms do not say it all.

    ## qnnpack-sparse-keeps-the-first-input-scale

    shows as: AssertionError: third result is 80

    What goes wrong, in a sentence.

    ```python
    print(1 + 1)
    ```

    ```today
    3
    ```

    ```right
    2
    ```

The name of the file is the id of the root cause, the heading of a section the id that ``@known_defect`` names. A section may
override or add any key of the head. ``CAUSE_KEYS`` and ``SYMPTOM_KEYS`` say what each key means.
"""

import dataclasses
import functools
import pathlib
import re

from ao.sparsity.testing import conditions
from ao.sparsity.testing.preflight import version_tuple

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "defects"
SEVERITIES = (
    "process killed",
    "wrong numbers in silence",
    "lost or corrupted state",
    "an error where it should work",
    "documentation",
)
CAUSE_KEYS = {
    "severity": "one of SEVERITIES",
    "standing": "`clear`, or `arguable: ` and the reason why a maintainer may say that it is as it should be",
    "affects you if": "who meets it",
    "where": "module and symbol",
    "mend": "what would mend it",
    "since": "first torch release known to have it; 2.1, the oldest validated, where nothing older was tried",
    "fixed": "first torch release without it; left out while the newest has it",
    "upstream": "addresses of issues in PyTorch's tracker; left out where none is known",
    "when": "where it is certain to show, see conditions.py; left out where that is everywhere",
    "chance": "why chance decides how, or whether, it shows (undefined behaviour); left out where it is certain",
}
SYMPTOM_KEYS = {
    **CAUSE_KEYS,
    "shows as": "the exception of the test of the right behaviour, a colon, and a regular expression found in its text; may be repeated",
}
_OPTIONAL = ("fixed", "upstream", "when", "chance")
_FENCES = ("python", "today", "right")
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


@dataclasses.dataclass(frozen=True)
class Symptom:
    """One way in which a root cause shows, with the test that asserts the right behaviour.

    Args:
        id: what is wrong, in words joined by hyphens.
        cause: id of the root cause, the name of its page.
        area: the area of the suite, the ``x`` of its ``test_x.py``.
        title: the title of the page.
        text: what goes wrong.
        keys: the values of CAUSE_KEYS that hold for it, its own before its page's.
        shows: pairs of an exception's name and a regular expression, in which a dot is any character; one for each way it shows.
        python, today, right: the reproduction, what it prints today, and what it should print.
    """

    id: str
    cause: str
    area: str
    title: str
    text: str
    keys: dict
    shows: tuple
    python: str
    today: str
    right: str

    @property
    def severity(self) -> str:
        """One of SEVERITIES."""
        return self.keys["severity"]

    @property
    def arguable(self) -> bool:
        """Whether a maintainer may say that it is as it should be."""
        return self.keys["standing"].startswith("arguable")

    @property
    def page(self) -> str:
        """The page's path below FOLDER."""
        return f"{self.area}/{self.cause}.md"

    @functools.cached_property
    def conditions(self) -> tuple:
        """Where it is certain to show, a tuple of conditions.Condition."""
        return conditions.parse(self.keys.get("when", ""))

    def known_in(self, version: tuple) -> bool:
        """Whether torch ``version`` (a tuple of numbers) is known to have the defect."""
        fixed = self.keys.get("fixed")
        return version_tuple(self.keys["since"])[:2] <= version[:2] and (fixed is None or version[:2] < version_tuple(fixed)[:2])

    def certain_here(self) -> bool:
        """Whether it must show on a torch that has it: its conditions hold, and chance plays no part."""
        return "chance" not in self.keys and all(condition.holds() for condition in self.conditions)

    def shows_as(self, error: BaseException) -> bool:
        """Whether ``error`` is a registered way in which the defect shows."""
        names = {kind.__name__ for kind in type(error).__mro__}
        return any(name in names and re.search(pattern, str(error), re.DOTALL) for name, pattern in self.shows)

    def ways(self) -> str:
        """The registered ways, for a message."""
        return " or ".join(f"{name} matching {pattern!r}" for name, pattern in self.shows)


def parse(text: str, cause: str, area: str) -> list:
    """The symptoms of one page.

    Args:
        text: the page.
        cause, area: the name of its file, and of its folder.

    Returns:
        list[Symptom]

    Raises:
        ValueError: if something is missing, unknown or no known value; the message names the page and the symptom.
    """
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    if not _ID.fullmatch(cause):
        raise ValueError(f"{area}/{cause}.md: the name of the file is not words joined by hyphens")
    title, _, rest = head.partition("\n")
    if not title.startswith("# ") or not sections:
        raise ValueError(f"{area}/{cause}.md: a page begins with `# title` and has a `## symptom` for each test")
    shared, _, _ = _keys_and_rest(rest, CAUSE_KEYS, f"{area}/{cause}.md")
    return [_symptom(section, cause, area, title[2:].strip(), shared) for section in sections]


def _keys_and_rest(text: str, known: dict, where: str) -> tuple:
    """The ``key: value`` lines that ``text`` begins with, the ways it shows, and what follows."""
    values: dict = {}
    shows: list = []
    lines = text.lstrip("\n").split("\n")
    for number, line in enumerate(lines):
        key, colon, value = line.partition(": ")
        if not colon or key not in known:
            if line.strip():
                raise ValueError(f"{where}: {line!r} is no known key; after the keys an empty line is due")
            return values, shows, "\n".join(lines[number:])
        if key in values:
            raise ValueError(f"{where}: the key {key!r} stands twice")
        if key == "shows as":
            name, _, pattern = value.partition(": ")
            shows.append((name.strip(), pattern))
        else:
            values[key] = value.strip()
    return values, shows, ""


def _symptom(section: str, cause: str, area: str, title: str, shared: dict) -> Symptom:
    name, _, rest = section.partition("\n")
    where = f"{area}/{cause}.md, {name}"
    own, shows, body = _keys_and_rest(rest, SYMPTOM_KEYS, where)
    keys = {**shared, **own}
    missing = [key for key in CAUSE_KEYS if key not in _OPTIONAL and not keys.get(key)]
    if missing or not shows:
        raise ValueError(f"{where}: there is no {', '.join(missing or ['shows as'])}")
    if not _ID.fullmatch(name) or keys["severity"] not in SEVERITIES:
        raise ValueError(f"{where}: the id is words joined by hyphens, and the severity one of {SEVERITIES}")
    if not re.fullmatch(r"clear|arguable: .+", keys["standing"]):
        raise ValueError(f"{where}: the standing is `clear` or `arguable: ` and a reason, not {keys['standing']!r}")
    conditions.parse(keys.get("when", ""))
    parts = re.split(r"^```(\w*)\n(.*?)^```$", body, flags=re.MULTILINE | re.DOTALL)
    fences = dict(zip(parts[1::3], parts[2::3]))
    if sorted(fences) != sorted(_FENCES):
        raise ValueError(f"{where}: a symptom has the fences {_FENCES}, here are {sorted(fences)}")
    prose = "\n\n".join(part.strip() for part in parts[0::3] if part.strip())
    if not prose:
        raise ValueError(f"{where}: it is not said what goes wrong")
    python, today, right = (fences[fence].rstrip("\n") for fence in _FENCES)
    if right == today:
        raise ValueError(f"{where}: what is right is what it prints today")
    return Symptom(name, cause, area, title, prose, keys, tuple(shows), python, today, right)


def load(folder: pathlib.Path = FOLDER) -> dict:
    """The symptoms on all pages, in the order of areas and pages.

    Returns:
        dict[str, Symptom]: by id.

    Raises:
        ValueError: if a page is wrong, or two symptoms, or two pages, share an id.
    """
    symptoms: dict = {}
    pages: dict[str, str] = {}
    for path in sorted(folder.glob("*/*.md")):
        if pages.setdefault(path.stem, path.parent.name) != path.parent.name:
            raise ValueError(f"two pages have the name {path.stem!r}")
        for symptom in parse(path.read_text(encoding="utf-8"), path.stem, path.parent.name):
            if symptom.id in symptoms:
                raise ValueError(f"two symptoms have the id {symptom.id!r}")
            symptoms[symptom.id] = symptom
    return symptoms
