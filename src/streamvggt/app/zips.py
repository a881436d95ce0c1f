"""Reject zip archives with too many entries before they are listed."""

import zipfile
from pathlib import Path

ENTRY_BYTES = 512  # directory size per entry: 46 bytes and a name


def check_directory(archive: Path, num_entries: int) -> None:
    """Check the directory size of an archive from its end record, because `zipfile` reads the whole directory.

    Raises:
        ValueError: If the archive has more than `num_entries` entries, or space for many more.
    """
    with open(archive, "rb") as file:
        record = zipfile._EndRecData(file)  # no public function reads only the end record
    if record is None:
        raise ValueError(f"{archive.name} cannot be unpacked: it is damaged, or locked with a password.")
    num, size = record[zipfile._ECD_ENTRIES_TOTAL], record[zipfile._ECD_SIZE]
    if num > num_entries or size > num_entries * ENTRY_BYTES:
        raise ValueError(
            f"{archive.name}: expected at most {num_entries} entries, got {num} in {size} bytes. Pack fewer."
        )
