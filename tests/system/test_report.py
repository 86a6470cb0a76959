"""The page of `spectral report`: its figures are those of the files, and a real browser shows it."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from spectral_shards.report.content import Chart, Gallery, Page, Section, Table
from spectral_shards.report.gather import make_page
from spectral_shards.report.page import render
from spectral_shards.train.ensemble.members import find_runs
from spectral_shards.train.ensemble.scoring import said_classes, score_ensemble
from support.browsers import chromium
from support.pictures import encode, picture
from support.programs import fails, program
from support.splits import SUB4, make_split, split_of
from support.trainings import QUICK


@pytest.fixture(scope="module")
def page(sub4: Path, runs: Path) -> Page:
    return make_page([str(sub4), str(runs)])


@pytest.fixture(scope="module")
def html(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(page), "utf-8")
    return path


def charts(section: Section) -> dict[str, Chart]:
    return {item.title: item for item in section.items if isinstance(item, Chart)}


def tables(section: Section) -> dict[str, Table]:
    return {item.title: item for item in section.items if isinstance(item, Table)}


def test_the_split(page: Page, sub4: Path) -> None:
    section = page.sections[0]
    manifest = json.loads((sub4 / "manifest.json").read_text())
    assert section.lead[0].startswith("96 images of 3 classes: 81 in train, 15 in val.")
    found = charts(section)
    (sizes,) = found["Bytes of each band"].traces
    assert sizes["y"] == [band["bytes"] / 1e6 for band in manifest["bands"]]
    assert [trace["name"] for trace in found["Energy of each band"].traces] == ["Y", "Cb", "Cr"]
    for trace in found["Coefficients of luma"].traces:
        assert sum(trace["y"]) == pytest.approx(1)
    train, val = found["Images of each class"].traces
    assert (sum(train["y"]), sum(val["y"])) == (81, 15)
    (command,) = section.commands
    assert command.startswith("spectral split photos --factor 4 ")


@pytest.mark.parametrize(
    "options",
    [
        {**SUB4, "compression": "none", "seed": 3},
        {"factor": 16, "size": 16, "margin": 4, "bands": (0, 2), "color": "rgb", "fit": "crop", "limit": 20},
        {"factor": 4, "size": 16, "dtype": "float16", "orientation": "exif", "min_class_images": 26},
        {"factor": 4, "size": 16, "quant_step": 4.0, "samples_per_shard": 24, "compression": "auto"},
        {"factor": 4, "size": 16, "quant_step": 3.25, "chroma_quant_step": 3.25},
        {"factor": 1, "size": 16, "val_per_class": 0},
    ],
)
def test_the_command_of_a_split_makes_the_same(options: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    split = make_split(photos, tmp_path / "a split", **options)
    (command,) = make_page([str(split)]).sections[0].commands
    done = program(*shlex.split(command), "--out", tmp_path / "again", cwd=photos.parent)
    assert done.returncode == 0, done.stderr
    assert split_of(tmp_path / "again") == split_of(split)


def test_the_command_names_the_columns_of_a_parquet_source(tmp_path: Path) -> None:
    images = [encode(picture(seed, 20, 20)) for seed in range(12)]
    columns = {"image": images[:6], "other": images[6:], "label": [0, 1] * 3, "kind": ["a", "b", "c"] * 2}
    (tmp_path / "set").mkdir()
    parquet.write_table(pa.table(columns), tmp_path / "set" / "train.parquet")
    options = ("--factor", "4", "--size", "16", "--val-per-class", "0")
    named = ("--image-column", "other", "--label-column", "kind")
    done = program("spectral", "split", tmp_path / "set", *options, *named, "--out", tmp_path / "sub4")
    assert done.returncode == 0, done.stderr
    (command,) = make_page([str(tmp_path / "sub4")]).sections[0].commands
    again = program(*shlex.split(command), "--out", tmp_path / "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert split_of(tmp_path / "again") == split_of(tmp_path / "sub4")


def test_rejects_stand_with_their_reasons(photos: Path, tmp_path: Path) -> None:
    source = shutil.copytree(photos, tmp_path / "photos")
    (source / "ant" / "broken.JPEG").write_bytes(b"\xff\xd8 no image")
    split = make_split(source, tmp_path / "sub4", factor=4, size=16)
    found = tables(make_page([str(split)]).sections[0])["Rejects"]
    assert [row[1] for row in found.rows] == ["1"]


def test_the_runs(page: Page, runs: Path) -> None:
    section = page.sections[1]
    assert section.lead == ("4 runs, 4 finished.",)
    assert section.members == ("00", "01", "02", "03")
    found = charts(section)
    assert set(found) == {
        "Loss of the steps",
        "Accuracy on val",
        "Accuracy on the samples of an epoch",
        "Loss on val",
        "Learning rate",
        "Speed",
        "Waiting for data",
    }
    for name, trace in zip(section.members, found["Accuracy on val"].traces, strict=True):
        lines = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
        assert (trace["name"], list(trace["y"])) == (name, [line["val_top1"] for line in lines])
        assert len(found["Accuracy on val"].table.rows) == 4 * len(lines)


def test_the_command_of_a_run_trains_the_same(page: Page, runs: Path, tmp_path: Path) -> None:
    command = next(each for each in page.sections[1].commands if " --bands 2 " in each)
    done = program(*shlex.split(command), "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    again, first = (folder / "02" / "val-logits.npy" for folder in (tmp_path, runs))
    assert again.read_bytes() == first.read_bytes()


def test_the_command_of_repeats_trains_all_of_them(sub4: Path, photos: Path, tmp_path: Path) -> None:
    coarse = make_split(photos, tmp_path / "coarse", **{**SUB4, "quant_step": 9.0})  # the same images, in other steps
    out = tmp_path / "my runs"
    trained = ("spectral-train", "--bands", "0+3x2", *QUICK, "--epochs", "1", "--seed", "4", "--out", out)
    done = program(*trained, "--shards", sub4)
    assert done.returncode == 0, done.stderr
    (command,) = make_page([str(coarse), str(sub4), str(coarse), str(out)]).sections[-2].commands
    assert command.startswith(f"spectral train --shards {sub4} --bands 0+3x2 ")
    same = program(*shlex.split(command))
    assert same.stdout.count("is finished: top-1") == 2, same.stderr
    again = program(*shlex.split(command), "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    for name in ("00+03", "00+03x2"):
        logits = [(folder / name / "val-logits.npy").read_bytes() for folder in (out, tmp_path / "again")]
        assert logits[0] == logits[1]
    (missing,) = make_page([str(coarse), str(out)]).sections[-2].commands
    assert missing.startswith("spectral train --shards SPLIT --bands 0+3x2 ")
    (tmp_path / "moved").mkdir()
    (out / "00+03").rename(tmp_path / "moved" / "00+03x9")  # a name that its seed of 4 cannot have
    (moved,) = make_page([str(tmp_path / "moved")]).sections[0].commands
    assert " --bands 0+3 " in moved
    assert " --seed 4 " in moved


def test_the_ensemble(page: Page, runs: Path, tmp_path: Path) -> None:
    report = json.loads(program("spectral", "ensemble", runs, "--out", tmp_path, "--json").stdout)
    section = page.sections[2]
    fused = next(score for score in report["rules"] if score["rule"] == report["default"])
    assert f"top-1 {fused['top1']:.2%}" in section.lead[0]
    found = charts(section)
    curve = found["Accuracy by the number of members"].traces[0]
    assert curve["y"] == [point["top1"] for point in report["curve"]]
    gains = {entry["name"]: 100 * (entry["fused"] - entry["best"]) for entry in report["classes"]}
    (bars,) = found["What fusing gains in each class"].traces
    assert dict(zip(bars["x"], bars["y"], strict=True)) == pytest.approx(gains)
    found_tables = tables(section)
    assert [row[1] for row in found_tables["What it gives, and costs"].rows][-1] == f"{fused['top1']:.2%}"
    assert len(found_tables["Ways to fuse"].rows) == len(report["rules"])
    wrong = [int(row[2]) for row in found_tables["Most confused"].rows] if "Most confused" in found_tables else []
    assert sum(wrong) == round(15 * (1 - fused["top1"]))
    galleries = [item for item in section.items if isinstance(item, Gallery)]
    assert [len(gallery.pictures) for gallery in galleries] == [min(count, 4) for count in wrong]


@pytest.mark.parametrize("rank_on", ["halves", "val", "train"])
def test_what_is_said_is_what_the_accuracy_is_of(rank_on: str, runs: Path) -> None:
    found = find_runs(runs)
    report = score_ensemble(found, rank_on)
    assert (said_classes(found, report) == found[0].val.labels).mean() == report.default.top1


def test_what_is_under_way_is_shown(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs, tmp_path / "runs")
    (copy / "01" / "run.json").unlink()
    text = (copy / "01" / "metrics.jsonl").read_text()
    (copy / "01" / "metrics.jsonl").write_text(text[: len(text) // 2 + 40])  # ends within a line
    steps = (copy / "01" / "steps.jsonl").read_text().splitlines()
    (copy / "01" / "steps.jsonl").write_text("\n".join([*steps, steps[-1].replace('"loss": ', '"loss": NaN, "was": ')]))
    for name in ("02", "03"):
        shutil.rmtree(copy / name)
    page = make_page([str(copy)])
    assert "NaN" not in render(page).partition('id="charts"')[2]
    sections = page.sections
    assert [section.title for section in sections] == ["The runs"]
    assert len(charts(sections[0])["Loss of the steps"].traces[1]["x"]) == len(steps)
    assert sections[0].lead == ("2 runs, 1 finished.", "The others are shown as far as they are.")
    assert [row[-1] for row in tables(sections[0])[""].rows] == ["finished", "under way"]


def test_runs_that_do_not_belong_together_are_a_sentence(runs: Path, photos: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs, tmp_path / "runs")
    (copy / "02" / "val-logits.npy").write_bytes(b"")
    section = make_page([str(copy)]).sections[-1]
    assert section.lead[0].startswith("The runs are not fused: ")
    assert not section.items


def test_the_program(sub4: Path, runs: Path, tmp_path: Path) -> None:
    done = program("spectral", "report", sub4, runs, "--out", tmp_path / "new" / "page.html")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r".*/new/page\.html: \d\.\d MB, open it in a browser\n", done.stdout)
    again = program("spectral", "report", sub4, runs, "--out", tmp_path / "again.html")
    assert again.returncode == 0
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "new" / "page.html").read_bytes()
    assert "is neither a split nor a folder of runs" in fails("spectral", "report", tmp_path)
    assert "is one band" in fails("spectral", "report", sub4 / "01")
    assert "nowhere/run.json does not exist" in fails("spectral", "report", sub4, "--baseline", tmp_path / "nowhere")
    assert "cannot write /proc/page.html" in fails("spectral", "report", sub4, "--out", "/proc/page.html")


def test_names_cannot_break_the_page() -> None:
    evil = '</script><b>&"'
    section = Section(evil, (evil,), (Table((evil,), ((evil,),), evil),), (evil, "x"), (evil,))
    chart = Chart(evil, ({"type": "bar", "name": evil, "x": [evil], "y": [1]},), (evil, evil), Table((evil,), ()))
    text = render(Page(evil, (section, Section("b", items=(chart,)))))
    own = text[: text.index("<script>")] + text[text.index('<script type="application/json"') :]
    assert "<b>" not in own
    assert own.count("</script>") == 2


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("dark", 390)])
def test_a_browser_shows_it(browser: Any, html: Path, page: Page, scheme: str, width: int) -> None:
    view = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    said: list[str] = []
    asked: list[str] = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(html.as_uri())
    count = sum(isinstance(item, Chart) for section in page.sections for item in section.items)
    view.wait_for_function(f"document.querySelectorAll('.chart .plotly .main-svg').length >= {count}")
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert view.evaluate("document.documentElement.scrollWidth") <= width  # nothing is cut off on a phone
    assert view.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    ink = view.evaluate("getComputedStyle(document.querySelector('.chart text')).fill")
    assert ink == view.evaluate("getComputedStyle(document.body).color")
    drawn = "document.querySelector('#section-1 .chart').querySelectorAll('.scatterlayer .trace').length"
    assert view.evaluate(drawn) == 4
    view.click("button[data-member='02']")
    view.wait_for_function(f"{drawn} === 3")
    view.click("button[data-member='02']")
    view.wait_for_function(f"{drawn} === 4")
    view.click("details summary")
    assert view.is_visible("details[open] table")
    view.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
    view.wait_for_function(f"getComputedStyle(document.querySelector('.chart text')).fill !== '{ink}'")
    assert said == []
    view.close()
