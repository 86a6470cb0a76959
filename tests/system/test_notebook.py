"""examples/ensemble.ipynb runs from its first cell to its last, with short trainings, and is kept without outputs."""

import os
from pathlib import Path

import pytest

from support.splits import ROOT

NOTEBOOK = ROOT / "examples" / "ensemble.ipynb"


@pytest.mark.slow
def test_the_notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("skimage")
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))
    notebook = nbformat.read(NOTEBOOK, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    for cell in code:
        cell.source = cell.source.replace("--epochs 10", "--epochs 1")
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT / "examples")}}).execute()
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 4
    said = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "fused " in said
    assert "Error" not in said
