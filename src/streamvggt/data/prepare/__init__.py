"""Raw downloads made into the folders that the sources read, one file per data set; `runner.py` does what is shared."""
