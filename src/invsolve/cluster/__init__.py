"""The ranges of a run as tasks on a Ray cluster. The one room that knows Ray, imported when it is asked for."""
