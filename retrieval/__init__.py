"""Exact image retrieval: the library under the jobs.

Arrays, tensors and Arrow tables in and out. Nothing here knows Ray, click or `pipelines`.

    errors       the error tree
    embedding_spec  how vectors were made
    parameters   how messages name parameters
    settings     fields of configs, with default, range and help; choices
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
    report_page  one HTML page
    public       what this package itself offers: open_index, rank, evaluate, report
    drawn        the drawn gallery of the demo and the tests
    moved        modules by the names that they had before

Letters of shapes: B batch, H W pixels, D dimensions, Q queries, N gallery rows, K neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retrieval.lazily import lazily
from retrieval.moved import MOVED, keep_old_names

if TYPE_CHECKING:
    from retrieval.index.reading import IndexRows, read_index
    from retrieval.models.model import Model, load_model
    from retrieval.public.index import Index, open_index
    from retrieval.public.judging import evaluate, report
    from retrieval.public.ranking import Ranking, open_ranking, rank, top_k
    from retrieval.ranking.verification.verify import verify

__all__ = [
    "Index",
    "IndexRows",
    "Model",
    "Ranking",
    "evaluate",
    "load_model",
    "open_index",
    "open_ranking",
    "rank",
    "read_index",
    "report",
    "top_k",
    "verify",
]

# Loaded when they are asked for, so that the import stays fast.
_MODULES: Final = {
    "Index": "public.index",
    "IndexRows": "index.reading",
    "Model": "models.model",
    "Ranking": "public.ranking",
    "evaluate": "public.judging",
    "load_model": "models.model",
    "open_index": "public.index",
    "open_ranking": "public.ranking",
    "rank": "public.ranking",
    "read_index": "index.reading",
    "report": "public.judging",
    "top_k": "public.ranking",
    "verify": "ranking.verification.verify",
}

keep_old_names(MOVED)

__getattr__ = lazily(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
