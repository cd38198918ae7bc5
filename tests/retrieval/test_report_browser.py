"""The page in a real browser."""

import shutil
import subprocess
from dataclasses import replace

import pytest

from retrieval.report_page import (
    QueryResult,
    make_thumbnail,
    write_page,
)
from tests.retrieval.pages import HOSTILE, PAGE, RESULTS, photo

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome here")
def test_a_browser_shows_all_rows_and_has_no_complaint(tmp_path):
    uri = make_thumbnail(photo(300, 200), size=64)
    results = [QueryResult(text, text, RESULTS[0].neighbours) for text in HOSTILE] + RESULTS
    file = tmp_path / "page.html"
    with file.open("wb") as output:
        write_page(replace(PAGE, results=results), {"q:hit.jpg": uri, "g:g1.jpg": uri}, output)

    process = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update"),
            f"--user-data-dir={tmp_path / 'profile'}",
            *("--enable-logging=stderr", "--v=0", "--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # log lines may be cut anywhere
        timeout=120,
        check=True,
    )

    assert process.stdout.count("<article ") == len(results)
    assert process.stdout.count("<li class=") == 3 + sum(len(r.neighbours) for r in results)
    assert "<script" not in process.stdout
    assert "CONSOLE" not in process.stderr  # where refusals of the policy are told
