"""The documentation: every code block is run, or parsed where it needs what is not here, and the site builds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support import forms
from support.buckets import Server, environment
from support.documentation import LANGUAGES, PARSED, SHORT, blocks, check_commands, run_page
from support.programs import program
from support.splits import ROOT, make_split

GUIDE = ROOT / "docs" / "guide"
PAGES = sorted(path.name for path in GUIDE.glob("*.md"))
CLUSTERS = ("ray", "dask")


@pytest.fixture(scope="module")
def sub16(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split(photos, tmp_path_factory.mktemp("docs") / "sub16", factor=16, size=64, samples_per_shard=24)


@pytest.fixture
def stage(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Makes what a page speaks of, in tmp_path."""

    def link(name: str, fixture: str) -> None:
        (tmp_path / name).symlink_to(request.getfixturevalue(fixture))

    def runs(name: str = "sub36") -> None:
        shutil.copytree(request.getfixturevalue("runs"), tmp_path / "runs" / name)

    def imagenet1k() -> None:
        source, _ = forms.ilsvrc(request.getfixturevalue("folders"), tmp_path, "devkit")
        source.rename(tmp_path / "imagenet")

    def imagenet21k() -> None:
        random = np.random.default_rng(0)
        for wnid in ("n01440764", "n01443537"):
            folder = tmp_path / "classes" / wnid
            folder.mkdir(parents=True)
            for number in range(520):
                pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{number}.JPEG")
        (tmp_path / "imagenet21k").mkdir()
        forms.tar_of_tars(tmp_path / "classes", tmp_path / "imagenet21k" / "fall11_whole.tar")

    stages: dict[str, Callable[[], None]] = {
        "start": lambda: link("photos", "photos"),
        "buckets": lambda: link("photos", "photos"),
        "ray": lambda: link("photos", "photos"),
        "dask": lambda: link("photos", "photos"),
        "prepare": lambda: link("photos", "photos"),
        "train": lambda: link("sub4", "sub4"),
        "fuse": lambda: runs("sub4"),
        "method": lambda: link("sub4", "sub4"),
        "networks": lambda: link("sub4", "sub4"),
        "own_trainer": lambda: link("sub4", "sub4"),
        "gpus": lambda: link("sub16", "sub16"),
        "slurm": runs,
        "kubernetes": runs,
        "imagenet1k": imagenet1k,
        "imagenet21k": imagenet21k,
        "alternatives": lambda: None,
        "troubleshooting": lambda: None,
    }
    return lambda name: stages[name]()


@pytest.mark.parametrize("page", [page for page in PAGES if page.removesuffix(".md") not in CLUSTERS])
def test_a_page_runs(page: str, stage: Callable[[str], None], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    stage(page.removesuffix(".md"))
    reach: dict[str, str] = {}
    if page == "buckets.md":
        server: Server = request.getfixturevalue("server")
        reach = environment(server.port)
    run_page(blocks(GUIDE / page), tmp_path, reach, {})


@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_page_on_a_cluster_runs(
    kind: str, stage: Callable[[str], None], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address, _ = request.getfixturevalue(kind)
    stage(kind)
    run_page(blocks(GUIDE / f"{kind}.md"), tmp_path, {}, {kind: address})


@pytest.mark.parametrize("page", [*PAGES, "../index.md", "../../README.md"])
def test_what_cannot_be_run_is_parsed(page: str) -> None:
    found = blocks(GUIDE / page)
    for block in found:
        assert block.language in LANGUAGES or block.language.startswith("{")
        if block.how == PARSED:
            assert block.why, f"{page}:{block.line}: why is it not run?"
            check_commands(block.code)
        elif block.language == "text":
            for line in block.code.splitlines():
                if line.startswith("spectral"):
                    check_commands(line.split("    ")[0])


def test_a_wrong_option_or_block_is_found(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No such option '--shard'"):
        check_commands("spectral train --shard sub4")
    with pytest.raises(KeyError):
        check_commands("spectral trian --shards sub4")
    page = tmp_path / "page.md"
    page.write_text("```\ncode\n```\n")
    with pytest.raises(AssertionError, match="a block of what language"):
        blocks(page)
    page.write_text("<!-- small -->\n\ntext\n")
    with pytest.raises(AssertionError, match="has to stand before a block"):
        blocks(page)
    page.write_text("```bash\necho one\n```\n\n```bash\nfalse | true\n```\n")
    with pytest.raises(AssertionError, match="line 5"):
        run_page(blocks(page), tmp_path, {}, {})


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "reference" / "commands.html").read_text()
    assert "--on-bad-shard" in commands
    assert "quant-step" in commands
    python = (tmp_path / "reference" / "python.html").read_text()
    assert 'id="spectral_shards.BandLoader"' in python
    assert "load_state_dict" in python


def test_the_job_of_slurm(sub4: Path, tmp_path: Path) -> None:
    """The script itself, as a task of an array runs it."""
    env = {**os.environ, "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    done = subprocess.run(
        ["bash", str(ROOT / "examples" / "slurm.sh"), str(sub4), "--bands", "all", *SHORT],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [path.parent.name for path in (tmp_path / "runs").rglob("run.json")] == ["02"]


def test_the_job_of_kubernetes(sub4: Path, tmp_path: Path) -> None:
    """The manifest is an Indexed Job; the command of its container is run as a pod of it runs it."""
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((ROOT / "examples" / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    given = {each["name"]: each["value"] for each in container["env"]}
    assert set(given) == {"SHARDS", "NETWORKS", "OPTIONS"}
    assert int(given["NETWORKS"]) == job["spec"]["completions"]
    script = container["args"][0].replace("/runs/", f"{tmp_path}/runs/").replace("/cache", f"{tmp_path}/cache")
    env = {**os.environ, "JOB_COMPLETION_INDEX": "1", **given, "SHARDS": str(sub4), "OPTIONS": " ".join(SHORT)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    done = subprocess.run([*container["command"], script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.parent.name for path in (tmp_path / "runs").rglob("run.json")] == ["00+01+02+03x2"]


def test_the_version_of_the_examples_is_that_of_the_package() -> None:
    version = program("spectral", "--version").stdout.split()[-1]
    for name in ("examples/kubernetes.yaml", "docs/guide/kubernetes.md"):
        assert f"spectral-shards:{version}" in (ROOT / name).read_text()
