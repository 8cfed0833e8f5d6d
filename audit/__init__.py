"""The audit of the suite: what its tests reach (coverage), what they notice (mutation testing), whether those of known defects
are right (mends), and what they cost.

Run as ``python -m audit coverage | mutate | mends | probes | merge | report | cost`` from the project's root. The audit starts the
root runner in processes of its own and never writes to an installed package.
"""
