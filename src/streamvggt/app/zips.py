"""Zip archives with absurdly many entries are refused before they are listed."""

import zipfile
from pathlib import Path

ENTRY_BYTES = 512  # of the directory for one entry: 46 and a name


def check_directory(archive: Path, num_entries: int) -> None:
    """Check the size of an archive's directory, which `zipfile` reads as a whole, from the record at its end.

    Raises:
        ValueError: If it has more than `num_entries` entries, or room for many more.
    """
    with open(archive, "rb") as file:
        record = zipfile._EndRecData(file)  # there is no public way that reads no directory
    if record is None:
        raise ValueError(f"{archive.name} cannot be unpacked: it is damaged, or locked with a password.")
    num, size = record[zipfile._ECD_ENTRIES_TOTAL], record[zipfile._ECD_SIZE]
    if num > num_entries or size > num_entries * ENTRY_BYTES:
        raise ValueError(
            f"{archive.name}: expected at most {num_entries} entries, got {num} in {size} bytes. Pack fewer."
        )
