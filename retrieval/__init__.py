"""Exact image retrieval: the library under the jobs.

Arrays, tensors and Arrow tables in and out. Nothing here knows Ray, click or `pipelines`.

    errors       the error tree
    embedding_spec  how vectors were made
    parameters   how messages name parameters
    settings     fields of configs, with default, range and help; ranges, choices, setting_texts
    vector_columns  which columns of other tools hold what
    lazily       names of a package that are loaded when they are asked for
    storage      local paths and s3://, gs:// addresses through pyarrow
    gallery      what there is to embed: the listing, manifests, labels
    images       bytes → RGB uint8, or the reason why not
    augmentations  the registry, recipes, the quality filter, the contact sheet
    models       networks without their head; the model folder; images → embeddings
    training     losses, split, sampling, one epoch, validation by retrieval
    index        the table of embeddings: schema, shards, commits, reading, its nightly update
    vectors      any source of (id, vector) rows: an index, other tools' files, arrays
    search       exact top-k of a block of queries: canonical scores, selection, merge
    ranking      a whole ranking: how it is made, its files, whether it is right
    evaluation   top-k accuracy, mAP, precision
    maintenance  care of an index: status, check, differences, restore, vacuum
    experiments  the paper's table: rows, queries, comparison
    report       one HTML page
    drawn        the drawn gallery of the demo and the tests
    moved        modules by the names that they had before

Letters of shapes: B batch, H W pixels, D dimensions, Q queries, N gallery rows, K neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.moved import MOVED, keep_old_names

if TYPE_CHECKING:
    from retrieval.index import IndexRows, read_index

__all__ = ["IndexRows", "read_index"]

keep_old_names(MOVED)


def __getattr__(name: str) -> object:
    """Load what notebooks use only when it is asked for, so that the import stays fast."""
    if name in __all__:
        from retrieval import index

        return getattr(index, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
