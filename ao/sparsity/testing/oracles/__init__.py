"""References in plain Python and NumPy for what the packages under test compute; none of them imports torch."""
