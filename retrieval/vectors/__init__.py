"""Any table of (id, vector) rows: our index, Parquet of other tools, .npy pairs, arrays.

source      what there is: files, parts of files, rows, dimensions
opening     a location → its source
parquet     Parquet files of other tools
npy         .npy files with their ids in Parquet
arrays      arrays in memory
parts       files cut into parts, so that workers can share one
columns     which columns hold what; lists, tensors or bytes → an array
ids         ids of all types → text → an array
long_ids    ids too long for an array, and what stands for them there
checks      vectors that no metric can rank
blocks      reading, a bounded number of rows at a time, with the vectors checked
read_ahead  the same, by a thread that reads the next blocks meanwhile
sampling    some rows from all over a source
duplicates  an id that occurs twice, found in bounded memory
"""

from retrieval.vectors.arrays import ArrayFile, array_source, row_number_ids
from retrieval.vectors.blocks import VectorBlock, read_blocks, read_id_text, read_ids
from retrieval.vectors.columns import VectorColumns
from retrieval.vectors.duplicates import Duplicate, find_duplicate
from retrieval.vectors.long_ids import LongIdError, LongIds
from retrieval.vectors.opening import open_source
from retrieval.vectors.parts import split
from retrieval.vectors.read_ahead import read_ahead
from retrieval.vectors.sampling import Sample, sample_vectors
from retrieval.vectors.source import VectorFile, VectorPart, VectorSource

__all__ = [
    "ArrayFile",
    "Duplicate",
    "LongIdError",
    "LongIds",
    "Sample",
    "VectorBlock",
    "VectorColumns",
    "VectorFile",
    "VectorPart",
    "VectorSource",
    "array_source",
    "find_duplicate",
    "open_source",
    "read_ahead",
    "read_blocks",
    "read_id_text",
    "read_ids",
    "row_number_ids",
    "sample_vectors",
    "split",
]
