"""Numbers: metrics as functions of arrays, and the protocols that feed them."""
