"""The first pass over labelled photos: which of them can be read, and what they hold.

`augment` and `train` share their photos out among classes before they begin, so they must know
beforehand which ones are good. The pass decodes each photo once, by the very rules that the
job itself decodes by, and keeps only its hash and size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from pipelines.metrics import tell_rejects
from pipelines.progress import announce, progress_line, status_line
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.counter import Tally
from pipelines.ray_runtime.decode_task import open_photos
from pipelines.ray_runtime.session import quiet_data
from retrieval.errors import StorageError, UsageError
from retrieval.gallery.labels import assign_labels
from retrieval.gallery.listing import LINK_OUTSIDE_BYTES, is_left_out, list_photos
from retrieval.images import FIRST_DECODER, Preprocessing
from retrieval.images.fetch import FETCH_AT_ONCE, fetch_photos
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.storage import absolute_uri, is_local

__all__ = ["Scan", "list_labelled", "presume_photos", "scan_photos"]

_BLOCK_ROWS = 256  # photos of one task; only hashes come back, so memory does not bound it
# As `retrieval.models.folder` calls them, which loads torch.
_MODEL_FILES = ("/model.json", "/weights.safetensors")


@dataclass(frozen=True)
class Scan:
    """What the first pass found.

    Attributes:
        photos: One row a readable, labelled photo, sorted by image id: image_id, uri,
            size_bytes, label, content_sha256, width, height.
        rejects: Rows of REJECT_SCHEMA, one a labelled file that is no readable photo.
        num_listed: Files in the folder.
        num_unlabelled: Of which the rule gives no label; they were not opened.
        empty_classes: Labels (or folders) without any readable photo, sorted.
    """

    photos: pa.Table
    rejects: pa.Table
    num_listed: int
    num_unlabelled: int
    empty_classes: tuple[str, ...]

    @property
    def reject_reasons(self) -> dict[str, int]:
        """How many rejects of each reason, the commonest first."""
        return dict(Counter(self.rejects["reason"].to_pylist()).most_common())


def scan_photos(
    photos: str,
    rule: str,
    *,
    size: int,
    site: Site,
    decoder: int = FIRST_DECODER,
    listed: tuple[pa.Table, int] | None = None,
) -> Scan:
    """List a folder of labelled photos and open each of them once. Needs a connected Ray.

    Args:
        photos: Folder or address.
        rule: How photos get their labels; see `retrieval.gallery.labels`.
        size: Side in pixels at which the job will decode: a JPEG is read at a reduced scale.
        site: Where the job runs.
        decoder: By which the job will decode.
        listed: Of `list_labelled`, where it has been listed already.

    Raises:
        StorageError: the folder cannot be listed, or no labelled file is a readable photo.
        UsageError: the rule labels no photo.
    """
    photos = absolute_uri(photos)
    labelled, num_listed = listed or list_labelled(photos, rule)
    opened = _open_all(labelled, Preprocessing(size=size, decoder=decoder), site).sort_by(
        "image_id"
    )
    is_good = pc.is_null(opened["reason"])
    tell_rejects(Counter(opened["reason"].drop_null().to_pylist()))
    good = opened.filter(is_good).drop_columns(["modified_at", "reason", "message"])
    rejects = opened.filter(pc.invert(is_good)).select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA)
    if not good.num_rows:
        first = rejects.slice(0, 1).to_pylist()[0]
        raise StorageError(
            f"{photos}: none of the {rejects.num_rows} labelled files is a readable photo (such as "
            f"{first['image_id']}: {first['message']}). A folder that holds photos is needed."
            f"{_hint(labelled)}"
        )
    return _scan(photos, rule, good, rejects, (labelled, num_listed))


def presume_photos(photos: str, rule: str, *, follow_links: bool = False) -> Scan:
    """What `scan_photos` would find if every labelled file were a good photo; opens none.

    Each has its address for its hash, so that none is a copy of another. Needs no Ray.

    Raises:
        StorageError: the folder cannot be listed.
        UsageError: the rule labels no photo.
    """
    photos = absolute_uri(photos)
    labelled, num_listed = list_labelled(photos, rule, follow_links=follow_links)
    there = labelled.filter(pc.greater_equal(labelled["size_bytes"], 0))
    found = there.append_column("content_sha256", there["uri"]).sort_by("image_id")
    return _scan(photos, rule, found, REJECT_SCHEMA.empty_table(), (labelled, num_listed))


def _scan(
    photos: str, rule: str, good: pa.Table, rejects: pa.Table, listed: tuple[pa.Table, int]
) -> Scan:
    labelled, num_listed = listed
    known = set(labelled["label"].to_pylist())
    if rule == "folder":
        known |= _folders(photos)
    empty = tuple(sorted(known - set(good["label"].to_pylist())))
    return Scan(good, rejects, num_listed, num_listed - labelled.num_rows, empty)


def list_labelled(photos: str, rule: str, *, follow_links: bool = False) -> tuple[pa.Table, int]:
    """The labelled files, as `list_photos` gives them, with `label`; and how many there are.

    Raises:
        StorageError: the folder cannot be listed.
        UsageError: the rule labels no photo.
    """
    photos = absolute_uri(photos)
    with status_line(f"listing {photos}"):
        catalogue = list_photos(photos, follow_links=follow_links)
    if hint := _hint(catalogue):
        announce(f"{photos}:{hint}")
    ids = catalogue["image_id"].to_pylist()
    labels = assign_labels(ids, rule)
    labels = pc.if_else(pa.array(_is_of_model(ids), pa.bool_()), None, labels)
    labelled = catalogue.append_column("label", labels).filter(pc.is_valid(labels))
    if not labelled.num_rows:
        raise UsageError(
            f"{photos}: none of its {catalogue.num_rows} files lies in a class folder, such as "
            f"{catalogue['image_id'][0].as_py()!r}. One folder a class is needed, or `labels`."
            f"{_hint(catalogue)}"
        )
    return labelled, catalogue.num_rows


def _is_of_model(ids: Sequence[str]) -> list[bool]:
    """Whether each file lies in the folder of a trained model, whose pictures are no photos."""
    there = set(ids)
    first, second = _MODEL_FILES
    models = {name.removesuffix(first) for name in ids if name.endswith(first)}
    models = {model for model in models if model + second in there}
    return [name.rpartition("/")[0] in models for name in ids]


def _hint(catalogue: pa.Table) -> str:
    """A sentence on links that lead out; one to a folder has no label, so is not even a reject."""
    num_links = pc.sum(pc.equal(catalogue["size_bytes"], LINK_OUTSIDE_BYTES)).as_py()
    if not num_links:
        return ""
    return f" Links that lead out of the folder are not followed ({num_links}); see `follow_links`."


def _folders(photos: str) -> set[str]:
    """Class folders, empty ones too; an object store has none that are empty."""
    if not is_local(photos):
        return set()
    return {
        path.name for path in Path(photos).iterdir() if path.is_dir() and not is_left_out(path.name)
    }


def _open_all(catalogue: pa.Table, preprocessing: Preprocessing, site: Site) -> pa.Table:
    tally = Tally(catalogue.num_rows)
    starts = range(0, catalogue.num_rows, _BLOCK_ROWS)
    quiet_data(site)
    dataset = ray.data.from_blocks([catalogue.slice(start, _BLOCK_ROWS) for start in starts])
    dataset = dataset.map_batches(
        _open_batch,
        fn_args=(preprocessing, tally),
        batch_size=FETCH_AT_ONCE,
        batch_format="pyarrow",
        udf_modifying_row_count=False,
    )

    with progress_line("examined", "photos", catalogue.num_rows, tally.counts):
        blocks = list(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    return pa.concat_tables(blocks).combine_chunks()


def _open_batch(table: pa.Table, preprocessing: Preprocessing, tally: Tally) -> pa.Table:
    contents = fetch_photos(table["uri"].to_pylist(), table["size_bytes"].to_pylist())
    found = open_photos(contents, preprocessing)
    tally.add(table.num_rows, "examined", table["uri"][:1].to_pylist())
    columns = {
        "content_sha256": pa.array([photo.sha256 for photo in found], pa.string()),
        "width": pa.array([photo.width for photo in found], pa.int32()),
        "height": pa.array([photo.height for photo in found], pa.int32()),
        "reason": pa.array([photo.reason for photo in found], pa.string()),
        "message": pa.array([photo.message for photo in found], pa.string()),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table
