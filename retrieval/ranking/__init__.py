"""A whole ranking: its files, what it was made of, and whether it is right.

files          writing and reading: Parquet parts in long form
manifest       _ranking.json, read strictly
settings       RankConfig
parts          the rows of one part, read strictly
sides          what was ranked, and how it is found again
verification/  is a ranking what brute force gives?
"""
