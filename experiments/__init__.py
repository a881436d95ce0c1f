"""Studies that make tables and figures for the docs, run from the repository root: `python -m experiments.NAME`."""
