"""One HTML page that an engineer looks at every morning.

    ranking_page a ranking and its two sides → the page; `write_report`
    page         the page's content as values; `write_page`
    thumbnails   photo bytes → small data URIs; how small
    page.html    the template, page.css its looks

The page needs no network, no script and no other file. `page` knows nothing of rankings' files: it
gets results, metrics and thumbnails as plain values.
"""

from retrieval.report_page.page import Neighbour, Page, QueryResult, write_page
from retrieval.report_page.ranking_page import WrittenReport, check_output, write_report
from retrieval.report_page.thumbnails import make_thumbnail, thumbnail_size

__all__ = [
    "Neighbour",
    "Page",
    "QueryResult",
    "WrittenReport",
    "check_output",
    "make_thumbnail",
    "thumbnail_size",
    "write_page",
    "write_report",
]
