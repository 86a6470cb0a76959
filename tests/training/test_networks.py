"""The networks: published sizes, and any plane."""

import itertools
import shlex
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision import models

from spectral_shards.shards_manifest.dataset import open_bands
from spectral_shards.train import networks
from spectral_shards.train.band_sets import parse_band_sets
from spectral_shards.train.errors import TrainError
from spectral_shards.train.launch.budget import Cost, energies, strongest, suggestions, whole_image
from spectral_shards.train.networks.profile import describe, multiply_adds
from spectral_shards.train.recipes import load
from support.programs import fails, program

PLANES = (224, 112, 56, 32, 16, 8)


def mib(name: str, plane: int, classes: int = 1000, buffers: bool = False) -> float:
    """MiB of float32 values, as published."""
    with torch.device("meta"):
        network = networks.build_network(name, plane, classes)
    kept = [*network.parameters(), *(network.buffers() if buffers else ())]
    return sum(tensor.numel() * 4 for tensor in kept if tensor.dtype == torch.float32) / 2**20


@pytest.mark.parametrize(
    ("name", "plane", "classes", "buffers", "published"),
    [
        ("vgg16", 224, 1000, False, 527.79),
        ("vgg16", 112, 1000, False, 207.82),
        ("resnet34", 224, 1000, False, 83.15),
        ("resnet34", 112, 1000, False, 83.15),
        ("resnet50", 224, 1000, True, 97.69),
        ("resnet50", 112, 1000, True, 97.69),
        ("resnet50", 224, 10450, True, 171.56),
    ],
)
def test_the_published_sizes(name: str, plane: int, classes: int, buffers: bool, published: float) -> None:
    assert round(mib(name, plane, classes, buffers), 2) == published


@pytest.mark.parametrize(
    ("name", "plane", "printed"), [("alexnet", 112, 37.73), ("alexnet", 56, 37.73), ("vgg16", 56, 128.05)]
)
def test_what_cannot_be_matched_is_no_larger(name: str, plane: int, printed: float) -> None:
    assert 0.9 * printed < mib(name, plane) <= printed


@pytest.mark.parametrize("name", sorted(networks.NETWORKS))
@pytest.mark.parametrize("classes", [10, 1000, 10450, 11221, 21841])
def test_every_plane_gives_every_class(name: str, classes: int) -> None:
    for plane in PLANES:
        with torch.device("meta"):
            network = networks.build_network(name, plane, classes)
            assert network(torch.empty(2, 3, plane, plane)).shape == (2, classes)


@pytest.mark.parametrize(
    ("name", "plane", "good"),
    [("cnn", 4, False), ("cnn", 8, True), ("resnet18", 8, False), ("resnet18", 16, True), ("alexnet", 8, True)],
)
def test_which_networks_train_on_a_single_sample(name: str, plane: int, good: bool) -> None:
    assert networks.trains_on_one(networks.NetworkOptions(name), networks.InputShape(plane, 2)) == good
    network, x = networks.build_network(name, plane, 2), torch.zeros(1, 3, plane, plane)
    with nullcontext() if good else pytest.raises(ValueError, match="more than 1 value per channel"):
        network(x)


@pytest.mark.parametrize("name", sorted(networks.NETWORKS))
def test_signal_and_gradients_reach_the_ends(name: str) -> None:
    """Logits that differ between samples and are of ordinary size, and gradients that are in the first layer too."""
    torch.manual_seed(0)
    network = networks.build_network(name, 16, 10)
    x = torch.randn(16, 3, 16, 16)
    logits = network(x)
    assert 0.01 < float(logits.detach().std(0).mean()) < 10
    torch.nn.functional.cross_entropy(logits, torch.arange(16) % 10).backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in network.parameters())


def test_a_profile_counts_what_a_step_keeps() -> None:
    """A network that can be counted by hand: 3x3 convolutions and a linear layer on planes of 8."""
    profile = describe(networks.NetworkOptions("cnn"), networks.InputShape(8, 10))
    widths = ((3, 64, 8), (64, 64, 8), (64, 128, 4), (128, 128, 4), (128, 256, 2), (256, 256, 2))  # in, out, side
    assert profile.parameters == sum(9 * a * b + 2 * b for a, b, _ in widths) + 256 * 10 + 10
    assert profile.buffers == sum(2 * b for _, b, _ in widths)
    assert profile.multiply_adds == sum(9 * a * b * side**2 for a, b, side in widths) + 256 * 10
    # of each convolution its output, and batch norm's, which the rectifier overwrites; the input; pooled ones
    least = 4 * (3 * 64 + sum(2 * b * side**2 for _, b, side in widths))
    assert least <= profile.activations < 1.4 * least
    recipe = replace(load("quick"), batch_size=10)  # SGD: weights, gradients, momentum
    assert profile.training_bytes(recipe) == 4 * (3 * profile.parameters + profile.buffers) + 10 * profile.activations
    recipe = replace(recipe, optimizer="adamw", momentum=0.0, ema=0.99, grad_accum_steps=3)  # AdamW keeps that as well
    assert profile.training_bytes(recipe) == 4 * (5 * profile.parameters + profile.buffers) + 4 * profile.activations


def test_the_profile_is_printed(sub4: Path) -> None:
    for shards, more in ((sub4, ("--bands", "all")), (sub4 / "01", ())):
        done = program("spectral-train", "--shards", shards, *more, "--network", "resnet34", "--describe")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0] == "resnet34 on 3x12x12, 3 classes"
        assert lines[1] == "parameters     21,278,531"
        assert lines[4].endswith(" MiB for a training step of 256 images in float32")
        rest = ["4 such networks", "4 networks: 0.744 G multiply-adds an image in all"] if shards == sub4 else []
        assert lines[5:] == rest


def test_published_sizes_and_stems() -> None:
    """ResNet-34 is 83.15 MiB with 1,000 classes (../docs/results.md); small planes keep their resolution."""
    network = networks.build_network("resnet34", 224, 1000)
    assert round(networks.parameter_bytes(network) / 2**20, 2) == 83.15
    small = networks.build_network("resnet34", 56, 1000)
    assert small.conv1.kernel_size == (3, 3)
    assert small.conv1.stride == (1, 1)
    x = small.conv1(torch.zeros(1, 3, 56, 56))
    assert small.maxpool(x).shape == (1, 64, 56, 56)
    for plane in (8, 16, 32):
        assert networks.build_network("cnn", plane, 10).eval()(torch.zeros(2, 3, plane, plane)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "budget"), [("cnn", 1.0), ("cnn", 0.25), ("resnet18", 1.0), ("resnet50", 3.0), ("vgg16", 2.0)]
)
def test_what_is_suggested_for_a_budget_fits_it(name: str, budget: float, sub4: Path) -> None:
    bands, recipe = open_bands(sub4).each, load("quick")
    found = suggestions(bands, Cost(name, recipe, 0.95), budget)
    whole = multiply_adds(networks.NetworkOptions(name), whole_image(bands))
    assert whole_image(bands) == networks.InputShape(24, 3)
    for way in found:
        assert sum(each.cost for each in way) <= budget
        assert sum(each.cost for each in way) > 0.5 * budget
    for each in itertools.chain(*found):
        read = parse_band_sets(each.bands, range(4))
        assert len(read) == each.networks
        chosen = [bands[band] for band in read[0].bands]
        cost = 0.95 * each.networks * multiply_adds(each.options, each.options.shape(chosen)) / whole
        assert each.cost == pytest.approx(cost)
        assert each.energy == pytest.approx(sum(energies(bands)[band] for band in read[0].bands))
        train = [shard.bytes for band in chosen for shard in band.parts["train"].shards]
        assert each.epoch_bytes == each.networks * sum(train)
    assert found[0][0].bands.startswith("stack")
    assert found[0][0].energy == pytest.approx(1)
    if name != "vgg16":  # it has one size, of which two do not fit
        assert [each.options.inputs for each in found[0]] == ["planes", "image"]
    if budget >= 1:
        assert {way[0].options.inputs for way in found[-3:]} == {"planes", "image"}


@pytest.mark.parametrize("name", networks.NETWORKS)
@pytest.mark.parametrize("trained", [1.0, 0.95])
def test_the_least_budget_is_named(name: str, trained: float, sub4: Path) -> None:
    bands, cost = open_bands(sub4).each, Cost(name, load("quick"), trained)
    with pytest.raises(TrainError, match="is too small for") as refused:
        suggestions(bands, cost, 1e-9)
    least = float(str(refused.value).partition("choose ")[2].partition(" or more")[0])
    assert suggestions(bands, cost, least)
    with pytest.raises(TrainError, match="is too small for"):
        suggestions(bands, cost, 0.99 * least)


def test_the_fewest_bands_that_hold_a_share_of_the_energy(sub4: Path) -> None:
    bands = open_bands(sub4).each
    shares = energies(bands)
    assert sum(shares) == pytest.approx(1)
    assert strongest(bands, 0.0) == [shares.index(max(shares))]
    assert strongest(bands, 1 - 1e-9) == [0, 1, 2, 3]
    even = [replace(band, std=(1.0, 1.0, 1.0)) for band in bands]  # of images of one colour each
    assert energies(even) == [0.25] * 4
    for share in (0.5, 0.9, 0.99):
        places = strongest(bands, share)
        assert sum(shares[place] for place in places) >= share
        assert sum(shares[place] for place in places) - min(shares[place] for place in places) < share


def test_a_budget_from_the_command_line(sub4: Path) -> None:
    recipe = ("--recipe", "quick", "--epochs", "3", "--no-flip", "--holdout-samples", "50")
    rest = ("--last-batch", "wrap", "--cache-size", "1GB", "--jobs", "2", "--share", "0/2")
    spaced = sub4.parent / "with a space"
    spaced.symlink_to(sub4)
    done = program("spectral-train", "--shards", spaced, "--network", "cnn", *recipe, *rest, "--budget", "1")
    assert done.returncode == 0, done.stderr
    commands = [line.strip() for line in done.stdout.splitlines() if "spectral train" in line]
    assert len(commands) > 1
    start = f"spectral train --shards '{spaced}' --network cnn --bands "
    end = " ".join((*recipe, *rest)).replace("1GB", "1000000000")
    assert commands[0] == f"{start}stackx2 --width 0.98 {end}"
    assert commands[1] == f"{start}stackx2 --inputs image --width 0.49 {end}"
    for command in commands:
        described = program(*shlex.split(command), "--describe")
        assert described.returncode == 0, described.stderr
    for option in (("--bands", "all"), ("--width", "0.5"), ("--stem-stride", "2"), ("--describe",)):
        both = program("spectral-train", "--shards", sub4, "--budget", "1", *option)
        assert both.returncode == 2
        assert f"{option[0]} does not go with --budget" in both.stderr
    said = fails("spectral-train", "--shards", sub4, "--network", "vgg16", "--budget", "0.001")
    assert said.startswith("Error: --budget 0.001 is too small for vgg16 on these planes: choose 0.")
    small = ("spectral-train", "--shards", sub4, "--network", "cnn", "--budget")
    for large in ("600", "1e308"):
        assert "stackx1000 " in program(*small, large).stdout  # as many as --bands takes
    for number in ("nan", "inf"):
        assert f"--budget {number}: write a number, as in 0.25" in fails(
            "spectral-train", "--shards", sub4, "--budget", number
        )
    assert "has to be a split of several bands" in fails("spectral-train", "--shards", sub4 / "00", "--budget", "1")


@pytest.mark.parametrize("name", ["cnn", "resnet18", "resnet50"])
def test_stems_and_widths(name: str) -> None:
    shape = networks.InputShape(32, 10, 12)
    whole = multiply_adds(networks.NetworkOptions(name), shape)
    costs = [multiply_adds(networks.NetworkOptions(name, stride), shape) for stride in networks.STEM_STRIDES]
    assert costs[0] == whole > costs[1] > costs[2]
    assert 3 < costs[0] / costs[1] < 5
    half = multiply_adds(networks.NetworkOptions(name, width=0.5), shape)
    assert 3 < whole / half < 4.5
    for options in (networks.NetworkOptions(name, 2, 1.5), networks.NetworkOptions(name, 4, 0.25)):
        assert options.build(shape)(torch.zeros(2, 12, 32, 32)).shape == (2, 10)
    for stride, width, why in ((3, 1.0, "--stem-stride 3: choose 1, 2, 4"), (0, 9.0, "--width 9: choose 0.05 to 8")):
        with pytest.raises(TrainError, match=why):
            networks.build_network(name, 32, 10, 3, stride, width)


def test_networks_of_one_size_refuse_others() -> None:
    with pytest.raises(TrainError, match="--width does not go with --network vgg16: choose cnn, resnet18, resnet34"):
        networks.build_network("vgg16", 32, 10, width=0.5)
    with pytest.raises(TrainError, match="--stem-stride does not go with --network alexnet"):
        networks.build_network("alexnet", 32, 10, stem_stride=2)


def test_a_narrow_resnet_has_torchvisions_layers() -> None:
    """Width 1 by our own layers is torchvision's network, name for name."""
    ours = dict(networks.build_network("resnet50", 56, 10, width=1.0001).named_parameters())
    theirs = dict(models.resnet50(num_classes=10).named_parameters())
    assert {name: p.shape for name, p in ours.items() if name != "conv1.weight"} == {
        name: p.shape for name, p in theirs.items() if name != "conv1.weight"
    }
