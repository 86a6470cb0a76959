"""The networks: published sizes, and any plane."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spectral_shards.train import networks
from spectral_shards.train.networks.profile import describe
from spectral_shards.train.recipes import load
from support.programs import program

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
    for shards in (sub4, sub4 / "01"):
        done = program("spectral-train", "--shards", shards, "--network", "resnet34", "--describe")
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
