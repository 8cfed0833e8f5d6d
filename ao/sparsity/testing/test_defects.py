"""Tests of the pages of the register: what they may hold, and what makes one useless."""

import pathlib
import tempfile
import unittest

from ao.sparsity.testing import defects

PAGE = """\
# One and one are three

severity: wrong numbers in silence
standing: clear
affects you if: you add
where: torch: add
mend: count again
since: 2.1

All of arithmetic stands on it.

## sum-is-off

shows as: ArithmeticError: one too (many|few)

The sum is too large.

```python
print(1 + 1)
```

```today
3
```

```right
2
```

## sum-kills-the-process

severity: process killed
when: python < 3.14
chance: memory that was freed
shows as: ProcessDied: SIGSEGV
shows as: AssertionError: the sum is \\d

The sum of many.

```python
print(sum(range(9)))
```

```today
killed: SIGSEGV
```

```right
36
```
"""


class TestPage(unittest.TestCase):
    def test_a_section_has_the_keys_of_its_page_and_its_own(self):
        """A symptom takes from the head what its section does not say."""
        first, second = defects.parse(PAGE, "adds-wrong", "sparsifier")
        self.assertEqual((first.id, first.cause, first.area), ("sum-is-off", "adds-wrong", "sparsifier"))
        self.assertEqual((first.severity, second.severity), ("wrong numbers in silence", "process killed"))
        self.assertEqual((first.python, first.today, first.right, first.text), ("print(1 + 1)", "3", "2", "The sum is too large."))
        self.assertEqual((first.keys.get("when"), second.keys["when"]), (None, "python < 3.14"))
        self.assertEqual(first.page, "sparsifier/adds-wrong.md")

    def test_each_line_of_shows_as_is_a_way(self):
        """All registered ways count, an exception's subclasses too; no other does."""
        first, second = defects.parse(PAGE, "adds-wrong", "sparsifier")
        self.assertTrue(first.shows_as(OverflowError("one too few")))
        for error in (ArithmeticError("two too few"), ValueError("one too few")):
            self.assertFalse(first.shows_as(error), error)
        self.assertTrue(second.shows_as(type("ProcessDied", (Exception,), {})("SIGSEGV")))
        self.assertTrue(second.shows_as(AssertionError("the sum is 7")))

    def test_versions_bound_what_is_known(self):
        """A defect is known from ``since`` to before ``fixed``, whatever the last number of a version."""
        (symptom, _) = defects.parse(PAGE.replace("since: 2.1", "since: 2.5\nfixed: 2.7"), "adds-wrong", "sparsifier")
        self.assertEqual(
            [symptom.known_in(version) for version in ((2, 4, 1), (2, 5, 0), (2, 6, 3), (2, 7, 0))], [False, True, True, False]
        )

    def test_what_would_make_a_page_useless_is_refused(self):
        """The message names the page and what is wrong with it."""
        for old, new, text in (
            ("severity: wrong numbers in silence", "severity: nuisance", "severity one of"),
            ("standing: clear", "standing: arguable", "standing is"),
            ("mend: count again\n", "", "no mend"),
            ("shows as: ArithmeticError: one too (many|few)\n", "where: torch: mul\n", "no shows as"),
            ("## sum-is-off", "## Sum", "the id is words"),
            ("since: 2.1", "sinse: 2.1", "no known key"),
            ("since: 2.1", "since: 2.1\nsince: 2.2", "stands twice"),
            ("The sum is too large.\n", "", "not said what goes wrong"),
            ("```today\n3\n```\n", "", "has the fences"),
            ("```right\n2\n", "```right\n3\n", "what is right is what it prints today"),
            ("when: python < 3.14", "when: pyhton < 3.14", "no condition"),
            ("# One and one are three", "One and one are three", "begins with"),
        ):
            with self.subTest(new=new), self.assertRaisesRegex(ValueError, text):
                defects.parse(PAGE.replace(old, new), "adds-wrong", "sparsifier")
        with self.assertRaisesRegex(ValueError, "name of the file"):
            defects.parse(PAGE, "Adds", "sparsifier")

    def test_ids_are_unique_over_all_pages(self):
        """Two pages of one name, or two symptoms of one id, are refused."""
        for other in ("sparsifier/adds-too.md", "scheduler/adds-wrong.md"):
            with self.subTest(other=other), tempfile.TemporaryDirectory() as folder:
                for name in ("sparsifier/adds-wrong.md", other):
                    path = pathlib.Path(folder, name)
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(PAGE, encoding="utf-8")
                with self.assertRaisesRegex(ValueError, "two (symptoms|pages)"):
                    defects.load(pathlib.Path(folder))


if __name__ == "__main__":
    unittest.main()
