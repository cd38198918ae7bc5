"""The batches of an epoch: a function of (labels, seed, epoch), full, and balanced if asked."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
from pytorch_metric_learning import samplers
from pytorch_metric_learning.utils import common_functions

from retrieval.errors import UsageError
from retrieval.training.sampling import SAMPLERS, epoch_batches, seed_of

SIZES = (2, 3, 4, 9, 30, 80)  # photos of each class, from too few for a batch to many


@pytest.fixture(params=range(4), ids="seed{}".format)
def labels(request):
    labels = np.repeat(np.arange(len(SIZES)), SIZES)
    return np.random.default_rng(request.param).permutation(labels)


def batches(labels, batch_size=8, sampler="shuffled", seed=0, epoch=0):
    return epoch_batches(
        np.asarray(labels), batch_size=batch_size, sampler=sampler, seed=seed, epoch=epoch
    )


def test_a_seed_is_the_hash_of_its_parts_worked_by_hand():
    # Pinned down: another one would change the rest of a training that goes on.
    digest = hashlib.sha256(b"(3, 'order', 7)").digest()
    assert seed_of(3, "order", 7) == sum(digest[n] * 256**n for n in range(4)) < 2**32
    assert len({seed_of(1, 2), seed_of(12), seed_of("1", 2), seed_of(2, 1)}) == 4


@pytest.mark.parametrize("batch_size", [1, 7, 8, 64, 127, 128])
def test_shuffled_batches_are_full_and_hold_each_photo_at_most_once(labels, batch_size):
    found = batches(labels, batch_size)
    assert found.shape == (128 // batch_size, batch_size)
    assert found.dtype == np.int64
    assert len(np.unique(found)) == found.size
    assert 0 <= found.min() <= found.max() < 128


@pytest.mark.parametrize("batch_size", [129, 1000])
def test_a_batch_larger_than_all_photos_is_all_photos(labels, batch_size):
    found = batches(labels, batch_size)
    assert found.shape == (1, 128)
    assert sorted(found[0]) == list(range(128))


def test_shuffled_batches_do_not_look_at_labels(labels):
    assert batches(labels).tolist() == batches(labels * 0).tolist()


def test_photos_that_do_not_fill_a_batch_are_others_in_each_epoch():
    left_out = [
        frozenset(range(11)) - frozenset(batches([0] * 11, 4, epoch=epoch).ravel().tolist())
        for epoch in range(10)
    ]
    assert {len(some) for some in left_out} == {3}
    assert frozenset().union(*left_out) == frozenset(range(11))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_batches_are_a_function_of_labels_seed_and_epoch(labels, sampler):
    orders = {
        (seed, epoch): batches(labels, sampler=sampler, seed=seed, epoch=epoch)
        for seed in range(3)
        for epoch in range(3)
    }
    np.random.seed(1)  # noqa: NPY002 - the generator of the process must not matter
    for (seed, epoch), order in orders.items():
        again = batches(labels, sampler=sampler, seed=seed, epoch=epoch)
        assert again.tolist() == order.tolist()
    assert len({order.tobytes() for order in orders.values()}) == 9


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_random_numbers_of_the_process_are_left_alone(labels, sampler):
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    batches(labels, sampler=sampler)
    assert np.random.random(3).tolist() == expected.tolist()  # noqa: NPY002


@pytest.mark.parametrize("batch_size", [4, 8, 24])
def test_a_balanced_batch_has_exactly_four_photos_of_each_of_its_classes(labels, batch_size):
    found = batches(labels, batch_size, "balanced")
    assert found.shape == (128 // batch_size, batch_size)
    assert found.dtype == np.int64
    for batch in found:
        assert set(Counter(labels[batch].tolist()).values()) == {4}


def test_a_balanced_batch_repeats_a_photo_only_of_a_class_that_has_too_few(labels):
    for epoch in range(5):
        for batch in batches(labels, 24, "balanced", epoch=epoch):
            of_class = Counter(labels[np.unique(batch)].tolist())
            for number, size in enumerate(SIZES):
                # A class of two or three gives four draws with repeats.
                assert of_class[number] == 4 if size >= 4 else 1 <= of_class[number] <= size


def test_balanced_classes_come_equally_often_whatever_their_size(labels):
    # 60 epochs of 16 batches with two of six classes: each is expected 320 times.
    count = Counter()
    for epoch in range(60):
        for batch in batches(labels, 8, "balanced", epoch=epoch):
            count.update(set(labels[batch].tolist()))
    assert sum(count.values()) == 2 * 60 * 16
    assert all(abs(count[number] - 320) < 75 for number in range(6)), count  # five deviations


def test_balanced_photos_of_a_class_come_equally_often(labels):
    count = Counter()
    for epoch in range(60):
        found = batches(labels, 24, "balanced", epoch=epoch).ravel()
        count.update(found[labels[found] == 3].tolist())
    # 300 batches with four of nine photos.
    assert len(count) == 9
    assert all(abs(times - 300 * 4 / 9) < 45 for times in count.values()), count


@pytest.mark.parametrize("fails", [False, True])
def test_the_generator_of_the_metric_learning_library_is_put_back(monkeypatch, labels, fails):
    class Failing(samplers.MPerClassSampler):
        def __iter__(self):
            raise MemoryError

    mine = np.random.RandomState(3)
    monkeypatch.setattr(common_functions, "NUMPY_RANDOM", mine)
    before = mine.get_state()[1].tolist(), mine.get_state()[2]
    if fails:
        monkeypatch.setattr(samplers, "MPerClassSampler", Failing)
        with pytest.raises(MemoryError):
            batches(labels, sampler="balanced")
    else:
        batches(labels, sampler="balanced")
    assert common_functions.NUMPY_RANDOM is mine
    assert (mine.get_state()[1].tolist(), mine.get_state()[2]) == before


@pytest.mark.parametrize(
    ("sizes", "batch_size", "most"),
    [
        ((9, 9, 9), 10, 12),  # no multiple of four
        ((9, 9, 9), 16, 12),  # more than four of each class
        ((2, 2, 2, 3), 16, 8),  # 9 photos: 12 would be more than there are
        ((2, 2, 2, 3), 9, 8),  # and 9 is no multiple
        ((9, 9, 9), 1000, 12),
    ],
)
def test_a_batch_size_that_suits_no_balanced_batch_is_refused(sizes, batch_size, most):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.raises(UsageError) as caught:
        batches(labels, batch_size, "balanced")
    assert str(caught.value) == (
        f"`batch_size` {batch_size}: with `sampler` balanced a batch holds 4 photos of each of "
        f"its classes, and there are {len(sizes)} with {sum(sizes)} photos. Use a multiple of 4 "
        f"up to {most}."
    )
    assert batches(labels, most, "balanced").shape == (sum(sizes) // most, most)
