"""What a night has found; its record in INDEX/_runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines.embed import EmbedReport
from pipelines.progress import announce
from pipelines.reindex.config import ReindexConfig
from pipelines.reindex.gate import GateFigures
from pipelines.reindex.ranking import NightRanking
from retrieval.index import RecordStamp, write_record

__all__ = ["NightRecord"]


@dataclass(frozen=True, kw_only=True)
class NightRecord:
    """A night, as far as it has come.

    Attributes:
        update: What became of the gallery.
        config: Settings of the night.
        gate: Figures of the version; None where none was asked for.
        ranking: The queries' ranking; None where there is none.
        failed: Why there is none, where it was asked for.
        seconds: Of each step.
        stamp: When and by what the record was written.
    """

    update: EmbedReport
    config: ReindexConfig
    gate: GateFigures | None
    ranking: NightRanking | None = None
    failed: str | None = None
    seconds: Mapping[str, float]
    stamp: RecordStamp | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as it is printed and stored."""
        record = self.update.to_json()
        own = {"rank": asdict(self.config.rank), "gate": asdict(self.config.gate)}
        record |= {"settings": {**record["settings"], **own}, "seconds": dict(self.seconds)}
        if self.gate is not None:
            record["gate"] = self.gate.to_json()
        if self.ranking is not None:
            record["ranking"] = self.ranking.to_json()
        elif self.failed is not None:
            record["ranking"] = {"failed": self.failed}
        return {**record, **(asdict(self.stamp) if self.stamp else {})}

    def written(self) -> NightRecord:
        """Write it, in place of what the run wrote before; gives it with its stamp."""
        record = replace(self, stamp=None).to_json()
        stamp = write_record(self.update.index, self.update.run_id, record, announce)
        return replace(self, stamp=stamp)
