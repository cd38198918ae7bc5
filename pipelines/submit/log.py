"""A job's log, in which Ray mixes its stdout and its stderr: the report is told from the rest."""

from __future__ import annotations

import json
import re
from io import TextIOBase
from typing import TextIO

from retrieval.one_line import as_json, one_line

_COLOUR = re.compile(r"\x1b\[[\d;]*m")  # Ray's, of a worker's name

__all__ = ["ReportSplitter"]


class ReportSplitter:
    """Sends the JSON report of a verb one way and all other lines the other way, as they come.

    A report is what `print_report` prints: a line "{", indented lines, a line "}".
    """

    def __init__(self, report: TextIO | TextIOBase, log: TextIO | None) -> None:
        """Args: `report` and `log` are where the lines go; without a log those are dropped."""
        self._report = report
        self._log = log
        self._block: list[str] = []  # lines that may turn out to be a report
        self._rest = ""  # a line that has not ended yet

    def write(self, text: str) -> None:
        """Take the next part of the log, cut anywhere."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(line)

    def close(self) -> None:
        """Pass on what was held back: a last line without an end, half a report."""
        if self._rest:
            self._take(self._rest)
        self._rest = ""
        self._give_up()

    def _take(self, line: str) -> None:
        if not self._block:
            if line == "{":
                self._block = [line]
            else:
                self._say(line)
            return
        if line == "}" and (report := _parsed("\n".join([*self._block, line]))) is not None:
            print(as_json(report), file=self._report, flush=True)
            self._block = []
        elif line.startswith("  "):
            self._block.append(line)
        else:
            self._give_up()
            self._take(line)

    def _give_up(self) -> None:
        for line in self._block:
            self._say(line)
        self._block = []

    def _say(self, line: str) -> None:
        if self._log:
            plain = _COLOUR.sub("", line).rstrip("\r").expandtabs()
            print(one_line(plain), file=self._log, flush=True)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
