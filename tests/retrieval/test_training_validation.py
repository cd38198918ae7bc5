"""Retrieval among validation photos against its definition in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval.errors import TrainingError
from retrieval.training import validation
from retrieval.training.epochs import JudgedPhotos
from retrieval.training.validation import RETRIEVAL_KS, retrieval_accuracy, validation_figures


@pytest.fixture(params=range(6), ids="seed{}".format)
def rng(request):
    return np.random.default_rng(request.param)


def grid_photos(rng):
    """60 photos on a small grid: many ties and some zero vectors; classes of 1 to 25 photos."""
    features = rng.integers(-1, 2, (60, 3)).astype(np.float32)
    labels = np.repeat([0, 1, 2, 3, 4, 5, 6, 7], [1, 1, 2, 2, 3, 6, 20, 25])
    return features, rng.permutation(labels)


def smooth_photos(rng, count=80, dim=6, num_classes=12):
    """Photos without ties, near their class's direction."""
    labels = rng.integers(0, num_classes, count)
    directions = rng.normal(size=(num_classes, dim))
    return (directions[labels] + rng.normal(size=(count, dim))).astype(np.float32), labels


def near_photos(rng):
    """Photos so near each other that the rounding of half precision decides."""
    features = rng.normal(size=6) + rng.normal(scale=2e-3, size=(60, 6))
    return features.astype(np.float32), rng.integers(0, 12, 60)


def accuracy(features, labels):
    found = retrieval_accuracy(np.asarray(features, np.float32), np.asarray(labels, np.int64))
    assert list(found) == [f"top_{k}" for k in RETRIEVAL_KS]
    assert {type(value) for value in found.values()} == {float}
    return tuple(found.values())


def stored(feature):
    """Length 1 in half precision, as Python's numbers; None for no direction."""
    length = math.sqrt(sum(float(value) ** 2 for value in feature))
    return [float(np.float16(float(value) / length)) for value in feature] if length else None


def cosine(a, b):
    def dot(x, y):
        return math.fsum(p * q for p, q in zip(x, y, strict=True))

    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def slow_accuracy(features, labels):
    """For each photo that has a second one of its class: rank all others, look at the first k."""
    vectors = [stored(feature) for feature in features]
    hits, num_queries = dict.fromkeys(RETRIEVAL_KS, 0), 0
    for query, vector in enumerate(vectors):
        others = [row for row in range(len(labels)) if row != query]
        if not any(labels[row] == labels[query] for row in others):
            continue
        num_queries += 1
        if vector is None:
            continue
        scores = {row: cosine(vector, vectors[row]) for row in others if vectors[row] is not None}
        ranked = sorted(scores, key=lambda row: (-scores[row], row))  # equal scores: by number
        for k in RETRIEVAL_KS:
            hits[k] += any(labels[row] == labels[query] for row in ranked[:k])
    return tuple(hits[k] / num_queries for k in RETRIEVAL_KS)


def on_circle(*degrees):
    return [[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees]


def test_accuracies_worked_by_hand():
    # Nearest first: 0 sees 10, 25; 10 sees 0, 25; 25 sees 10, 0 ...; 90 and 80 see each other.
    features = on_circle(0, 10, 25, 80, 90, 200)
    labels = [0, 1, 0, 2, 2, 3]  # the last one has no second: a distractor and no query
    # Hits at 1: of 80 and 90. Photo 0 finds 25 at rank 2, photo 25 finds 0 at rank 2; photo 10
    # has no second one of its class.
    assert accuracy(features, labels) == (2 / 4, 1.0, 1.0)


def test_accuracies_at_three_and_ten_worked_by_hand():
    # The two of class 0 are 12 steps apart; between them and beyond lie singles.
    degrees = list(range(0, 130, 10))
    labels = [0, *range(1, 12), 0]
    assert accuracy(on_circle(*degrees), labels) == (0.0, 0.0, 0.0)  # rank 12
    degrees.pop(5), labels.pop(5)
    degrees.pop(5), labels.pop(5)
    assert accuracy(on_circle(*degrees), labels) == (0.0, 0.0, 1.0)  # rank 10
    assert accuracy(on_circle(0, 10, 20, 30), [0, 1, 2, 0]) == (0.0, 1.0, 1.0)  # rank 3
    assert accuracy(on_circle(0, 10, 20, 30, 40), [0, 1, 2, 3, 0]) == (0.0, 0.0, 1.0)  # rank 4


@pytest.mark.parametrize("make", [grid_photos, smooth_photos, near_photos])
def test_accuracies_equal_their_definition_in_plain_loops(rng, make):
    features, labels = make(rng)
    expected = slow_accuracy(features, labels)
    assert 0 < expected[0] < expected[2] <= 1
    assert accuracy(features, labels) == pytest.approx(expected, abs=1e-12)


def test_queries_in_blocks_give_what_they_give_at_once(monkeypatch, rng):
    features, labels = grid_photos(rng)
    whole = accuracy(features, labels)
    for at_once in (1, 7, 59):
        monkeypatch.setattr(validation, "_QUERIES_AT_ONCE", at_once)
        assert accuracy(features, labels) == whole


def test_more_photos_than_one_block_of_queries_holds():
    features, labels = smooth_photos(np.random.default_rng(0), 2500, dim=8, num_classes=700)
    vectors = features / np.linalg.norm(features, axis=1, keepdims=True)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    nearest = labels[np.argsort(-scores, axis=1)[:, :10]] == labels[:, None]
    has_match = np.bincount(labels)[labels] > 1
    assert has_match.sum() > 2 * 1024
    expected = [nearest[has_match, :k].any(axis=1).mean() for k in RETRIEVAL_KS]
    # Half precision turns round a pair here and there.
    assert accuracy(features, labels) == pytest.approx(expected, abs=0.005)


def test_the_order_of_photos_does_not_matter(rng):
    features, labels = smooth_photos(rng)
    order = rng.permutation(len(labels))
    assert accuracy(features[order], labels[order]) == accuracy(features, labels)


def test_the_length_of_features_and_the_names_of_classes_do_not_matter(rng):
    features, labels = smooth_photos(rng)
    lengths = 2.0 ** rng.integers(-60, 60, (len(labels), 1))
    assert accuracy(features * lengths, labels * 7 - 100) == accuracy(features, labels)


def test_photos_apart_from_all_others_change_nothing(rng):
    features, labels = smooth_photos(rng)
    wider = np.hstack([features, np.zeros((len(features), 1))])
    distractors = np.zeros((30, wider.shape[1]))
    distractors[:, -1] = -1  # a right angle to each photo
    more = np.vstack([wider, wider * 0, distractors])  # zero vectors are nobody's neighbour
    far = np.concatenate([labels, np.arange(1000, 1000 + len(labels) + 30)])
    before, after = accuracy(features, labels), accuracy(more, far)
    assert after[0] == before[0]
    assert accuracy(more[: 2 * len(labels)], far[: 2 * len(labels)]) == before


def test_photos_without_a_second_one_of_their_class_are_distractors_and_no_queries():
    features, labels = on_circle(0, 20, 40), [0, 1, 0]
    assert accuracy(features, labels) == (0.0, 1.0, 1.0)
    assert accuracy([features[0], features[2]], [0, 0]) == (1.0, 1.0, 1.0)


def test_a_zero_vector_is_a_miss_and_never_found():
    features = [[1, 0], [1, 0.1], [0, 0], [0, 0], [0, 1]]
    assert accuracy(features, [0, 0, 0, 1, 1]) == (2 / 5, 2 / 5, 2 / 5)
    assert accuracy(np.zeros((4, 2)), [0, 0, 1, 1]) == (0.0, 0.0, 0.0)
    assert accuracy([[0, 0], [1, 0]], [0, 0]) == (0.0, 0.0, 0.0)


def test_photos_are_compared_in_half_precision_as_they_would_be_stored():
    # All three are (0.707, 0.707) then, and of equal scores the first photo comes first.
    features = [[0.7072, 0.7070], [1, 1], [1, 1]]
    assert accuracy(features, [1, 0, 0]) == (0.0, 1.0, 1.0)


def test_a_photo_never_finds_itself():
    # Each pair is alike to the last bit, and of two classes.
    features = np.repeat(on_circle(*range(0, 360, 10)), 2, axis=0)
    labels = np.tile([0, 1], 36)
    assert accuracy(features, labels)[0] == 0.0


def test_the_best_case_is_1_and_the_worst_is_0():
    assert accuracy(np.repeat(np.eye(8), 3, axis=0), np.repeat(np.arange(8), 3)) == (1.0, 1.0, 1.0)
    # The second photo of each class lies opposite, beyond the other 22.
    around = on_circle(*range(0, 360, 15))
    assert accuracy(around, [number % 12 for number in range(24)]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("labels", [[], [3], [0, 1, 2]])
def test_without_a_class_of_two_nothing_is_defined(labels):
    found = retrieval_accuracy(np.ones((len(labels), 4), np.float32), np.asarray(labels, np.int64))
    assert found == {f"top_{k}": None for k in RETRIEVAL_KS}


def test_features_of_any_size_have_a_direction():
    assert accuracy([[1e38, 1e38], [1e-38, 1e-38], [1e38, -1e38]], [0, 0, 1]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = np.ones((3, 2), np.float32)
    features[1, 1] = value
    with pytest.raises(TrainingError) as caught:
        accuracy(features, [0, 1, 2])
    assert str(caught.value) == "the network gives features that are not finite"


def judged(losses):
    features = np.array([[1, 0], [0, 1], [1, 0.1], [1, 0.2]], np.float32)
    hits = np.array([True, False, True, True])
    return JudgedPhotos(features, np.array([0, 1, 0, 0]), np.array(losses), hits)


def test_the_figures_of_an_epoch_worked_by_hand():
    assert validation_figures(judged([1.0, 2.0, 3.0, 4.0])) == {
        "validation_loss": 2.5,
        "validation_accuracy": 0.75,
        "top_1": 1.0,
        "top_3": 1.0,
        "top_10": 1.0,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_validation_loss_that_is_no_finite_number_is_refused(value):
    with pytest.raises(TrainingError) as caught:
        validation_figures(judged([1.0, value, 3.0, 4.0]))
    assert str(caught.value) == f"the validation loss is {value}"
