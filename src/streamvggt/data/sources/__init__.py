"""Data sets as they lie on the disk, one file each; docs/data.md says where to get them."""
