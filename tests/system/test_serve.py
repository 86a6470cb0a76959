"""examples/serve.py: the exported model behind a web page, asked as a browser asks."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.browsers import chromium
from support.programs import fails, program
from support.splits import ROOT


@pytest.fixture(scope="module")
def model(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "photos.pt2"
    command = ("spectral", "ensemble", runs, "--out", path.parent, "--rule", "mean", "--quiet")
    done = program(*command, "--export", path, "--export-members")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    command = [sys.executable, str(ROOT / "examples" / "serve.py"), str(model), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[1]
        finally:
            server.kill()


def asked(address: str, body: bytes) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}/classify", body, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_what_it_says_is_what_the_model_says(address: str, model: Path, photos: Path) -> None:
    from PIL import Image

    path = next(photos.glob("bee/*"))
    found = asked(address, path.read_bytes())
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB")).transpose(2, 0, 1)[None].copy())
    extra = {"spectral.json": ""}
    fused, members = torch.export.load(str(model), extra_files=extra).module()(pixels)
    about = json.loads(extra["spectral.json"])
    assert (about["says_members"], about["classes"]) == (True, ["ant", "bee", "cat"])
    assert members.shape == (1, 4, 3)
    assert torch.allclose(members.mean(1).log_softmax(1), fused, atol=1e-5)  # the rule mean
    assert [member["name"] for member in found["members"]] == ["00", "01", "02", "03"]
    for said, wanted in (
        (found["fused"], fused[0]),
        *zip((m["said"] for m in found["members"]), members[0], strict=True),
    ):
        shown = {each["class"]: each["probability"] for each in said}
        assert sum(shown.values()) == pytest.approx(1, abs=1e-4)
        assert list(shown.values()) == sorted(shown.values(), reverse=True)
        for name, value in zip(about["classes"], wanted.exp().tolist(), strict=True):
            assert shown[name] == pytest.approx(value, abs=1e-5)


def test_what_is_no_image_is_a_sentence(address: str) -> None:
    for body in (b"no image", b""):
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(address, body)
        assert refused.value.code == 400
        assert "error" in json.load(refused.value)


def test_a_photograph_in_a_browser(address: str, photos: Path, tmp_path: Path) -> None:
    with chromium() as browser:
        view = browser.new_page()
        said: list[str] = []
        view.on("pageerror", lambda error: said.append(str(error)))
        view.goto(address)
        view.set_input_files("#file", str(next(photos.glob("cat/*"))))
        view.wait_for_selector("#members .bar")
        assert view.locator("#fused .bar").count() == 3
        assert view.locator("#members h3").all_inner_texts() == ["00", "01", "02", "03"]
        (tmp_path / "text.jpg").write_text("no image")
        view.set_input_files("#file", str(tmp_path / "text.jpg"))
        view.wait_for_function("document.querySelector('#problem').textContent.includes('not an image')")
        assert view.locator("#members .bar").count() == 0
        assert said == []


def test_the_other_example_takes_such_a_model_too(model: Path, photos: Path) -> None:
    path = next(photos.glob("bee/*"))
    done = program("python", ROOT / "examples" / "classify.py", model, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}  ")


def test_members_are_exported_with_the_model_alone(runs: Path) -> None:
    assert "--export-members belongs to --export" in fails("spectral", "ensemble", runs, "--export-members")
