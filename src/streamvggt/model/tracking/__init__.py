"""Following points through frames: the iterative tracker and its form for streams."""
