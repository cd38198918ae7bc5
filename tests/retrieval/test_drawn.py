import dataclasses
from itertools import combinations

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from retrieval.drawn import NUM_CLASSES, draw_gallery, draw_photo
from retrieval.drawn.gallery import ODD_FILES
from retrieval.errors import StorageError, UsageError

SMALL = dict(num_classes=2, num_gallery_per_class=2, num_queries_per_class=1, num_distractors=2)
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


def test_another_building_photo_or_seed_draws_another_picture():
    images = [draw_photo(building, 0) for building in range(NUM_CLASSES)]
    images += [draw_photo(0, 1), draw_photo(0, 0, seed=1)]

    assert all(a != b for a, b in combinations(images, 2))


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (NUM_CLASSES, 0, 0)])
def test_a_number_out_of_range_is_refused(numbers):
    building, photo, seed = numbers

    with pytest.raises(UsageError) as refusal:
        draw_photo(building, photo, seed=seed)

    assert str(refusal.value) == (
        f"draw_photo: found building {building}, photo {photo}, seed {seed}, "
        "but each must be 0 or more, and building at most 11. Give numbers in this range."
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
    counts = {name: count + 1 for name, count in SMALL.items()}
    larger = draw_gallery(tmp_path / "larger", **counts, with_odd_files=False)

    for part in ("queries", "gallery"):
        few, many = files_of(getattr(drawn, part)), files_of(getattr(larger, part))
        photos = {name: few[name] for name in few if not name.endswith(tuple(ODD_FILES))}
        assert photos.items() <= many.items()


def test_classes_are_folders_and_distractors_lie_beside_them(tmp_path):
    plain = draw_gallery(tmp_path, **{**SMALL, "with_odd_files": False})
    queries, gallery = list(files_of(plain.queries)), list(files_of(plain.gallery))

    assert queries == ["lighthouse/lighthouse-query-00.jpg", "town-hall/town-hall-query-00.jpg"]
    assert gallery == [
        "distractor-00.jpg",
        "distractor-01.jpg",
        "lighthouse/lighthouse-00.jpg",
        "lighthouse/lighthouse-01.jpg",
        "town-hall/town-hall-00.jpg",
        "town-hall/town-hall-01.jpg",
    ]
    assert (plain.num_queries, plain.num_gallery, plain.num_distractors) == (2, 6, 2)
    assert plain.unreadable == ()


def test_odd_files_are_spread_over_the_classes(drawn):
    ids = [id_ for id_ in files_of(drawn.gallery) if id_.endswith(tuple(ODD_FILES))]

    assert len(ids) == len(ODD_FILES) == 9
    assert drawn.num_gallery == 6 + 9
    assert {id_.split("/")[0] for id_ in ids} == {"lighthouse", "town-hall"}


def test_unreadable_is_exactly_what_pillow_cannot_load(drawn):
    refused = []
    for id_ in files_of(drawn.gallery):
        try:
            with Image.open(drawn.gallery / id_) as image:
                image.load()
        except OSError:
            refused.append(id_)

    assert drawn.unreadable == tuple(refused)
    assert [id_.split("-")[-1] for id_ in refused] == ["text.jpg", "empty.jpg", "truncated.jpg"]


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


def test_sixteen_bits_transparency_and_motion_are_really_used(drawn):
    with Image.open(odd_file(drawn, "16-bit.png")) as image:
        assert np.asarray(image).max() > 255
    with Image.open(odd_file(drawn, "transparent.png")) as image:
        assert image.getchannel("A").getextrema() == (0, 255)
    with Image.open(odd_file(drawn, "animated.gif")) as image:
        assert image.n_frames == 3


def test_the_rotated_photo_is_upright_after_its_exif_orientation(drawn):
    index = list(ODD_FILES).index("exif-rotated.jpg")
    upright = draw_photo(index % SMALL["num_classes"], 2_000_000 + index)
    with Image.open(odd_file(drawn, "exif-rotated.jpg")) as image:
        assert image.getexif()[ExifTags.Base.Orientation] == 6
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


def refusal_of(folder, **settings):
    with pytest.raises(StorageError) as refusal:
        draw_gallery(folder, **{**NO_ODD_FILES, **settings})
    return str(refusal.value)


@pytest.mark.parametrize("name", ["holiday.jpg", "drawn.json"])
@pytest.mark.parametrize("content", ["", "[1, 2]", "{"])
def test_a_folder_of_something_else_is_refused_and_kept(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")

    assert refusal_of(tmp_path) == (
        f"{tmp_path}: found files but no valid drawn.json, needed a gallery drawn to its end. "
        "Delete the folder, or give a new or empty one."
    )
    assert files_of(tmp_path) == {name: content.encode()}


def test_a_gallery_of_other_settings_is_refused_with_the_difference(tmp_path):
    draw_gallery(tmp_path, **NO_ODD_FILES)

    assert refusal_of(tmp_path, seed=5, num_gallery_per_class=3) == (
        f"{tmp_path}: found a gallery drawn with num_gallery_per_class 2, seed 0, "
        "needed num_gallery_per_class 3, seed 5. "
        "Delete the folder, or give a new or empty one."
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
        patch.setattr("retrieval.drawn.gallery.draw_photo", stop)
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
    ("setting", "value", "needed"),
    [
        ("num_classes", 0, "at least 1. Give a larger"),
        ("num_classes", NUM_CLASSES + 1, "at most 12. Give a smaller"),
        ("num_gallery_per_class", -1, "at least 0. Give a larger"),
        ("seed", -1, "at least 0. Give a larger"),
    ],
)
def test_a_count_out_of_range_is_refused(tmp_path, setting, value, needed):
    with pytest.raises(UsageError) as refusal:
        draw_gallery(tmp_path / "never", **{**NO_ODD_FILES, setting: value})

    assert str(refusal.value) == f"draw_gallery: {setting}: found {value}, needed {needed} number."
    assert not (tmp_path / "never").exists()
