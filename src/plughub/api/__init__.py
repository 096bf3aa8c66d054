"""The REST doors: both dialects, one file per noun of the URLs."""
