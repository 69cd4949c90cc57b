"""What everybody who types commands meets: pipes that close, terminals, misspellings, signals, advice on installing."""

from __future__ import annotations

import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from eigenlens import command, install
from eigenlens.command import main
from eigenlens.model.config import load_config
from eigenlens.model.errors import ConfigError
from eigenlens.service.commands import doctor
from eigenlens.service.errors import SettingsError
from eigenlens.service.settings import load_settings
from eigenlens.system_errors import describe
from tests.support.service import build_gallery, database_of

EIGENLENS = [sys.executable, "-m", "eigenlens"]
SLOW = """import sys, time
from eigenlens import command

def configure(parser):
    pass

def run(args):
    print("ready", flush=True)
    time.sleep(30)

if __name__ == "__main__":
    sys.modules["slow"] = sys.modules["__main__"]
    command.COMMANDS["slow"] = ("slow", "wait")
    sys.exit(command.main(["slow"]))
"""


def test_a_closed_pipe_ends_a_command_in_silence() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*EIGENLENS, "--help"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_terminal_without_utf_8_shows_what_it_can() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*EIGENLENS, "schön"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no command 'sch\\xf6n'" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["biuld"], "there is no command 'biuld'; did you mean build?"),
        (["search", "--lenght", "8"], "did you mean --length?"),
        (["search", "x.jpg", "--length", "banana"], "'banana' is not a number of coordinates such as 16, nor auto"),
        (["search", "x.jpg", "--rerank", "banana"], "nor full or none"),
    ],
)
def test_a_misspelling_is_told_what_was_meant(
    capsys: pytest.CaptureFixture[str], words: Sequence[str], says: str
) -> None:
    try:
        status = main(words)
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stpes=5", "stpes is no key of the configuration; did you mean steps?"),
        ("augmentation.flp=1", "did you mean augmentation.flip?"),
        ("zzz=1", "there are seed, "),
    ],
)
def test_a_wrong_key_of_the_configuration(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
        load_config(None, [override])


def test_a_wrong_setting_says_what_was_given_and_what_would_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as told:
        load_settings(gallery="g", port="80000")
    assert str(told.value) == "wrong settings: port: '80000' should be less than or equal to 65535"
    with pytest.raises(SettingsError, match="gallery is missing: give --gallery or EIGENLENS_GALLERY"):
        load_settings()
    monkeypatch.setenv("EIGENLENS_PROT", "1")
    with pytest.raises(SettingsError, match=r"did you mean EIGENLENS_PORT\?"):
        load_settings(gallery="g")


def test_a_build_without_an_encoder_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--gallery", str(tmp_path / "g"), "--images", str(tmp_path)]) == 1
    assert "give --encoder; `eigenlens fit --images FOLDER --out ENCODER` makes one" in capsys.readouterr().err


def test_advice_on_installing_works_for_a_checkout_and_for_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(command.__file__).resolve().parents[1]
    assert install.install_line("cpu", "train") == f"pip install -e '{root}[cpu,train]'"
    monkeypatch.setattr(install, "__file__", str(tmp_path / "site-packages" / "eigenlens" / "install.py"))
    monkeypatch.setattr(install, "_origin", lambda: "file:///w/eigenlens-0.1.0-py3-none-any.whl")
    assert install.install_line("cpu") == "pip install 'eigenlens[cpu] @ file:///w/eigenlens-0.1.0-py3-none-any.whl'"


def test_errors_of_the_system_are_sentences(tmp_path: Path) -> None:
    assert "the disk is full at /g/a" in describe(OSError(errno.ENOSPC, "No space left", "/g/a"))
    assert "read-only" in describe(OSError(errno.EROFS, "Read-only file system", "/g"))
    (tmp_path / "x").write_bytes(b"no database" * 100)
    connection = sqlite3.connect(tmp_path / "x")
    with pytest.raises(sqlite3.Error) as damaged:
        connection.execute("SELECT * FROM images")
    connection.close()
    assert "is damaged" in describe(damaged.value)
    with (
        closing(sqlite3.connect(tmp_path / "y")) as holder,
        closing(sqlite3.connect(tmp_path / "y", timeout=0)) as other,
    ):
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as busy:
            other.execute("BEGIN IMMEDIATE")
    assert describe(busy.value).startswith("another process holds the file for too long; ")


def test_a_command_that_an_error_of_the_system_ends_says_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/g/a")

    monkeypatch.setattr(doctor, "run", fill)
    assert main(["doctor"]) == 1
    assert re.fullmatch("eigenlens: error: the disk is full at /g/a.*\n", capsys.readouterr().err)


def test_a_command_ends_at_sigterm_as_process_1(tmp_path: Path) -> None:
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system makes no namespaces of processes")
    (tmp_path / "slow.py").write_text(SLOW)
    with subprocess.Popen([*unshare, sys.executable, str(tmp_path / "slow.py")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        os.kill(int(child), signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=10) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 5


def test_the_doctor_tells_what_is_there_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = build_gallery(tmp_path, count=6)
    assert main(["doctor", "--gallery", str(gallery.root)]) == 0
    told = capsys.readouterr().out
    for words in ("extra cpu: installed", "processors", "GiB free", "6 images", "generation 1 is whole", "no problem"):
        assert words in told
    (gallery.generation_path(1) / "manifest.json").write_text("{}")
    assert main(["doctor", "--gallery", str(gallery.root)]) == 1
    assert "\n! no generation of" in capsys.readouterr().out


@pytest.mark.parametrize("first", [2, 1], ids=["some pages", "nearly all"])
def test_the_doctor_tells_of_a_damaged_database_after_all_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: int
) -> None:
    gallery = build_gallery(tmp_path, count=6)
    database_of(gallery).query("PRAGMA wal_checkpoint(TRUNCATE)")
    page_bytes = database_of(gallery).query("PRAGMA page_size")[0][0]
    gallery.store.close()
    database = gallery.root / "gallery.sqlite"
    data = bytearray(database.read_bytes())
    data[first * page_bytes :] = b"\xa5" * (len(data) - first * page_bytes)
    database.write_bytes(data)
    assert main(["doctor", "--gallery", str(gallery.root)]) == 1
    report, problems = capsys.readouterr()
    assert "extra cpu: installed" in report
    assert "is damaged" in next(line for line in report.splitlines() if line.startswith("! "))
    assert (report.splitlines()[-1], problems) == ("1 problem", "")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("se", "serve search"),
        ("search --le", "--length"),
        ("keys --sc", ""),
        ("restore --gal", "--gallery"),
        ("none --", ""),
    ],
)
def test_the_shell_completes_commands_and_options(
    words: str, completed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    program = (
        capsys.readouterr().out
        + f"""
COMP_WORDS=(eigenlens {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _eigenlens; echo "${{COMPREPLY[@]}}"
"""
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (completed, "")


def test_a_command_that_is_told_to_end_cleans_up_and_takes_nothing_else_apart(tmp_path: Path) -> None:
    """The end of `train` took two seconds, most of them to free what torch had loaded."""
    (tmp_path / "waits.py").write_text(
        """
import atexit, os, signal

class Large:
    def __del__(self):
        os.write(1, b"taken apart\\n")

large = Large()

def configure(parser):
    pass

def run(args):
    atexit.register(lambda: print("cleaned up"))
    print("told", end=" ")
    os.kill(os.getpid(), signal.SIGTERM)
"""
    )
    program = "from eigenlens import command; command.COMMANDS['waits'] = ('waits', 'wait'); command.main(['waits'])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "told cleaned up\n", "")
