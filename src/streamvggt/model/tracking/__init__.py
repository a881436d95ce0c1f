"""Point tracking: iterative tracker and its streaming memory."""
