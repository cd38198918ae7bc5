"""The demo, as `make demo` runs it: with all defaults, by the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from retrieval.index import read_index
from retrieval.models.folder import open_model


def test_the_demo_takes_drawn_photos_through_the_whole_chain(tmp_path):
    command = [str(Path(sys.executable).with_name("retrieval-cli")), "demo", "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert Path(report["report"]) == tmp_path / "out" / "report.html"
    assert Path(report["report"]).stat().st_size > 100_000
    # 12 × 12 gallery photos, 12 distractors and 9 odd files, 3 of which nobody can read.
    before, after = report["before"], report["after"]
    assert before["num_gallery"] == after["num_gallery"] == 12 * 12 + 12 + 9 - 3
    assert report["num_rejected"] == 3
    assert before["num_queries"] == after["num_queries"] == 36
    # Better than chance (1/12), in the order that such figures must have; and training pays.
    assert 1.5 / 12 < before["top_1"] <= before["top_3"] <= before["top_10"] <= 1
    assert before["top_1"] < after["top_1"] <= after["top_3"] <= after["top_10"] <= 1
    assert before["map"] < after["map"]
    assert "random weights" in report["note"]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["after"]["map"] == after["map"]
    gallery = read_index(report["paths"]["gallery"])
    assert gallery.labels.count(None) == 12
    model = open_model(report["paths"]["model"])
    assert gallery.index.spec.fingerprint == model.fingerprint
    for name in ("contact_sheet", "learning_curve"):
        assert Path(report["paths"][name]).read_bytes()[:4] == b"\x89PNG"
    # A stranger reads stderr: six steps, the epochs, nothing else but how far a long step is.
    lines = [line for line in done.stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]
    assert [line[:3] for line in lines if line[0].isdigit()] == [f"{n}/6" for n in range(1, 7)]
    epochs = [line for line in lines if line.startswith("     epoch ")]
    assert len(epochs) == model.training["epochs_done"]
    assert lines[-1] == f"Open {report['report']}"
    assert len(lines) == 6 + len(epochs) + 6
