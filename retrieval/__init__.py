"""Exact image retrieval: the library under the jobs.

Arrays, tensors and Arrow tables in and out. Nothing here knows Ray, click or `pipelines`.

    errors       the error tree
    storage      local paths and s3://, gs:// addresses through pyarrow
    catalogue    the listing of a gallery; labels
    images       bytes → RGB uint8; the one Preprocessing
    fetching     listed photos: their content, their pixels, or the reason why not
    augmentations  the catalogue, recipes, the guard, the contact sheet
    backbones    networks without their head, fingerprint
    weights      their files, read safely and laid in by name
    own_networks whose word has a network's code run, and what it says of its input
    training     losses, split, sampling, one epoch, validation by retrieval
    model_folder what training writes and embedding reads
    embedding    Embedder: a batch of uint8 images → embeddings
    index        the table of embeddings: schema, shards, commits, reading
    vectors      any source of (id, vector) rows: an index, Parquet of other tools, .npy pairs
    search       exact top-k: canonical scores, selection, merge
    rankings     the ranking's files
    metrics      top-k accuracy, mAP, precision
    experiments  the paper's table: rows, queries, comparison
    report       one HTML page
    drawn        the drawn gallery of the demo and the tests

Letters of shapes: B batch, H W pixels, D dimensions, Q queries, N gallery rows, K neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.index import IndexRows, read_index

__all__ = ["IndexRows", "read_index"]


def __getattr__(name: str) -> object:
    """Load what notebooks use only when it is asked for, so that --help stays fast."""
    if name in __all__:
        from retrieval import index

        return getattr(index, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
