import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does; to be set before torch is loaded
