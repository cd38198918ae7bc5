import dataclasses
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from retrieval.drawn import NUM_CLASSES, draw_gallery, draw_photo
from retrieval.drawn.buildings import DESIGNS
from retrieval.drawn.odd_files import EXIF_ORIENTATION, ODD_FILES
from retrieval.errors import StorageError, UsageError

SMALL = {
    "num_classes": 2,
    "num_gallery_per_class": 2,
    "num_queries_per_class": 1,
    "num_distractors": 2,
}
NO_ODD_FILES = {**SMALL, "num_classes": 1, "num_distractors": 0, "with_odd_files": False}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two classes with all odd files; read only."""
    return draw_gallery(tmp_path_factory.mktemp("drawn") / "gallery", **SMALL)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def odd_file(drawn, ending):
    (path,) = drawn.gallery.glob(f"*/*-{ending}")
    return path


@pytest.mark.parametrize("building", range(NUM_CLASSES))
def test_a_photo_is_an_rgb_picture_of_a_photos_size_with_something_in_it(building):
    image = draw_photo(building, 1)

    assert image.mode == "RGB"
    assert 320 <= min(image.size) <= max(image.size) <= 640
    assert np.asarray(image).std() > 10


@pytest.mark.parametrize("seed", range(3), ids="seed{}".format)
def test_the_same_numbers_draw_the_same_pixels(seed):
    assert draw_photo(4, 7, seed=seed) == draw_photo(4, 7, seed=seed)


def test_another_building_photo_or_seed_draws_another_picture():
    images = [
        draw_photo(0, 0),
        draw_photo(0, 1),
        draw_photo(0, 0, seed=1),
        *(draw_photo(building, 0) for building in range(1, NUM_CLASSES)),
        draw_photo(NUM_CLASSES, 0),
        draw_photo(NUM_CLASSES + 1, 0),
    ]

    assert all(a != b for a, b in combinations(images, 2))


def test_every_class_has_its_own_readable_name():
    names = [design.name for design in DESIGNS]

    assert len(set(names)) == len(names) == NUM_CLASSES
    assert all(name.replace("-", "").isalpha() and name.islower() for name in names)


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_a_negative_number_is_refused(numbers):
    building, photo, seed = numbers

    with pytest.raises(UsageError) as refusal:
        draw_photo(building, photo, seed=seed)

    assert str(refusal.value) == (
        f"draw_photo: found building {building}, photo {photo}, seed {seed}, "
        "but each must be 0 or more. Give whole numbers from 0."
    )


def test_the_same_seed_draws_the_same_bytes(drawn, tmp_path):
    again = draw_gallery(tmp_path / "again", **SMALL)

    assert files_of(again.gallery) == files_of(drawn.gallery)
    assert files_of(again.queries) == files_of(drawn.queries)


def test_another_seed_draws_other_photos_under_the_same_names(tmp_path):
    one = files_of(draw_gallery(tmp_path / "one", **NO_ODD_FILES, seed=1).gallery)
    two = files_of(draw_gallery(tmp_path / "two", **NO_ODD_FILES, seed=2).gallery)

    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one)


def test_a_photo_does_not_depend_on_how_many_others_are_drawn(drawn, tmp_path):
    more = {
        "num_classes": 3,
        "num_gallery_per_class": 3,
        "num_queries_per_class": 2,
        "num_distractors": 3,
        "with_odd_files": False,
    }
    larger = draw_gallery(tmp_path / "larger", **more)
    odd_names = {path.name for odd in ODD_FILES for path in drawn.gallery.glob(f"*/*-{odd.ending}")}

    for part in ("queries", "gallery"):
        few, many = files_of(getattr(drawn, part)), files_of(getattr(larger, part))
        shared = {name: few[name] for name in few if Path(name).name not in odd_names}
        assert shared.items() <= many.items()


def test_no_two_files_of_a_gallery_are_the_same(drawn):
    contents = [*files_of(drawn.gallery).values(), *files_of(drawn.queries).values()]

    assert len(set(contents)) == len(contents)


def test_classes_are_folders_and_distractors_lie_beside_them(drawn):
    queries, gallery = files_of(drawn.queries), files_of(drawn.gallery)

    assert sorted(queries) == [
        "lighthouse/lighthouse-query-00.jpg",
        "town-hall/town-hall-query-00.jpg",
    ]
    assert sorted(gallery) == [
        "distractor-00.jpg",
        "distractor-01.jpg",
        "lighthouse/lighthouse-00.jpg",
        "lighthouse/lighthouse-01.jpg",
        "lighthouse/lighthouse-animated.gif",
        "lighthouse/lighthouse-cmyk.jpg",
        "lighthouse/lighthouse-text.jpg",
        "lighthouse/lighthouse-transparent.png",
        "town-hall/town-hall-00.jpg",
        "town-hall/town-hall-01.jpg",
        "town-hall/town-hall-16-bit.png",
        "town-hall/town-hall-empty.jpg",
        "town-hall/town-hall-exif-rotated.jpg",
        "town-hall/town-hall-png-inside.jpg",
        "town-hall/town-hall-truncated.jpg",
    ]
    assert drawn.num_queries == len(queries)
    assert drawn.num_gallery == len(gallery)
    assert drawn.num_distractors == 2


def test_without_odd_files_every_file_is_a_photo(tmp_path):
    plain = draw_gallery(tmp_path / "plain", **NO_ODD_FILES)

    assert sorted(files_of(plain.gallery)) == [
        "town-hall/town-hall-00.jpg",
        "town-hall/town-hall-01.jpg",
    ]
    assert plain.num_gallery == 2
    assert plain.unreadable == ()


def test_beyond_the_designs_classes_are_houses_of_their_own(tmp_path):
    counts = {**NO_ODD_FILES, "num_classes": NUM_CLASSES + 1, "num_gallery_per_class": 0}
    wide = draw_gallery(tmp_path / "wide", **counts)

    names = sorted(path.name for path in wide.queries.iterdir())
    assert names == sorted([*(design.name for design in DESIGNS), f"house-{NUM_CLASSES}"])


def test_unreadable_is_exactly_what_pillow_cannot_load(drawn):
    refused = []
    for id_ in files_of(drawn.gallery):
        try:
            with Image.open(drawn.gallery / id_) as image:
                image.load()
        except OSError:
            refused.append(id_)

    assert drawn.unreadable == tuple(sorted(refused))
    assert len(refused) == 3


def test_the_broken_files_are_broken_in_three_ways(drawn):
    truncated = odd_file(drawn, "truncated.jpg")
    with Image.open(truncated) as image:  # the head is whole, the pixels are not
        assert image.format == "JPEG"
        with pytest.raises(OSError, match="truncated"):
            image.load()

    assert odd_file(drawn, "text.jpg").read_text(encoding="utf-8").startswith("404 Not Found")
    assert odd_file(drawn, "empty.jpg").read_bytes() == b""


@pytest.mark.parametrize(
    ("ending", "format_", "mode"),
    [
        ("cmyk.jpg", "JPEG", "CMYK"),
        ("16-bit.png", "PNG", "I;16"),
        ("transparent.png", "PNG", "RGBA"),
        ("exif-rotated.jpg", "JPEG", "RGB"),
        ("animated.gif", "GIF", "P"),
        ("png-inside.jpg", "PNG", "RGB"),
    ],
)
def test_an_odd_file_has_the_format_and_mode_it_is_named_for(drawn, ending, format_, mode):
    with Image.open(odd_file(drawn, ending)) as image:
        assert (image.format, image.mode) == (format_, mode)


def test_sixteen_bits_and_transparency_are_really_used(drawn):
    with Image.open(odd_file(drawn, "16-bit.png")) as image:
        assert np.asarray(image).max() > 255
    with Image.open(odd_file(drawn, "transparent.png")) as image:
        assert image.getchannel("A").getextrema() == (0, 255)


def test_the_animation_moves(drawn):
    with Image.open(odd_file(drawn, "animated.gif")) as image:
        assert image.n_frames == 3
        frames = []
        for frame in range(image.n_frames):
            image.seek(frame)
            frames.append(np.asarray(image.convert("RGB"), dtype=float).mean())

    assert frames[0] > frames[1] > frames[2]


def test_the_rotated_photo_is_upright_after_its_exif_orientation(drawn):
    index = [odd.ending for odd in ODD_FILES].index("exif-rotated.jpg")
    upright = draw_photo(index % SMALL["num_classes"], 2_000_000 + index)
    with Image.open(odd_file(drawn, "exif-rotated.jpg")) as image:
        assert image.getexif()[EXIF_ORIENTATION] == 6
        assert image.size == upright.size[::-1]
        turned = ImageOps.exif_transpose(image)

    difference = np.abs(np.asarray(turned, dtype=float) - np.asarray(upright, dtype=float))
    assert difference.mean() < 5  # JPEG only


def test_a_gallery_drawn_before_is_reused_untouched(tmp_path):
    first = draw_gallery(tmp_path / "twice", **NO_ODD_FILES)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "twice").rglob("*")}

    second = draw_gallery(tmp_path / "twice", **NO_ODD_FILES)

    assert dataclasses.asdict(second) == dataclasses.asdict(first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "twice").rglob("*")} == times


def test_an_empty_folder_is_drawn_into(tmp_path):
    assert draw_gallery(tmp_path, **NO_ODD_FILES).num_gallery == 2


def refusal_of(folder, **settings):
    with pytest.raises(StorageError) as refusal:
        draw_gallery(folder, **{**NO_ODD_FILES, **settings})
    return str(refusal.value)


def test_a_folder_of_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")

    assert refusal_of(tmp_path) == (
        f"{tmp_path}: found files but no valid drawn.json, needed a gallery drawn to its end. "
        "Delete the folder, or give a new or empty one."
    )
    assert files_of(tmp_path) == {"holiday.jpg": b"mine"}


@pytest.mark.parametrize("content", ["", "[1, 2]", "{"])
def test_a_damaged_record_is_no_record(tmp_path, content):
    (tmp_path / "drawn.json").write_text(content, encoding="utf-8")

    assert refusal_of(tmp_path) == (
        f"{tmp_path}: found files but no valid drawn.json, needed a gallery drawn to its end. "
        "Delete the folder, or give a new or empty one."
    )


def test_a_gallery_of_other_settings_is_refused_with_the_difference(tmp_path):
    draw_gallery(tmp_path, **NO_ODD_FILES)

    assert refusal_of(tmp_path, seed=5, num_gallery_per_class=3) == (
        f"{tmp_path}: found a gallery drawn with num_gallery_per_class 2, seed 0, "
        "needed num_gallery_per_class 3, seed 5. "
        "Delete the folder, or give a new or empty one."
    )


def test_a_gallery_of_another_drawing_version_is_refused(tmp_path):
    draw_gallery(tmp_path, **NO_ODD_FILES)
    record = json.loads((tmp_path / "drawn.json").read_text(encoding="utf-8"))
    version = record["drawing_version"]
    (tmp_path / "drawn.json").write_text(json.dumps({**record, "drawing_version": 0}))

    assert refusal_of(tmp_path) == (
        f"{tmp_path}: found a gallery drawn with drawing_version 0, "
        f"needed drawing_version {version}. Delete the folder, or give a new or empty one."
    )


def test_a_gallery_with_a_file_missing_is_refused(tmp_path):
    drawn = draw_gallery(tmp_path, **NO_ODD_FILES)
    (drawn.gallery / "town-hall" / "town-hall-01.jpg").unlink()

    assert refusal_of(tmp_path) == (
        f"{tmp_path}: found 1 of 3 files missing, first town-hall-01.jpg. "
        "Delete the folder, or give a new or empty one."
    )


def test_a_drawing_that_was_stopped_is_not_reused(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("retrieval.drawn.gallery.jpeg_quality", stop)
        with pytest.raises(KeyboardInterrupt):
            draw_gallery(tmp_path, **NO_ODD_FILES)

    assert "no valid drawn.json" in refusal_of(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "taken").write_text("", encoding="utf-8")

    message = refusal_of(tmp_path / "taken")

    assert message.startswith(f"{tmp_path / 'taken'}: could not be drawn into, found: ")
    assert message.endswith("A folder that can be written is needed: give another one.")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("setting", "value", "least"),
    [
        ("num_classes", 0, 1),
        ("num_gallery_per_class", -1, 0),
        ("num_queries_per_class", -1, 0),
        ("num_distractors", -1, 0),
        ("seed", -1, 0),
    ],
)
def test_a_count_below_its_least_is_refused(tmp_path, setting, value, least):
    with pytest.raises(UsageError) as refusal:
        draw_gallery(tmp_path / "never", **{**NO_ODD_FILES, setting: value})

    assert str(refusal.value) == (
        f"draw_gallery: {setting}: found {value}, needed at least {least}. Give a larger number."
    )
    assert not (tmp_path / "never").exists()
