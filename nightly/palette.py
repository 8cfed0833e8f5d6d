"""What an outcome looks like on the page: a sign of its own, and colours of which any two can be told apart without seeing hue.

A cell has a fill, an edge and, where it is striped, stripes. On a light page each of these is light, middling or dark, on a dark
page dark, middling or light; two such levels have a contrast of at least 3 to 1 (WCAG 2, 1.4.11). Any two outcomes differ by
that in the fill, the edge or the stripes, so that neighbours in a grid, whichever they are, are seen as two.
"""

from typing import NamedTuple


class Look(NamedTuple):
    """The colours of a cell; ``stripe`` is the fill where it has no stripes."""

    fill: str
    edge: str
    stripe: str
    ink: str


#: Outcome -> (CSS class, sign, look on a light page, look on a dark page).
LOOKS: dict[str, tuple[str, str, Look, Look]] = {
    "pass": ("p", "·", Look("#dff2df", "#dff2df", "#dff2df", "#14511a"), Look("#14301f", "#14301f", "#14301f", "#a6dcae")),
    "expected failure": ("x", "x", Look("#e9f0fc", "#4a76c4", "#e9f0fc", "#173a75"), Look("#18233a", "#5580c8", "#18233a", "#b9d0fb")),
    "defect gone": ("d", "+", Look("#c0478a", "#c0478a", "#c0478a", "#ffffff"), Look("#c0478a", "#c0478a", "#c0478a", "#ffffff")),
    "skip": ("s", "-", Look("#f4f4f4", "#f4f4f4", "#868686", "#000000"), Look("#1f2226", "#1f2226", "#757575", "#ffffff")),
    "flaky": ("k", "~", Look("#fff3d6", "#b0770c", "#b0770c", "#000000"), Look("#2b2210", "#b0770c", "#946309", "#ffffff")),
    "unexpected success": ("u", "!", Look("#c0478a", "#33001c", "#c0478a", "#ffffff"), Look("#c0478a", "#ffe3f1", "#c0478a", "#ffffff")),
    "fail": ("f", "F", Look("#d32f2f", "#ffffff", "#d32f2f", "#ffffff"), Look("#d53a34", "#14171c", "#d53a34", "#ffffff")),
    "error": ("e", "E", Look("#3d0a00", "#d2601a", "#3d0a00", "#ffffff"), Look("#ffe2d6", "#c9560f", "#ffe2d6", "#3d0a00")),
    "crash": ("c", "C", Look("#000000", "#000000", "#000000", "#ffffff"), Look("#ffffff", "#ffffff", "#ffffff", "#000000")),
    "timeout": ("t", "T", Look("#ffffff", "#2c0a52", "#ffffff", "#2c0a52"), Look("#14171c", "#ecdcff", "#14171c", "#ecdcff")),
    "not run": ("n", "?", Look("#ffffff", "#1a1a1a", "#868686", "#000000"), Look("#14171c", "#f0f0f0", "#757575", "#ffffff")),
}
#: What the grid shows where a test was not there.
ABSENT = ("o", " ")


def sign_of(outcome: str | None) -> tuple[str, str]:
    """The CSS class and the sign of an outcome (None: the test was not there)."""
    return LOOKS[outcome][:2] if outcome in LOOKS else ABSENT


def style(theme: str) -> str:
    """CSS rules that give each outcome's class its colours, as custom properties."""
    rules = []
    for css_class, _, light, dark in LOOKS.values():
        look = light if theme == "light" else dark
        rules.append(f".{css_class}{{--fill:{look.fill};--edge:{look.edge};--stripe:{look.stripe};--ink:{look.ink}}}")
    return "".join(rules)
