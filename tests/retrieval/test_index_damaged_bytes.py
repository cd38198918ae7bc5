"""One byte of a shard is another one: a right result or one line, whoever reads it."""

from __future__ import annotations

import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError
from retrieval.index import index_schema, open_index, read_index, update_plan
from retrieval.index.compaction import RowSlice, compact
from retrieval.index.gallery_diff import CARRIED_SCHEMA
from retrieval.index.update_plan import plan_update
from retrieval.maintenance.check import check_index
from retrieval.vectors import open_source, read_blocks, split
from tests.retrieval.night_cases import gallery_of
from tests.retrieval.nights import SPEC, Gallery, LoopExecutor, begin, check, one_night
from tests.retrieval.nights import publish_candidate as publish
from tests.retrieval.plain_difference import plain_difference

COLUMNS = index_schema(SPEC).names
NUM_PHOTOS = 7


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(update_plan, "open_difference", plain_difference)


def index_of_one_shard(uri) -> Gallery:
    gallery = gallery_of(NUM_PHOTOS)
    publish(begin(uri, gallery, LoopExecutor(uri, gallery, shard_rows=50)))
    return gallery


class Readers:
    """All ways in which a shard's bytes come into a result."""

    def __init__(self, uri, gallery):
        self.uri, self.gallery, self.index = uri, gallery, open_index(uri)
        (self.shard,) = self.index.shards
        self.path = f"{uri}/{self.shard.path}"
        with open(self.path, "rb") as stream:  # noqa: PTH123 (many times)
            self.content = stream.read()
        table = pq.read_table(self.path).select(CARRIED_SCHEMA.names[1:])
        number = pa.array(range(NUM_PHOTOS), pa.int64())
        self.piece = table.add_column(0, "row", number).cast(CARRIED_SCHEMA)

    def read(self):
        rows = read_index(self.uri)
        return rows.ids, rows.labels, rows.embeddings.tobytes()

    def scan(self):
        source = open_source(self.uri)
        blocks = [block for part in split(source, 100) for block in read_blocks(source, part, 100)]
        return [(block.ids.tolist(), block.vectors.tobytes()) for block in blocks]

    def night(self):
        """What a night knows of the photos."""
        settings = Settings
        with plan_update(self.uri, self.index, SPEC, self.gallery.listed(), settings) as plan:
            return plan.difference.num_of_states(), plan.num_live

    def carried(self):
        shard = compact(self.uri, SPEC, [RowSlice(self.shard, self.piece)])
        return pq.read_table(f"{self.uri}/{shard.path}").to_pylist()

    def verify(self):
        # The vectors of these tests are not of length 1.
        return [fault for fault in check_index(self.index).faults if "has length" not in fault]

    def damage(self, place, bits):
        with open(self.path, "r+b") as stream:  # noqa: PTH123
            stream.seek(place)
            stream.write(bytes([self.content[place] ^ bits]))

    def check(self, right, places):
        """Each reader gives what is right, or one line; what checks bytes never misses one."""
        for place, bits in places:
            self.damage(place, bits)
            for name, (read, expected) in right.items():
                found = result_or_line(read)
                if name in ("carried", "verify"):  # compare every byte
                    assert found != expected, (name, place, bits)
                if name != "verify":
                    is_line = isinstance(found, str) and self.shard.path in found
                    assert found == expected or is_line, (name, place, bits, found)
            self.damage(place, 0)


def result_or_line(read):
    try:
        return read()
    except IndexFormatError as error:
        return str(error) if "\n" not in str(error) else error


class Settings:
    listed_us, settled_us, heal, by_content, retry_rejects = 0, 2**60, False, False, False


def readers_of(tmp_path):
    uri = str(tmp_path / "index")
    readers = Readers(uri, index_of_one_shard(uri))
    names = ("read", "scan", "night", "carried", "verify")
    return readers, {name: (getattr(readers, name), getattr(readers, name)()) for name in names}


def test_some_damaged_bytes_give_a_line_or_nothing(quick, tmp_path):
    readers, right = readers_of(tmp_path)
    numbers = random.Random(8)
    places = numbers.sample(range(len(readers.content)), 150)
    readers.check(right, [(place, numbers.randint(1, 255)) for place in places])


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64, 128, 255])
def test_every_damaged_byte_gives_a_line_or_nothing(quick, tmp_path, bits):
    readers, right = readers_of(tmp_path)
    readers.check(right, [(place, bits) for place in range(len(readers.content))])


@pytest.mark.parametrize("column", COLUMNS)
def test_a_columns_damaged_name_is_one_line_and_healed(tmp_path, column):
    uri = str(tmp_path / "index")
    gallery = index_of_one_shard(uri)
    (shard,) = open_index(uri).shards
    path = tmp_path / "index" / shard.path
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    start = content.index(column.encode(), footer)
    path.write_bytes(content[:start] + b"X" + content[start + 1 :])
    gallery.put("new/1", b"a new photo")
    del gallery.photos["a/00"]  # so that the shard is rewritten
    with pytest.raises(IndexFormatError, match=rf"{shard.path}: .* `heal`"):
        one_night(uri, gallery)
    assert open_index(uri).version == 0
    executor, _ = one_night(uri, gallery, heal=True)
    assert len(executor.embedded) >= NUM_PHOTOS - 1  # the new one may have been staged before
    check(uri, gallery)


def rewritten_without_checksums(path):
    """As other tools write: the same rows, and no checksum of a page."""
    table = pq.read_table(path)
    pq.write_table(table, path, compression="none", use_dictionary=False, store_schema=True)


def test_rows_are_not_carried_from_other_bytes_than_were_recorded(tmp_path):
    uri = str(tmp_path / "index")
    gallery = index_of_one_shard(uri)
    (shard,) = open_index(uri).shards
    path = tmp_path / "index" / shard.path
    rewritten_without_checksums(path)
    del gallery.photos["a/00"]
    with pytest.raises(IndexFormatError, match=r"their SHA-256 is .* `heal`"):
        one_night(uri, gallery)
    one_night(uri, gallery, heal=True)
    check(uri, gallery)


def test_of_a_shard_without_a_recorded_hash_what_can_be_is_checked(tmp_path, monkeypatch):
    uri = str(tmp_path / "index")
    index_of_one_shard(uri)
    (shard,) = open_index(uri).shards
    unknown = replace(shard, sha256="")
    assert update_plan._is_sound(uri, SPEC, unknown)
    path = tmp_path / "index" / shard.path
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes([content[60] ^ 255]) + content[61:])
    assert not update_plan._is_sound(uri, SPEC, unknown)
    path.unlink()
    assert not update_plan._is_sound(uri, SPEC, unknown)
