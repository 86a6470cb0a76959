"""Progress on terminals and in logs."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
from collections.abc import Iterator

import pytest

from spectral_shards.shards_manifest.runtime import progress
from spectral_shards.shards_manifest.runtime.cli_runner import human_seconds
from spectral_shards.shards_manifest.runtime.progress import ProgressLine

END = "<end>"


class Terminal:
    """A terminal of some columns; `text` is what was written on it."""

    def __init__(self, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(theirs, "w")

    def text(self) -> str:
        self.stream.write(END)  # what is written arrives a little later, and in pieces
        self.stream.flush()
        found = b""
        while not found.endswith(END.encode()):
            found += os.read(self._ours, 1_000_000)
        return found.decode().removesuffix(END)

    def close(self) -> None:
        self.stream.close()
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    found = Terminal(40)
    yield found
    found.close()


def test_a_log_gets_whole_lines_now_and_then() -> None:
    log = io.StringIO()
    with ProgressLine("split to sub4", "images", 1000, interval=0, stream=log) as line:
        line.skip(400)
        line(100, "2 rejects")
        line(500)
    assert re.fullmatch(
        r"split to sub4: 500 of 1000 images, [\d.e+]+ images/s, \d\d:\d\d left, 2 rejects\n", log.getvalue()
    )


def test_what_an_earlier_run_did_is_not_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    log, clock = io.StringIO(), iter([0.0, 10.0, 10.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    line = ProgressLine("epoch 3", "steps", 100, done=40, interval=1, stream=log)
    line(20, "loss 2.100")
    assert log.getvalue() == "epoch 3: 60 of 100 steps, 2 steps/s, 00:20 left, loss 2.100\n"


def test_stages_are_named_in_a_log() -> None:
    log = io.StringIO()
    with ProgressLine("fuse", interval=0, stream=log) as line:
        line.stage("ranking the members")
    assert log.getvalue() == "fuse: ranking the members\n"


def test_a_quick_command_says_nothing(terminal: Terminal) -> None:
    log = io.StringIO()
    for stream in (log, terminal.stream):
        with ProgressLine("verify sub4", "shards", 10, stream=stream) as line:
            line(10)
            line.stage("reading")
    assert (log.getvalue(), terminal.text().strip()) == ("", "")


@pytest.mark.parametrize("quiet", [True, False])
def test_a_terminal_gets_one_line_that_fits_and_goes(
    quiet: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)
    label = "verify s3://bucket/sub4"
    with ProgressLine(label, "shards", 10, quiet=quiet, stream=terminal.stream) as line:
        line(5, "3 rejects, 1.2 GB written")
        line.stage("reading what 00+01+02+03-image says, 1 of 4")
    text = terminal.text()
    assert "\n" not in text.rstrip()
    drawn = [each.rstrip() for each in re.split(r"\r", text)]
    assert all(len(each) <= 40 for each in drawn)
    assert any(each.startswith(label) for each in drawn) is not quiet
    assert drawn[-1] == ""  # the line is empty again
    assert "\x1b[3" not in text  # no colours


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (43.2, "43 s"),
        (59.6, "1 min"),
        (725, "12 min 5 s"),
        (3599.7, "1 h"),
        (72180, "20 h 3 min"),
        (86399, "1 d"),
        (270_000, "3 d 3 h"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text
