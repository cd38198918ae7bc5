"""One HTML page that an engineer looks at every morning.

    page         the page's content as values; `write_page`
    thumbnails   photo bytes → small data URIs; how small
    page.html    the template, page.css its looks

The page needs no network, no script and no other file. It knows nothing of rankings' files:
who calls brings results, metrics and thumbnails as plain values.
"""

from retrieval.report.page import Neighbour, Page, QueryResult, write_page
from retrieval.report.thumbnails import make_thumbnail, thumbnail_size

__all__ = [
    "Neighbour",
    "Page",
    "QueryResult",
    "make_thumbnail",
    "thumbnail_size",
    "write_page",
]
