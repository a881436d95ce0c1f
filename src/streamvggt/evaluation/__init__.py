"""Evaluation: metrics as functions of arrays, and the protocols that apply them."""
