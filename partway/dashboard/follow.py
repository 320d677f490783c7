"""The events of a live run from its files, while they are written and afterwards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIX = ".jsonl"
MAX_LINE = 2**24
"""Bytes of a line; longer ones are no events."""
PIECE = 2**20


class Files:
    """All files of events in a folder, each read from where the last call ended.

    unreadable  lines that are not events
    """

    def __init__(self, folder: Path):
        self._folder, self._read = folder, dict[Path, int]()
        self.unreadable = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The events that have come since the last call. Lines that are not complete are left for the next one."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            for line in self._lines(path):
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError):  # no JSON, or nested too deeply
                    event = None
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    yield event
                else:
                    self.unreadable += 1

    def _lines(self, path: Path) -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                while (line := file.readline(MAX_LINE)).endswith(b"\n"):
                    self._read[path] = file.tell()
                    yield line
        except OSError:
            self.unreadable += 1
