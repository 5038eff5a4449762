"""Ranges as tasks on a Ray cluster, and training by a crew. The one room that knows Ray, imported when asked for."""
