"""Partitions: every sample once, nobody without, and skewed as they claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.api import Dataset, Partition, Problem
from tidings.errors import ConfigError

pytestmark = pytest.mark.unit

ALL: list[dict[str, Any]] = [
    {"kind": "iid"},
    {"kind": "dirichlet", "alpha": 0.1, "min_samples": 1},
    {"kind": "dirichlet", "alpha": 100.0, "min_samples": 2},
    {"kind": "label_shards", "shards_per_node": 2},
    {"kind": "quantity_skew", "alpha": 0.05, "min_samples": 2},
    {"kind": "feature_shift"},
    {"kind": "by_group"},
]


def toy(samples: int, classes: int, groups: int, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    members = np.concatenate([np.arange(groups), rng.integers(0, groups, samples - groups)])
    return Dataset(
        rng.standard_normal((samples, 3)).astype(np.float32),
        rng.integers(0, classes, samples),
        rng.permutation(members),
    )


def split(partition: Partition, data: Dataset, nodes: int, seed: int = 0) -> list[np.ndarray]:
    return list(partition.split(data, nodes, np.random.default_rng(seed)))


def label_skew(data: Dataset, shares: list[np.ndarray]) -> float:
    """Mean total-variation distance between a node's class mix and that of the whole."""
    classes = int(data.targets.max()) + 1
    whole = np.bincount(data.targets, minlength=classes) / len(data)
    mixes = [np.bincount(data.targets[s], minlength=classes) / len(s) for s in shares]
    return float(np.mean([np.abs(mix - whole).sum() / 2 for mix in mixes]))


@pytest.mark.parametrize("config", ALL, ids=lambda c: f"{c['kind']}-{c.get('alpha', '')}")
@settings(deadline=None, max_examples=40)
@given(
    nodes=st.integers(1, 12),
    samples=st.integers(24, 200),
    classes=st.integers(1, 10),
    seed=st.integers(0, 2**32),
)
def test_every_sample_goes_to_exactly_one_node_and_no_node_is_empty(
    config: dict[str, Any], nodes: int, samples: int, classes: int, seed: int
) -> None:
    partition = Partition.parse(config)
    data = toy(samples, classes, groups=12, seed=seed)
    shares = split(partition, data, nodes, seed)
    assert len(shares) == nodes
    assert min(len(share) for share in shares) >= config.get("min_samples", 1)
    np.testing.assert_array_equal(np.sort(np.concatenate(shares)), np.arange(samples))
    again = split(partition, data, nodes, seed)
    assert all(np.array_equal(a, b) for a, b in zip(shares, again, strict=True))


@pytest.mark.parametrize("config", ALL[:-1], ids=lambda c: f"{c['kind']}-{c.get('alpha', '')}")
def test_another_seed_gives_another_split(config: dict[str, Any]) -> None:
    data, partition = toy(200, 5, 12), Partition.parse(config)
    pairs = zip(split(partition, data, 4, 1), split(partition, data, 4, 2), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", ["iid", "feature_shift"])
@settings(deadline=None, max_examples=30)
@given(samples=st.integers(20, 300), nodes=st.integers(1, 20))
def test_random_shares_have_equal_sizes(kind: str, samples: int, nodes: int) -> None:
    sizes = [len(share) for share in split(Partition.parse(kind), toy(samples, 3, 4), nodes)]
    assert max(sizes) - min(sizes) <= 1


def test_smaller_alpha_means_more_label_skew() -> None:
    data = toy(4000, 10, 1)
    skews = []
    for alpha in (0.05, 0.3, 1.0, 10.0, 1000.0):
        partition = Partition.parse({"kind": "dirichlet", "alpha": alpha})
        skews.append(np.mean([label_skew(data, split(partition, data, 10, s)) for s in range(5)]))
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.6  # nearly one class each would be 0.9
    assert skews[-1] < 0.05


def test_dirichlet_proportions_have_the_variance_of_their_distribution() -> None:
    # Var p_i = (1/n)(1 - 1/n) / (n alpha + 1) for a symmetric Dirichlet
    alpha, nodes = 2.0, 5
    data = Dataset(np.zeros((1000, 1), np.float32), np.zeros(1000, np.int64))
    partition = Partition.parse({"kind": "dirichlet", "alpha": alpha, "min_samples": 1})
    shares = [split(partition, data, nodes, seed) for seed in range(300)]
    proportions = np.array([[len(share) / 1000 for share in run] for run in shares])
    expected = (1 / nodes) * (1 - 1 / nodes) / (nodes * alpha + 1)
    np.testing.assert_allclose(proportions.var(axis=0).mean(), expected, rtol=0.15)


def test_dirichlet_moves_samples_where_redrawing_does_not_help() -> None:
    data = toy(400, 2, 1)
    partition = Partition.parse({"kind": "dirichlet", "alpha": 0.01, "min_samples": 20})
    sizes = [len(share) for share in split(partition, data, 20)]
    assert sizes == [20] * 20


def test_a_thousand_nodes() -> None:
    data = toy(4000, 10, 1)
    for kind in ("dirichlet", "quantity_skew"):
        shares = split(Partition.parse({"kind": kind, "min_samples": 2}), data, 1000)
        assert min(map(len, shares)) >= 2


def test_label_shards_give_each_node_at_most_two_classes_per_shard_boundary() -> None:
    # 10 balanced classes in 20 shards: a shard lies inside one class, as in McMahan et al.
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 40))
    data = Dataset(np.zeros((400, 1), np.float32), labels)
    shares = split(Partition.parse({"kind": "label_shards", "shards_per_node": 2}), data, 10)
    assert {len(share) for share in shares} == {40}
    assert max(len(np.unique(labels[share])) for share in shares) == 2
    one_each = split(Partition.parse({"kind": "label_shards", "shards_per_node": 1}), data, 10)
    assert sorted(int(np.unique(labels[s]).item()) for s in one_each) == list(range(10))


def test_quantity_skew_has_the_size_variation_of_its_distribution_and_no_label_skew() -> None:
    # CV^2 = (n - 1) / (n alpha + 1): the text of the class; 300 runs estimate it
    alpha, nodes, data = 2.0, 10, toy(2000, 4, 1)
    partition = Partition.parse({"kind": "quantity_skew", "alpha": alpha, "min_samples": 1})
    runs = [split(partition, data, nodes, seed) for seed in range(300)]
    sizes = np.array([[len(share) for share in run] for run in runs])
    variation = (sizes.var(axis=1) / sizes.mean(axis=1) ** 2).mean()
    np.testing.assert_allclose(variation, (nodes - 1) / (nodes * alpha + 1), rtol=0.1)
    large = [share for share in runs[0] if len(share) >= 200]
    assert label_skew(data, large) < 0.1


@settings(deadline=None, max_examples=50)
@given(nodes=st.integers(1, 12), groups=st.integers(12, 40), seed=st.integers(0, 1000))
def test_groups_stay_whole_and_loads_are_balanced(nodes: int, groups: int, seed: int) -> None:
    data = toy(300, 2, groups, seed)
    assert data.groups is not None
    shares = split(Partition.parse("by_group"), data, nodes, seed)
    owners = [set(data.groups[share].tolist()) for share in shares]
    assert sum(map(len, owners)) == groups
    assert set().union(*owners) == set(range(groups))
    largest = int(np.bincount(data.groups).max())
    assert max(map(len, shares)) <= 300 / nodes + largest


def test_feature_shift_is_a_fixed_affine_map_per_node() -> None:
    data, partition = toy(50, 3, 2), Partition.parse("feature_shift")
    seen = [partition.transform(data, node, 4) for node in range(4)]
    for one in seen:
        gain, offset = np.polyfit(data.features.ravel(), one.features.ravel(), 1)
        np.testing.assert_allclose(one.features, gain * data.features + offset, atol=1e-5)
        np.testing.assert_array_equal(one.targets, data.targets)
        assert one.features.dtype == np.float32
    assert not np.allclose(seen[0].features, seen[1].features)
    again = partition.transform(data, 1, 4)
    np.testing.assert_array_equal(again.features, seen[1].features)
    other = Partition.parse({"kind": "feature_shift", "seed": 1}).transform(data, 1, 4)
    assert not np.allclose(other.features, again.features)


def test_feature_shift_noise_grows_from_nothing_on_the_first_node() -> None:
    data = Dataset(np.zeros((4000, 2), np.float32), np.zeros(4000, np.int64))
    config = {"kind": "feature_shift", "scale": 0.0, "offset": 0.0, "noise": 0.6}
    partition = Partition.parse(config)
    spread = [float(partition.transform(data, node, 3).features.std()) for node in range(3)]
    assert spread[0] == 0
    np.testing.assert_allclose(spread[1:], [0.3, 0.6], rtol=0.05)


def test_feature_shift_rotates_images_by_at_most_its_angle() -> None:
    disc = np.hypot(*np.mgrid[-13.5:14, -13.5:14]) < 9
    bar = np.zeros((28, 28))
    bar[2:14, 12:16] = 1.0  # points up; its end says by how much it was turned
    images = np.stack([disc, bar]).astype(np.float32)[:, None]
    data = Dataset(images, np.zeros(2, np.int64))
    config = {"kind": "feature_shift", "rotation": 40.0, "scale": 0.0, "offset": 0.0}
    partition = Partition.parse(config)
    angles = []
    for node in range(30):
        turned = partition.transform(data, node, 30).features[:, 0]
        assert np.abs(turned[0] - images[0, 0]).mean() < 0.05  # a disc stays a disc
        weight = turned[1] / turned[1].sum()
        y, x = (np.sum(weight * axis) for axis in np.mgrid[-13.5:14, -13.5:14])
        angles.append(np.rad2deg(np.arctan2(x, -y)))
    assert np.abs(angles).max() < 42
    assert np.abs(angles).max() > 30  # of 30 uniform draws one is beyond with probability 0.9998
    assert min(angles) < 0 < max(angles)


@pytest.mark.parametrize("kind", ["dirichlet", "label_shards"])
def test_partitions_by_class_say_why_they_cannot_deal_out_other_data(kind: str) -> None:
    features = np.zeros((50, 4), np.float32)
    regression = Dataset(features, np.zeros(50, np.float32))
    tokens = Dataset(np.zeros((50, 4), np.int64), np.zeros((50, 4), np.int64))
    with pytest.raises(ValueError, match="regression"):
        split(Partition.parse(kind), regression, 2)
    with pytest.raises(ValueError, match="tokens; use by_group"):
        split(Partition.parse(kind), tokens, 2)


@pytest.mark.parametrize(
    ("config", "nodes", "words"),
    [
        ("iid", 51, "51 nodes needs 51 samples, there are 50"),
        ("feature_shift", 51, "needs 51 samples"),
        ({"kind": "dirichlet", "min_samples": 8}, 7, "8 samples for each of 7 nodes needs 56"),
        ({"kind": "quantity_skew", "min_samples": 8}, 7, "needs 56 samples, there are 50"),
        ({"kind": "label_shards", "shards_per_node": 3}, 20, "needs 60 samples"),
        ("by_group", 6, "5 groups are too few for 6 nodes"),
    ],
)
def test_more_nodes_than_the_data_can_serve(config: object, nodes: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split(Partition.parse(config), toy(50, 3, 5), nodes)


def test_by_group_needs_groups() -> None:
    data = Dataset(np.zeros((9, 1), np.float32), np.zeros(9, np.int64))
    with pytest.raises(ValueError, match="natural groups"):
        split(Partition.parse("by_group"), data, 2)


def test_feature_shift_refuses_tokens_and_rotated_tables() -> None:
    tokens = Dataset(np.zeros((5, 4), np.int64), np.zeros((5, 4), np.int64))
    with pytest.raises(ValueError, match="not tokens"):
        Partition.parse("feature_shift").transform(tokens, 0, 2)
    with pytest.raises(ValueError, match="only images"):
        Partition.parse({"kind": "feature_shift", "rotation": 9.0}).transform(toy(5, 2, 2), 0, 2)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "dirichlet", "alpha": 0.0},
        {"kind": "dirichlet", "alpha": float("nan")},
        {"kind": "dirichlet", "min_samples": 0},
        {"kind": "quantity_skew", "alpha": -1.0},
        {"kind": "label_shards", "shards_per_node": 0},
        {"kind": "feature_shift", "noise": -0.1},
    ],
)
def test_impossible_parameters(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Partition.parse(config)


def test_copies_are_the_one_partition_that_deals_out_everything_to_all() -> None:
    copies = Partition.parse("copies")
    assert not copies.disjoint
    for share in split(copies, toy(20, 3, 2), 4):
        assert share.tolist() == list(range(20))
    assert all(Partition.parse(given).disjoint for given in ALL)
    problem = {"kind": "logistic_regression", "dataset": "breast_cancer", "partition": "copies"}
    first, last = (Problem.parse(problem).local(node, 3, 1) for node in (0, 2))
    x = first.initial() + 0.1
    assert first.samples == last.samples > 400
    assert torch.equal(first.full_gradient(x), last.full_gradient(x))
