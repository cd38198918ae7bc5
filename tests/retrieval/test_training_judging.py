"""One pass over validation photos, and how images and half precision reach a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.training.epochs import Device, JudgedPhotos, judge_photos
from retrieval.training.objectives import OBJECTIVES
from tests.retrieval.training import (
    CPU,
    PLAIN,
    SIDE,
    SMALL,
    by_hand,
    network_of,
    photos_of,
    share_of,
    state_of,
    train,
)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_judging_photos_changes_nothing_and_training_goes_on_after_it(loss):
    network = network_of("tests.fakes:batch_normed", loss, dropout=0.5)
    batches = [photos_of(6), photos_of(3, seed=1)]
    train(network, batches, rate=0.1)
    before = state_of(network)
    found, again = (judge_photos(network, batches, PLAIN) for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert found.features.tolist() == again.features.tolist()
    assert found.losses.tolist() == again.losses.tolist()
    train(network, batches, rate=0.1)
    assert any(not torch.equal(value, before[n]) for n, value in network.state_dict().items())


def test_photos_are_judged_as_plain_loops_would():
    network = network_of()
    batches = [photos_of(5), photos_of(1, seed=3), photos_of(4, seed=2)]
    found = judge_photos(network, batches, PLAIN)
    losses, hits = [], []
    for batch in batches:
        loss, logits, _ = by_hand(network, batch)
        losses += [pytest.approx(loss, rel=1e-5)] * len(batch.labels)
        hits += (logits.numpy().argmax(axis=1) == batch.labels).tolist()
    assert found.losses.tolist() == losses
    assert found.hits.tolist() == hits
    assert found.labels.tolist() == [label for batch in batches for label in batch.labels]
    assert 0 < sum(hits) < 10
    alone = [
        judge_photos(network, [share_of(b, [n])], PLAIN)
        for b in batches
        for n in range(len(b.labels))
    ]
    np.testing.assert_allclose(
        found.features, np.concatenate([one.features for one in alone]), rtol=1e-5, atol=1e-6
    )
    kinds = [value.dtype for value in vars(found).values()]
    assert kinds == [np.float32, np.int64, np.float64, np.bool_]


def test_what_workers_judged_is_put_together_in_their_order():
    parts = [judge_photos(network_of(), [photos_of(n, seed=n)], PLAIN) for n in (2, 1, 3)]
    whole = JudgedPhotos.concatenate(parts)
    for name in ("features", "labels", "losses", "hits"):
        values = [value for part in parts for value in getattr(part, name).tolist()]
        assert getattr(whole, name).tolist() == values


def test_half_precision_is_asked_for_by_its_name():
    network, batch = network_of(), photos_of(6)
    seen = []
    network.body.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    half, full = (
        judge_photos(network, [batch], Device(CPU, SMALL, precision))
        for precision in ("bfloat16", "float32")
    )
    assert seen == [torch.bfloat16, torch.float32]
    assert half.features.dtype == np.float32
    np.testing.assert_allclose(half.features, full.features, atol=0.02)
    assert half.features.tolist() != full.features.tolist()


def test_photos_in_memory_that_is_read_only_are_taken_without_a_warning():
    network, batch = network_of(), photos_of(4)
    expected = judge_photos(network, [batch], PLAIN).features.tolist()
    batch.pixels.flags.writeable = batch.labels.flags.writeable = False  # as Arrow's and Ray's is
    torch.set_warn_always(True)  # else torch says it once in a process
    try:
        found = judge_photos(network, [batch], PLAIN).features.tolist()
        train(network, [batch])
    finally:
        torch.set_warn_always(False)
    assert found == expected


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_lie_in_memory_as_the_device_wants_them(channels_last):
    images = Device(CPU, SMALL, channels_last=channels_last).images(photos_of(2).pixels)
    assert images.shape == (2, 3, SIDE, SIDE)
    assert images.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert images.is_contiguous() is not channels_last
