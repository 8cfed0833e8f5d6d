"""What the tests stand on: base case, contracts, oracles, models, the abilities of this build, and its known defects."""
