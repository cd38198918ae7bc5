"""`python -m pipelines.cli`: the same as retrieval-cli."""

from pipelines.cli import main

main()
