"""A whole ranking: how it is made, its files, and whether it is right.

rank           queries × gallery → arrays: the public function
write          queries × gallery → a folder of Parquet parts and its manifest, made of
  settings       RankConfig
  plan           whether the two sides fit, and how the work is cut
  queries        ids and vectors of the queries
  incremental    what a previous ranking spares
  shard_lineage  rows that two versions share though their shards differ
  rank_blocks    sample → basis → initial thresholds → scan → a second scan for the unlucky
  executor       who does it: the threads of this process, or who is handed in
  search_parts   some parts of the gallery, in one process
  rank_report    what a run says of itself
estimate       what `write` would read and write, and about how long it would take
files          a finished ranking, read: Parquet parts in long form
ranking_writer  ... written
folder         where a ranking may lie, and which files there are its own
manifest       _ranking.json, read strictly
parts          the rows of one part, read strictly
sides          what is ranked, opened; how it is found again afterwards
verification/  is a ranking what brute force gives?
"""
