"""The nonlinear regression sets of NIST's Statistical Reference Datasets (StRD), as a test bed.

The 27 files in `data/` are NIST's own, unchanged: https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml. As works of
the United States government they are in the public domain. They were taken from the source distribution of lmfit 1.3.4,
which carries them in NIST_STRD/.
"""
