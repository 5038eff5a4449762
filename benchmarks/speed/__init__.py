"""invsolve side by side with its peers, see `python -m benchmarks.speed --help` and benchmarks/README.md."""
