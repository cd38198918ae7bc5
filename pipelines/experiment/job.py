"""The paper's table of configurations, trained and measured on one's own photos.

Reads       every photo once to examine it, and once more to copy it; then the copies.
Writes      OUTPUT/experiment.md, .csv and .json, anew after every row; OUTPUT/photos with the two
            sides and the augmented data sets; OUTPUT/rows/NAME with what belongs to a row.
Resources   those of `augment`, `train`, `embed` and `rank`, one after the other on one Ray.
Resume      run it again: rows that were done with the same settings are kept, a training that
            was killed goes on.
Fails when  the photos cannot be shared out or copied. A row that fails is listed with its
            message and does not stop the others; one whose weights are not here takes no time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines import augment
from pipelines.experiment.config import ExperimentConfig
from pipelines.experiment.photos import Sides, copy_photos, find_sides
from pipelines.experiment.places import GALLERY, QUERIES, check_places
from pipelines.experiment.row import RowRun
from pipelines.progress import status_line
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.session import session
from pipelines.scan import scan_photos
from retrieval.errors import ModelError, RetrievalError
from retrieval.experiments import (
    DONE,
    NOT_RUN,
    PAPER_BASIS,
    ROWS,
    Facts,
    Measured,
    Outcome,
    Row,
    as_csv,
    as_json,
    as_markdown,
    choose_rows,
    record,
)
from retrieval.format_version import FORMAT_VERSION
from retrieval.models.backbones import fetch_imagenet_weights, imagenet_weights_file
from retrieval.storage import absolute_uri, check_writable, first_line, join, write_bytes

__all__ = ["run"]


def run(
    photos: str,
    output: str,
    config: ExperimentConfig,
    say: Callable[[str], None],
    *,
    table: Sequence[Row] = ROWS,
    site: Site = Site(),
) -> dict[str, Any]:
    """Train and measure rows of the table.

    Args:
        photos: Folder or address of the photos, one folder a class.
        output: Folder or address of all results.
        config: Settings.
        say: Called with one line for each step.
        table: The rows there are; those that are not run stand in the outputs too.
        site: Where all of it runs.

    Returns:
        The report: what was run, a record of each row, names of those that failed, seconds.

    Raises:
        RetrievalError: see the head of this module.
    """
    start = time.monotonic()
    photos, output = absolute_uri(photos), absolute_uri(output)
    chosen = choose_rows(table, config.rows)
    check_places(photos, output)
    check_writable(output)
    with session(site):
        scan = scan_photos(photos, "folder", size=augment.AugmentConfig.size, site=site)
        sides = find_sides(
            photos, scan, per_class=config.queries_per_class, seed=config.seed, say=say
        )
        say(f"{sides.count(QUERIES)} queries and {sides.count(GALLERY)} gallery photos")
        copies = join(output, "photos")
        copy_photos(sides, copies)
        runs = {
            row.name: RowRun(row, config, copies, sides, join(output, "rows", row.name), site)
            for row in table
        }
        outcomes = _known_outcomes(runs, chosen, say)
        comparison = _Comparison(output, _facts(photos, config, sides), runs, outcomes)
        comparison.write()
        data_sets = _DataSets(join(copies, GALLERY), site)
        for number, row in enumerate(chosen, 1):
            tell = _prefixed(f"{number}/{len(chosen)} {row.name}: ", say)
            outcomes[row.name] = _settle(runs[row.name], outcomes[row.name], data_sets, tell)
            comparison.write()
    failed = [row.name for row in chosen if outcomes[row.name].status.startswith("failed")]
    seconds = round(time.monotonic() - start, 1)
    return {**comparison.report(), "failed": failed, "seconds": seconds}


def _prefixed(prefix: str, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: say(prefix + line)


def _known_outcomes(
    runs: Mapping[str, RowRun], chosen: Sequence[Row], say: Callable[[str], None]
) -> dict[str, Outcome]:
    """What is known before any training: rows done before, and rows whose weights are missing."""
    outcomes = {}
    for name, row_run in runs.items():
        measured = row_run.finished()
        outcomes[name] = Outcome.done(measured) if measured else Outcome()
    starting = [
        runs[row.name]
        for row in chosen
        if outcomes[row.name].status != DONE and runs[row.name].starts_from_imagenet
    ]
    missing = _missing_weights({row_run.row.backbone for row_run in starting}, say)
    for row_run in starting:
        if file := missing.get(row_run.row.backbone):
            outcomes[row_run.row.name] = Outcome.weights_missing(file)
    return outcomes


def _missing_weights(networks: set[str], say: Callable[[str], None]) -> dict[str, str]:
    """The files of ImageNet weights that are not to be had, by network."""
    missing, why = {}, ""
    for network in sorted(networks):
        try:
            with status_line(f"looking for the weights of {network}"):
                fetch_imagenet_weights(network)
        except ModelError as error:
            missing[network] = str(imagenet_weights_file(network))
            why = first_line(error.__cause__ or error)
    if missing:
        say(
            f"weights of {', '.join(missing)} are neither on this machine nor can they be "
            f"downloaded ({why})"
        )
    return missing


class _DataSets:
    """The augmented photos, made when the first row needs them."""

    def __init__(self, gallery: str, site: Site) -> None:
        self._gallery = gallery
        self._site = site
        self._errors: dict[str, str] = {}
        self._made: set[str] = set()

    def make(self, row_run: RowRun, say: Callable[[str], None]) -> None:
        """Make the data set of a row, once; what went wrong then is raised for every row."""
        uri = row_run.data_set
        if uri in self._made:
            return
        if uri not in self._errors:
            say(f"augmenting the gallery photos for it ({uri}) ...")
            try:
                config = row_run.config.augment_config(row_run.row)
                augment.run(self._gallery, uri, config, say, site=self._site)
            except RetrievalError as error:
                self._errors[uri] = str(error)
        if uri in self._errors:
            raise RetrievalError(self._errors[uri])
        self._made.add(uri)


def _settle(
    row_run: RowRun, known: Outcome, data_sets: _DataSets, say: Callable[[str], None]
) -> Outcome:
    """Run a row, unless it is known how it ends."""
    if known.measured:
        say(f"done before: {_in_words(known.measured, row_run.row)}")
        return known
    if known.status != NOT_RUN:
        say(known.status)
        return known
    try:
        data_sets.make(row_run, say)
        outcome = Outcome.done(row_run.run(say))
    except RetrievalError as error:
        outcome = Outcome.failed(str(error))
    say(_in_words(outcome.measured, row_run.row) if outcome.measured else outcome.status)
    return outcome


def _in_words(measured: Measured, row: Row) -> str:
    ours = (measured.top_1, measured.top_3, measured.top_10)
    pairs = zip((1, 3, 10), ours, row.paper, strict=True)
    figures = ", ".join(f"top-{k} {value:.3f} (paper {paper:.3f})" for k, value, paper in pairs)
    return f"{figures}, mAP {measured.map:.3f}; {measured.training_s} s of training"


def _facts(photos: str, config: ExperimentConfig, sides: Sides) -> Facts:
    return Facts(
        scale=config.scale,
        epochs=config.epochs,
        image_size=config.image_size,
        batch_size=config.batch_size,
        seed=config.seed,
        per_class=config.per_class,
        photos=photos,
        num_queries=sides.count(QUERIES),
        num_gallery=sides.count(GALLERY),
        num_classes=sides.num_classes(GALLERY),
        num_query_classes=sides.num_classes(QUERIES),
        chance=(sides.chance(1), sides.chance(3), sides.chance(10)),
    )


@dataclass(frozen=True)
class _Comparison:
    """The outputs: what was run, and how each row of the table has ended so far."""

    output: str
    facts: Facts
    runs: Mapping[str, RowRun]
    outcomes: Mapping[str, Outcome]

    def _records(self) -> list[dict[str, Any]]:
        return [
            record(row_run.row, self.outcomes[name], row_run.config.data_set(row_run.row))
            for name, row_run in self.runs.items()
        ]

    def report(self) -> dict[str, Any]:
        """All of it, as JSON."""
        records = self._records()
        statuses = Counter(entry["status"].partition(":")[0] for entry in records)
        return {
            FORMAT_VERSION: 1,
            "output": self.output,
            **{kind: self._uri(kind) for kind in ("markdown", "csv", "json")},
            "run": asdict(self.facts),
            "paper": dict(PAPER_BASIS),
            "statuses": dict(statuses),
            "rows": records,
        }

    def _uri(self, kind: str) -> str:
        return join(self.output, f"experiment.{'md' if kind == 'markdown' else kind}")

    def write(self) -> None:
        """Write all three anew, each whole or not at all."""
        report = self.report()
        write_bytes(report["markdown"], as_markdown(self.facts, report["rows"]))
        write_bytes(report["csv"], as_csv(report["rows"]))
        write_bytes(report["json"], as_json(report))
