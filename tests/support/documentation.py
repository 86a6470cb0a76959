"""The code blocks of the documentation, and how a test runs them.

A comment in the line before a block says how it is checked; a block without one is run as it is.

    <!-- small -->              run, with options that make trainings short
    <!-- cluster: ray -->       the same, on a cluster of this machine in place of the address
    <!-- parsed: REASON -->     not run: the options of our commands are parsed, and the shell's syntax is checked

`PYTHONPATH=tests python -m support.documentation` lists them all.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click

from spectral_shards.cli import cli
from support.splits import ROOT

SHORT = ("--network", "cnn", "--recipe", "quick", "--epochs", "1", "--batch-size", "16", "--workers", "0")
SHORT += ("--resident", "off")  # what other tests have in memory would be shared
LANGUAGES = {"bash", "python", "text", "yaml"}
PARSED, SMALL, CLUSTER = "parsed", "small", "cluster"
FENCE = re.compile(r"^```(\S*)$")
MARK = re.compile(r"^<!-- (small|parsed|cluster)(?:: (.+))? -->$")

SHIM = """#!{python}
import os, sys
from spectral_shards.cli import main
program, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
if program == "spectral-train":
    arguments = ["train", *arguments]
if arguments[:1] == ["train"] and not {{"--describe", "--budget", "--evaluate"}} & set(arguments):
    arguments += {short!r}
sys.argv[1:] = arguments
main()
"""


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        line: where it begins, from 1.
        language: after the fence.
        how: small, parsed, cluster, or empty.
        why: what the comment says after that.
        code: its lines.
    """

    line: int
    language: str
    how: str
    why: str
    code: str


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page. Fails on a fence without a language, and on a comment that is no mark."""
    found: list[Block] = []
    inside: list[str] | None = None
    language, how, why, begun = "", "", "", 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if inside is not None:
            if line == "```":
                found.append(Block(begun, language, how, why, "\n".join(inside)))
                inside, how, why = None, "", ""
            else:
                inside.append(line)
        elif fence:
            language, begun, inside = fence[1], number, []
            assert language in LANGUAGES or language.startswith("{"), f"{page}:{number}: a block of what language?"
        elif mark := MARK.match(line):
            how, why = mark[1], mark[2] or ""
        elif line.strip():
            assert not how, f"{page}:{number}: {how} has to stand before a block"
    return found


def check_commands(code: str) -> int:
    """Parse the options of our commands in shell code, and its syntax. Returns how many commands there were."""
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)
    count = 0
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.partition(" | ")[0], comments=True)
        if words and (words[0] == "spectral" or words[0].startswith("spectral-")):
            parse(words)
            count += 1
    return count


def parse(words: list[str]) -> None:
    """Parse a command of ours as far as click does: names and kinds of options. Raises UsageError."""
    program, *arguments = words
    group: click.Command = cli
    if program in ("spectral-train", "spectral-ensemble"):
        arguments = [program.removeprefix("spectral-"), *arguments]
    assert isinstance(group, click.Group)
    command = group.commands[arguments[0]]
    command.make_context(arguments[0], arguments[1:])


def run_page(found: list[Block], folder: Path, environment: dict[str, str], clusters: dict[str, str]) -> list[str]:
    """Run the blocks of a page in a folder, one after another. Returns what each printed.

    Args:
        found: the blocks.
        folder: where they are run, with what the page speaks of.
        environment: variables that are added.
        clusters: the address of each kind of cluster, for blocks that name one.
    """
    shims = folder / ".small"
    shims.mkdir()
    for name in ("spectral", "spectral-train"):
        (shims / name).write_text(SHIM.format(python=sys.executable, short=list(SHORT)))
        (shims / name).chmod(0o755)
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(ROOT / "examples")
    said, python = [], ""
    run = [block for block in found if block.how != PARSED and block.language in ("bash", "python")]
    for block, following in zip(run, [*run[1:], None], strict=False):
        path = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if block.how in (SMALL, CLUSTER):
            path.insert(0, str(shims))
        code = block.code
        if block.how == CLUSTER:
            code = re.sub(r"--address \S+", f"--address {clusters[block.why]}", code)
        if block.language == "python":  # the blocks of a page are one program
            python += f"{code}\n"
            if following is not None and following.language == "python":
                continue
            command, code = [sys.executable, "-"], python
        else:
            command = ["bash", "-euo", "pipefail"]
        done = subprocess.run(
            command,
            input=code,
            cwd=folder,
            env={**os.environ, **environment, "PATH": ":".join(path)},
            text=True,
            capture_output=True,
            timeout=900,
        )
        assert done.returncode == 0, f"line {block.line}:\n{code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        said.append(done.stdout)
    return said


def main() -> None:
    """Print every block that a shell or Python could run, and how it is checked."""
    counts: Counter[str] = Counter()
    for page in (ROOT / "README.md", ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))):
        for block in blocks(page):
            if block.language not in ("bash", "python"):
                continue
            how = block.how or "run"
            counts[how] += 1
            first = block.code.splitlines()[0]
            why = f" ({block.why})" if block.why else ""
            print(f"{page.relative_to(ROOT)}:{block.line}  {block.language}  {how}{why}  {first}")
    print(", ".join(f"{count} {how}" for how, count in counts.items()))


if __name__ == "__main__":
    main()
