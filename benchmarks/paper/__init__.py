"""The figures of Holl and Thuerey 2024 made anew, see `python -m benchmarks.paper --help` and docs/paper.md."""
