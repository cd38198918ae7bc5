"""What `import retrieval` offers: the library as notebooks, scripts and services call it.

index     open_index: an index as arrays, Arrow, pandas; search
ranking   rank, open_ranking: a ranking in memory, or the files of one
judging   evaluate, report: how good a ranking is, in figures and as a page; labels in any form

Needs no Ray. The commands run the same functions below these.
"""
