"""Small models that more than one test file needs."""
