"""The preprocessing and its fingerprint."""

import json

import pytest

from retrieval.errors import ModelError, UsageError
from retrieval.images import Preprocessing


def test_the_fingerprint_of_the_papers_preprocessing_never_changes():
    # Every index of it hangs on this. sha256sum of
    # {"decoder_version": 1, "mean": [0.485, 0.456, 0.406], "size": 224,
    #  "std": [0.229, 0.224, 0.225]} in one line
    golden = "e40df8fe4429ece999ab385c679b4ffd00ffd4be5b4ebbc713a3164ebe91b653"
    assert Preprocessing().fingerprint() == golden


@pytest.mark.parametrize(
    "change", [{"size": 225}, {"mean": (0.485, 0.456, 0.4)}, {"std": (0.229, 0.224, 0.2)}]
)
def test_every_field_counts_in_the_fingerprint(change):
    assert Preprocessing(**change).fingerprint() != Preprocessing().fingerprint()


def test_equal_preprocessings_have_equal_fingerprints():
    one, other = Preprocessing(mean=(0, 0, 0)), Preprocessing(mean=[0.0, 0.0, 0.0])
    assert one == other
    assert one.fingerprint() == other.fingerprint()


def test_preprocessing_survives_json():
    before = Preprocessing(size=96, mean=(0.1, 0.2, 1 / 3), std=(1.0, 2.0, 3.0))
    after = Preprocessing.from_json(json.loads(json.dumps(before.to_json())))
    assert after == before
    assert after.fingerprint() == before.fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"crop": 1},
            r"keys \['crop', 'mean', 'size', 'std'\], needed are \['mean', 'size', 'std'\]",
        ),
        ({"size": "224"}, "needed are a whole size"),
        ({"mean": None}, "not iterable"),
        ({"std": ["a", 1, 1]}, "could not convert"),
    ],
)
def test_a_model_with_another_preprocessing_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        Preprocessing.from_json(Preprocessing().to_json() | change)


def test_a_missing_key_is_not_filled_from_the_defaults():
    with pytest.raises(ModelError, match="needed are"):
        Preprocessing.from_json({"size": 224})


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"size": 224.0},
        {"size": True},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, float("nan"))},
        {"std": (1, 1, 0)},
        {"std": (1, 1, float("inf"))},
    ],
    ids=str,
)
def test_impossible_preprocessing_is_refused(values):
    with pytest.raises(
        UsageError, match="needed are a whole size >= 1, 3 finite means, 3 stds > 0"
    ):
        Preprocessing(**values)
