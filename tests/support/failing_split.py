"""spectral-prep in which something fails in the process that leads, where FAIL_AT says."""

import os
from typing import Any

from spectral_shards.preprocess.cli import main
from spectral_shards.preprocess.split import job as run
from spectral_shards.preprocess.split.progress import SplitProgress


def fail(*_: Any, **__: Any) -> Any:
    bug = os.environ["FAIL_AT"].endswith("bug")
    raise ZeroDivisionError("a bug") if bug else OSError(28, "No space left on device")


def ended(*_: Any, **__: Any) -> Any:
    raise SystemExit(3)


if __name__ == "__main__":
    match os.environ["FAIL_AT"]:
        case "progress bug" | "progress":
            SplitProgress.__call__ = fail  # type: ignore[method-assign]
        case "exit":
            SplitProgress.__call__ = ended  # type: ignore[method-assign]
        case "manifests":
            run.write_manifests = fail  # type: ignore[attr-defined]
        case "scan bug":
            run.choose_classes = fail  # type: ignore[attr-defined]
    main()
