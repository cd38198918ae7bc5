"""Settings of `reindex`."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.embed import EmbedConfig
from pipelines.rank import RankConfig
from retrieval.errors import UsageError
from retrieval.ranges import COUNT, FRACTION, check_settings

__all__ = ["GateConfig", "ReindexConfig"]
_FIGURES = ("top_1", "top_3", "top_10", "map", "overlap")


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """What a version must reach to be committed; None asks for nothing.

    Attributes:
        probe: Labelled queries: an index, or a folder of photos.
        min_top_1, min_top_3, min_top_10: Top-k accuracy of the probe, 0 to 1.
        min_map: Mean average precision, 0 to 1.
        min_overlap: Mean share of each query's `overlap_k` nearest that the version before also
            listed, 0 to 1.
        overlap_k: Neighbours that are compared.
        max_removed: Share of the version before that may be missing, 0 to 1; needs no probe.
    """

    probe: str | None = None
    min_top_1: float | None = None
    min_top_3: float | None = None
    min_top_10: float | None = None
    min_map: float | None = None
    min_overlap: float | None = None
    overlap_k: int = 10
    max_removed: float | None = None

    def __post_init__(self) -> None:
        shares = ("max_removed", *(f"min_{name}" for name in _FIGURES))
        check_settings(self, dict.fromkeys(shares, FRACTION) | {"overlap_k": COUNT})
        if self.probe is None and self.bounds():
            name = next(iter(self.bounds()))
            raise UsageError(
                f"`min_{name}`: needs a labelled probe set to be measured on: `probe`."
            )

    def bounds(self) -> dict[str, float]:
        """The least value of each figure that has one."""
        found = {name: getattr(self, f"min_{name}") for name in _FIGURES}
        return {name: least for name, least in found.items() if least is not None}


@dataclass(frozen=True, kw_only=True)
class ReindexConfig:
    """Settings of the job.

    Attributes:
        embed: How the index is made.
        gate: What a version must reach.
        queries: An index, or a folder of photos, to be ranked against the new version.
        rankings: The folder of their ranking; one that is there is brought up to date.
        report: The HTML page of the ranking; by default beside it.
        rank: How it is ranked.
    """

    embed: EmbedConfig = field(default_factory=EmbedConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    queries: str | None = None
    rankings: str | None = None
    report: str | None = None
    rank: RankConfig = field(default_factory=RankConfig)

    def __post_init__(self) -> None:
        if (self.queries is None) != (self.rankings is None):
            have, lack = ("`queries`", "`rankings`")[:: 1 if self.queries else -1]
            raise UsageError(f"{have}: needs {lack} too: who is ranked, and where it is written.")
        if self.report is not None and self.rankings is None:
            raise UsageError("`report`: is of a ranking; give `queries` and `rankings` too.")

    @property
    def page(self) -> str:
        """Where the report is written."""
        return self.report or f"{(self.rankings or '').rstrip('/')}.html"
