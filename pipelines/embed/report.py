"""What a run of `embed` has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.embed.budget import Budget
from retrieval.index import EmbeddingSpec, RecordStamp, UpdateCounts

__all__ = ["EmbedReport"]


@dataclass(frozen=True, kw_only=True)
class EmbedReport:
    """What became of a gallery.

    Attributes:
        index, photos: Their addresses.
        version_before: The version that was there; None for a new index.
        version: The version that is current now.
        run_id, created_at, listed_us: Name of the run, and when it began to list.
        counts: What became of the images.
        num_rows: Of the index.
        rejects: Address of the rejects' folder; None if there are none.
        model: How the embeddings are made.
        settings: Those that had a say.
        precision: How many images were embedded in which precision and batch size.
        photos_per_s: Images embedded a second; None where none was to be embedded.
        stages: What bounds the job; None where none was to be embedded.
        seconds: Of each step.
        preprocessing: What the network's input is, and what says so.
        stamp: When and by what the record of this run was written.
    """

    index: str
    photos: str
    version_before: int | None
    version: int
    run_id: str
    created_at: str
    listed_us: int
    counts: UpdateCounts
    num_rows: int
    rejects: str | None
    model: EmbeddingSpec
    settings: Mapping[str, Any]
    precision: Mapping[str, int]
    photos_per_s: float | None
    stages: Budget | None
    seconds: Mapping[str, float]
    preprocessing: Mapping[str, Any]
    stamp: RecordStamp | None = None

    @property
    def status(self) -> str:
        """Whether the index was changed."""
        return "unchanged" if self.version == self.version_before else "committed"

    def to_json(self) -> dict[str, Any]:
        """The report as it is printed, and stored in INDEX/_runs."""
        return {
            "index": self.index,
            "photos": self.photos,
            "status": self.status,
            "version": self.version,
            "version_before": self.version_before,
            "version_after": self.version,
            "run_id": self.run_id,
            "created_at": self.created_at,
            "listed_us": self.listed_us,
            **asdict(self.counts),
            "num_rows": self.num_rows,
            "rejects": self.rejects,
            "model": asdict(self.model),
            "settings": dict(self.settings),
            "precision": dict(self.precision),
            "photos_per_s": self.photos_per_s,
            "stages": self.stages and asdict(self.stages),
            "seconds": dict(self.seconds),
            "preprocessing": dict(self.preprocessing),
            **(asdict(self.stamp) if self.stamp else {}),
        }
