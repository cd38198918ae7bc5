"""Settings of `reindex`. Pure data: the command line reads it at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.embed.config import EmbedConfig
from retrieval.errors import UsageError
from retrieval.ranking.settings import RankConfig
from retrieval.settings import COUNT, FRACTION, check_settings, setting

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

    probe: str | None = setting(
        None, "Labelled queries, an index or a folder, to measure the version on."
    )
    min_top_1: float | None = setting(
        None, "Least top-1 accuracy of the probe, 0 to 1.", numbers=FRACTION
    )
    min_top_3: float | None = setting(None, "Least top-3 accuracy.", numbers=FRACTION)
    min_top_10: float | None = setting(None, "Least top-10 accuracy.", numbers=FRACTION)
    min_map: float | None = setting(None, "Least mean average precision.", numbers=FRACTION)
    min_overlap: float | None = setting(
        None,
        "Least mean share of each query's nearest that the version before listed too.",
        numbers=FRACTION,
    )
    overlap_k: int = setting(10, "How many nearest are compared.", numbers=COUNT)
    max_removed: float | None = setting(
        None,
        "Most of the version before that may be missing, 0 to 1: images that are gone, or can no "
        "longer be read. Needs no probe.",
        numbers=FRACTION,
        shape="SHARE",
    )

    def __post_init__(self) -> None:
        check_settings(self)
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
        rank: How it is ranked; by default 100 images a query.
    """

    embed: EmbedConfig = field(default_factory=EmbedConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    queries: str | None = setting(
        None, "Index or folder of photos to rank against the new version."
    )
    rankings: str | None = setting(None, "Folder of their ranking; brought up to date.")
    report: str | None = setting(None, "HTML page of the ranking. [default: RANKINGS.html]")
    rank: RankConfig = field(default_factory=lambda: RankConfig(top_k=100))

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
