"""Tests of files that are whole or not there, and of folders that are gone when nobody uses them any more."""

import os
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from nightly.files import scratch_folder, sweep, write_whole
from nightly.outcomes import NightlyError
from nightly.targets import Tool, check_python, works

CHECKOUT = Path(__file__).resolve().parent.parent


class TestWriteWhole(unittest.TestCase):
    """A file in a folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.file = self.folder / "page.html"

    def test_file_is_replaced_as_a_whole(self):
        """A file is written, then replaced; the former one stays where the new one cannot be finished; nothing is left beside it."""
        write_whole(self.file, "former \udce9")
        self.assertEqual(self.file.read_text(), "former \\udce9")
        for broken in ("fsync", "replace"):
            with self.subTest(broken=broken), mock.patch(f"nightly.files.os.{broken}", side_effect=OSError(28, "No space left on device")):
                with self.assertRaises(OSError):
                    write_whole(self.file, "new")
                self.assertEqual(self.file.read_text(), "former \\udce9")
        write_whole(self.file, b"new")
        self.assertEqual((self.file.read_text(), os.listdir(self.folder)), ("new", ["page.html"]))

    def test_link_stays_a_link(self):
        """What a link names is replaced, not the link."""
        (self.folder / "link").symlink_to(self.file)
        for content in ("first", "second"):
            write_whole(self.folder / "link", content)
        self.assertEqual((self.file.read_text(), (self.folder / "link").is_symlink()), ("second", True))

    def test_what_is_no_file_is_written_to(self):
        """A pipe behind /dev/stdout gets the content, and a device stays what it is."""
        script = "from pathlib import Path; from nightly.files import write_whole; write_whole(Path('/dev/stdout'), 'page')"
        done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True)
        self.assertEqual((done.stdout, done.stderr), ("page", ""))
        write_whole(Path(os.devnull), "nothing")
        self.assertFalse(Path(os.devnull).is_file())

    def test_mode_is_that_of_any_new_file(self):
        """The file can be read by whom the umask says."""
        write_whole(self.file, "x")
        (self.folder / "plain").write_text("x")
        self.assertEqual(self.file.stat().st_mode, (self.folder / "plain").stat().st_mode)

    def test_mode_stays_that_of_the_former_file(self):
        """A page that a web server may read can be read after it is replaced, whatever the umask; one that it may not stays private."""
        for mode in (0o644, 0o600):
            write_whole(self.file, "former")
            self.file.chmod(mode)
            before = os.umask(0o077 if mode == 0o644 else 0)
            self.addCleanup(os.umask, before)
            write_whole(self.file, "new")
            with self.subTest(mode=oct(mode)):
                self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), mode)

    @unittest.skipIf(os.geteuid(), "files of other users (root alone makes them)")
    def test_owner_stays_that_of_the_former_file(self):
        """A private page of another user's can still be read by that user after root has replaced it."""
        write_whole(self.file, "former")
        self.file.chmod(0o600)
        os.chown(self.file, 12345, 23456)
        write_whole(self.file, "new")
        now = self.file.stat()
        self.assertEqual((now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)), (12345, 23456, 0o600))


class TestScratchFolder(unittest.TestCase):
    """Folders for temporary files, in a folder of their own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def leave(self):
        """A folder as a process that is killed leaves it."""
        code = "import os, sys; from nightly.files import scratch_folder\nwith scratch_folder(sys.argv[1], 'x-'): os._exit(0)"
        subprocess.run([sys.executable, "-c", code, str(self.folder)], cwd=CHECKOUT, check=True)
        (left,) = (path.parent for path in self.folder.glob("x-*/*") if not path.parent.is_symlink())
        (left / "part").mkdir()
        return left

    def test_folder_of_a_dead_process_is_removed_where_one_is_made(self):
        """What a killed process left is gone; the new folder is gone when it is no longer used, and what is in it."""
        left = self.leave()
        with scratch_folder(self.folder, "x-") as place:
            (place / "part").mkdir()
            self.assertEqual((left.exists(), list(self.folder.iterdir())), (False, [place]))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_folder_is_gone_whatever_lies_in_it(self):
        """A folder that its user may not enter any more is removed, too."""
        self.folder.chmod(0o777)
        code = "import os, sys; from nightly.files import scratch_folder; os.geteuid() or os.seteuid(12345)\n"
        code += "with scratch_folder(sys.argv[1], 'x-') as place: (place / 'a' / 'b').mkdir(parents=True); (place / 'a').chmod(0)"
        subprocess.run([sys.executable, "-c", code, str(self.folder)], cwd=CHECKOUT, check=True)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_folder_that_cannot_be_made_is_one_line(self):
        """It is the folder for temporary files, and not what was to be run, that is at fault: no environment is taken for a broken one."""
        with mock.patch("tempfile.mkdtemp", side_effect=OSError(28, "No space left on device")):
            for ask in (check_python, works):
                with (
                    self.subTest(ask=ask.__name__),
                    self.assertRaisesRegex(NightlyError, "^no folder for temporary files .*: No space left"),
                ):
                    ask(Tool(), sys.executable)

    def test_folder_that_is_used_stays(self):
        """A folder is not taken for a dead one, neither by this process nor by another."""
        with scratch_folder(self.folder, "x-") as one, scratch_folder(self.folder, "x-") as other:
            code = "import sys; from nightly.files import sweep; sweep(sys.argv[1], 'x-')"
            subprocess.run([sys.executable, "-c", code, str(self.folder)], cwd=CHECKOUT, check=True)
            self.assertTrue(one.exists() and other.exists(), list(self.folder.iterdir()))

    def test_what_is_no_scratch_folder_stays(self):
        """Folders and files of others are left alone, whatever they are called, and so is a folder that somebody else owns."""
        (self.folder / "x-notes").mkdir()
        (self.folder / "x-file").touch()
        self.leave().rename(self.folder / "y-other")
        (self.folder / "x-link").symlink_to("y-other")
        if os.getuid() == 0:
            os.chown(self.leave(), 12345, 12345)
        before = sorted(self.folder.iterdir())
        sweep(self.folder, "x-")
        self.assertEqual(sorted(self.folder.iterdir()), before)


if __name__ == "__main__":
    unittest.main()
