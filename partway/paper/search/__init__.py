"""What the search for unpublished parameters computes: its space, its runs, its score; `scripts/search` searches."""
