"""The work on one range, in whatever process: solved, kept if it is finished, and answered for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from invsolve.control import Control
from invsolve.data.run_folder import Pieces, range_name
from invsolve.range_solver import RangeSolver
from invsolve.reached import Answer, any_finite, counts


@dataclass
class RangeWork:
    """Solves ranges, and keeps them as `pieces` where there is a place for them."""

    solver: RangeSolver
    pieces: Pieces | None

    def __call__(self, start: int, stop: int, control: Control) -> Answer:
        """Solve the examples start ≤ i < stop."""
        began, conduct = time.monotonic(), self.solver.conduct
        columns = self.solver.solve(start, stop, control)
        finished = not control.stopped
        told = {"took": round(time.monotonic() - began, 3)} | counts(lambda name: [columns[name]])
        kept = finished and self.pieces is not None
        if self.pieces is not None and finished:
            self.pieces.put(range_name(start, stop), columns)
        return Answer(
            given=(start, stop),
            finished=finished,
            any_finite=any_finite(columns),
            columns=None if kept else columns,
            first_error=conduct.first_error,
            fits=conduct.fitting.known,
            growth=conduct.fitting.growth.words,
            batch_size=self.solver.batch_size,
            compiled=self.solver.tuning.kernels is not None,
            told=told,
        )
