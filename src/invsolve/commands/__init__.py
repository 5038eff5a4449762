"""The commands: each reads its flags, takes the road of pipeline.py, and shows or prints the one result object."""
