"""The installed programs, run as a user does."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support import warm_start

LOAD_TORCH = ("train", "ensemble", "report")  # of `spectral`


def program(
    *arguments: str | Path, env: Mapping[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run an installed program as a user does; `env` is added to the environment."""
    name, *rest = map(str, arguments)
    environment = {**os.environ, **(env or {})}
    command = rest[0] if name == "spectral" and rest else name.removeprefix("spectral-")
    path = Path(sys.executable).with_name(name)
    if command in LOAD_TORCH and not options.keys() - {"cwd"}:
        return warm_start.run([str(path), *rest], environment, options.get("cwd"), 300)
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [str(path), *rest], capture_output=True, text=True, timeout=300, env=environment, **options
    )


def fails(*arguments: str | Path, **options: object) -> str:
    """Run a program that must refuse: exit code 2, one sentence, no traceback. Returns the sentence."""
    done = program(*arguments, **options)
    lines = [line for line in done.stderr.splitlines() if line and "|" not in line and not line.startswith("Usage")]
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    sentence = lines[-1]
    assert sentence.startswith("Error: "), done.stderr
    return sentence
