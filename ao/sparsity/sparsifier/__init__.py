"""The parts of ``test_sparsifier``: a module for each sparsifier."""
