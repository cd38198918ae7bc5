"""Exact image retrieval: the library under the jobs.

Arrays, tensors and Arrow tables in and out. Nothing here knows Ray, click or `pipelines`.

    errors       the error tree
    storage      local paths and s3://, gs:// addresses through pyarrow
    catalogue    the listing of a gallery; labels
    images       bytes → RGB uint8; the one Preprocessing
    backbones    networks without their head, weights, fingerprint; the model folder
    embedding    Embedder: a batch of uint8 images → embeddings
    index        the table of embeddings: schema, shards, commits, reading
    vectors      any source of (id, vector) rows: an index, Parquet of other tools, .npy pairs
    search       exact top-k: canonical scores, selection, merge
    rankings     the ranking's files
    metrics      top-k accuracy, mAP, precision
    report       one HTML page
    drawn        the drawn gallery of the demo and the tests

Letters of shapes: B batch, H W pixels, D dimensions, Q queries, N gallery rows, K neighbours.
"""
