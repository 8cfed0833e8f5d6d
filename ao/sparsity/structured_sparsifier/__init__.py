"""Tests of structured pruning by subject; ``test_structured_sparsifier.py`` hands them to unittest."""
