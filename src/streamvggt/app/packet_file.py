"""All packets of a run in one file."""

import threading
from pathlib import Path

from streamvggt.choices import PointSource


class PacketFile:
    """Packets by stream position and point source, in one file: to create a file takes longer than to write a packet.

    Args:
        path: The file. Created with the first packet.
    """

    def __init__(self, path: Path):
        self._path = path
        self._places: dict[tuple[int, PointSource], tuple[int, int]] = {}  # start and length in bytes
        self._lock = threading.Lock()

    def __contains__(self, key: tuple[int, PointSource]) -> bool:
        return key in self._places

    def add(self, position: int, source: PointSource, packet: bytes) -> None:
        """Append a packet. A packet of the same frame and source is replaced.

        Raises:
            OSError: If the file cannot be written. Earlier packets are kept.
        """
        with self._lock:
            with open(self._path, "ab") as file:
                start = file.tell()
                file.write(packet)
            self._places[position, source] = (start, len(packet))

    def read(self, position: int, source: PointSource) -> bytes:
        """Return a packet.

        Raises:
            KeyError: If it was not added.
            OSError: If the file was deleted.
        """
        start, length = self._places[position, source]
        with open(self._path, "rb") as file:
            file.seek(start)
            return file.read(length)
