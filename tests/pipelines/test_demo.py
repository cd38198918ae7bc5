"""The demo, as `make demo` runs it: with all defaults, by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from retrieval.index import read_index


def test_the_demo_takes_drawn_photos_through_the_whole_chain(tmp_path):
    command = [str(Path(sys.executable).with_name("retrieval-cli")), "demo", "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert Path(report["report"]) == tmp_path / "out" / "report.html"
    assert Path(report["report"]).stat().st_size > 100_000
    # 12 × 12 gallery photos, 12 distractors and 9 odd files, 3 of which nobody can read.
    assert report["num_gallery"] == 12 * 12 + 12 + 9 - 3
    assert report["num_rejected"] == 3
    assert report["num_queries"] == 36
    # Better than chance (1/12), and in the order that such figures must have.
    assert 1.5 / 12 < report["top_1"] <= report["top_3"] <= report["top_10"] <= 1
    assert "random weights" in report["note"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["map"] == report["map"]
    gallery = read_index(report["paths"]["gallery"])
    assert gallery.labels.count(None) == 12
    # A stranger reads stderr: five steps, nothing else.
    lines = done.stderr.splitlines()
    assert [line[:3] for line in lines if line[0].isdigit()] == [f"{n}/5" for n in range(1, 6)]
    assert lines[-1] == f"Open {report['report']}"
    assert len(lines) == 9
