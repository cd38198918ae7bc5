"""The example of a notebook: embed, rank, evaluate and report by the public face alone."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import retrieval
from tests.conftest import draw_photos

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebook.py"


def test_it_takes_a_folder_to_a_ranking_figures_and_a_page(tmp_path):
    (draw_photos(tmp_path / "photos") / "red" / "broken.jpg").unlink()
    command = [sys.executable, str(NOTEBOOK), "photos", "out", "tests.fakes:mean_colour"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranking = retrieval.open_ranking(tmp_path / "out" / "ranking")
    num_images = len(list(tmp_path.glob("photos/*/*")))
    assert len(ranking) == num_images == 9
    assert (ranking.ids[:, 0] != ranking.query_ids).all()
    assert "{1: 1.0, 3: 1.0" in done.stdout  # one colour a class
    page = (tmp_path / "out" / "page.html").read_text()
    assert page.count("data:image/") == num_images
    manifest = json.loads((tmp_path / "out" / "ranking" / "_ranking.json").read_text())
    assert manifest["exclude_self"] is True


def test_it_is_short_and_needs_nothing_else():
    tree = ast.parse(NOTEBOOK.read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports for alias in node.names}
    assert names == {"sys", "Path", "pandas", "retrieval"}
    assert len(tree.body) <= 20
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "retrieval"
    }
    assert used <= set(retrieval.__all__)
