"""The night's validation of PyTorch builds: runs the suite's root runner as a process, keeps what came out, says what changed."""
