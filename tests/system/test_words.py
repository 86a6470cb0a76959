"""One word for one thing: words that were given up stay away, in code, options, messages and documents."""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THIS = str(Path(__file__).relative_to(ROOT))
NOTE = re.compile(r"^### Names that changed$.*?(?=^##|\Z)", re.MULTILINE | re.DOTALL)  # the one place for old names

# A word of a text, or a part of an identifier such as data_waited.
WORDS = ("lane", "lanes", "judged", "held", "waited", "anew", "nobody", "granting", "apart", "tell", "tells")
WORD = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(WORDS)})(?![A-Za-z])", re.IGNORECASE)
FILE_POSITION = re.compile(r"\btell\((?:\)|self\))")  # the method of files

NAMES = {"Load", "Room", "Whole", "_Dealer"}  # of classes and functions; fine as words of a sentence

OPTIONS = ("clip", "accumulate", "shift", "remainder", "hold-out", "step")
OPTION = re.compile(rf"(?<![\w-])--(?:{'|'.join(OPTIONS)})(?![\w-])")


def old_words(name: str, text: str) -> list[str]:
    """Return the words of a file that were given up.

    Args:
        name: Path of the file, for what is special about it.
        text: What is in it.
    """
    if name == "CHANGELOG.md":
        text = NOTE.sub("", text)
    found = WORD.findall(FILE_POSITION.sub("", text)) + OPTION.findall(text)
    if name.endswith((".py", ".pyi")):
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        found += [token.string for token in tokens if token.type == tokenize.NAME and token.string in NAMES]
    return found


def test_old_words_are_gone() -> None:
    listed = subprocess.run(["git", "grep", "-I", "--name-only", ""], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    names = set(listed.stdout.splitlines()) - {THIS, "LICENSE"}
    assert len(names) > 200
    found = {name: old_words(name, (ROOT / name).read_text()) for name in sorted(names) if (ROOT / name).exists()}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.md", "Held by a test; it tells them apart.", ["Held", "tells", "apart"]),
        ("a.py", "data_waited = held_out = 0  # anew", ["waited", "held", "anew"]),
        ("a.py", "class Room(Whole): pass\nLoad()", ["Room", "Whole", "Load"]),
        ("a.py", "# Load the Whole FreeMemory", []),
        ("a.md", "--clip 1 --clip-grad 1 --step-epochs 2 --step 3 `--hold-out`", ["--clip", "--step", "--hold-out"]),
        ("a.py", "place = file.tell()\ndef tell(self): ...\ntell(done)", ["tell"]),
        ("a.py", "heldout = planes.shelled = storytell", []),
        ("CHANGELOG.md", "# A\n### Names that changed\n- --clip\n\n### More\n--shift", ["--shift"]),
        ("README.md", "### Names that changed\n--clip", ["--clip"]),
    ],
)
def test_old_words_are_found(name: str, text: str, found: list[str]) -> None:
    assert old_words(name, text) == found
