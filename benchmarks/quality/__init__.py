"""What methods solve for how many evaluations, see `python -m benchmarks.quality --help` and benchmarks/README.md."""
