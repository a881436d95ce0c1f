"""Test sets as they lie on disk, one file for each. `depth_set` is what the sets with true depth share."""
