"""Any table of (id, vector) rows: our index, Parquet of other tools, .npy and Parquet pairs.

source     what there is: files, rows, dimensions
opening    a location → its source
parquet    Parquet files of other tools
npy        .npy files with their ids in Parquet
columns    an Arrow column of lists, tensors or bytes → an array
blocks     reading, a bounded number of rows at a time, with the vectors checked
"""

from retrieval.vectors.blocks import VectorBlock, read_blocks
from retrieval.vectors.columns import VectorColumns
from retrieval.vectors.opening import open_source
from retrieval.vectors.source import VectorFile, VectorSource

__all__ = [
    "VectorBlock",
    "VectorColumns",
    "VectorFile",
    "VectorSource",
    "open_source",
    "read_blocks",
]
