"""What the numbers of a diagnosis say for and against each method, in plain sentences."""

from __future__ import annotations

from invsolve.diagnosis.result import Alignment, Flatness, Minima, Verdict

FEW_LOST = 0.05  # share of examples that may end badly from x0, or begin without a gradient, where BFGS is enough
AGAIN = 0.8  # share of examples whose best minimum two starts found, from which more starts will find nearly all
SOLVED = 0.9  # share that the best start solves, at least, where that is known
ALIGNED, GAIN = 0.3, 0.1  # cosine of a joint step that points somewhere, and more than the plain gradient's
CUT_OFF = 0.5  # share of starts without an end, above which nothing but the cheapest method is recommended


def judge(a: Alignment | None, f: Flatness, m: Minima) -> tuple[str, str, list[Verdict]]:
    """The method to use, one or two sentences why, and what is thought of each."""
    verdicts = [_bfgs(f, m), _multistart(f, m), _jpo(a, f, m), _auto(f, m)]
    bfgs, multistart, jpo, auto = verdicts
    if m.x0_worse is None:
        chosen, why = (
            bfgs,
            "nothing is known of minima, for no two starts of an example ended: give it more time (--time-limit)",
        )
    elif m.unfinished > CUT_OFF:
        cut = f"{m.unfinished:.0%} of the starts were cut off, of {m.examples} examples"
        chosen, why = bfgs, f"{cut}, so that little is known of minima: give it more time (--time-limit)"
    elif bfgs.verdict == "enough":
        chosen, why = bfgs, bfgs.reason
    elif multistart.verdict == "helps":
        chosen, why = multistart, f"{bfgs.reason}; {multistart.reason}"
    elif jpo.verdict == "helps":
        chosen, why = jpo, f"{bfgs.reason}; {jpo.reason}"
    else:
        chosen, why = auto, f"{bfgs.reason}; {multistart.reason}; auto {auto.reason}"
    return chosen.method, f"{why[:1].upper()}{why[1:]}.", verdicts


def _lost(m: Minima) -> float:
    """Share of the examples that a better end, or x_true, shows to have ended badly from x0."""
    return max(m.x0_worse or 0.0, 1 - m.solved_x0 if m.solved_x0 is not None else 0.0)


def _is_enough(f: Flatness, m: Minima) -> bool:
    return m.x0_worse is not None and _lost(m) <= FEW_LOST and f.at_x0 <= FEW_LOST


def _bfgs(f: Flatness, m: Minima) -> Verdict:
    if m.x0_worse is None:
        return Verdict(m.method, "unknown", "no two starts of any example ended")
    worse = f"one of {m.starts - 1} other starts ends lower than x0's in {m.x0_worse:.0%} of the examples"
    if _is_enough(f, m):
        solved = f", which solves {m.solved_x0:.0%}" if m.solved_x0 is not None else ""
        return Verdict(m.method, "enough", f"{worse}: starting once, at x0{solved}, is enough")
    reasons = []
    if m.x0_worse > FEW_LOST:
        reasons.append(worse)
    elif _lost(m) > FEW_LOST:
        reasons.append(f"from x0 {m.method} solves {1 - _lost(m):.0%} of the examples")
    if f.at_x0 > FEW_LOST:
        reasons.append(f"the gradient vanishes at x0 in {f.at_x0:.0%}, which then stay there")
    return Verdict(m.method, "not enough", " and ".join(reasons))


def _multistart(f: Flatness, m: Minima) -> Verdict:
    name = "multistart"
    if m.x0_worse is None or m.found_again is None:
        return Verdict(name, "unknown", "no two starts of any example ended")
    if _is_enough(f, m):
        return Verdict(name, "not needed", "further starts find nothing better")
    again = f"two or more of {m.starts} starts find the best minimum of {m.found_again:.0%} of the examples"
    if m.solved_best is not None:
        again += f", which solves {m.solved_best:.0%}"
    if m.found_again >= AGAIN and (m.solved_best is None or m.solved_best >= SOLVED):
        return Verdict(name, "helps", f"{again}: more starts will find nearly all")
    if m.x0_worse > FEW_LOST:
        return Verdict(name, "may help", f"{again}: many starts would be needed")
    return Verdict(name, "in doubt", f"further starts find nothing better, and {again}")


def _jpo(a: Alignment | None, f: Flatness, m: Minima) -> Verdict:
    name = "jpo"
    if _is_enough(f, m):
        return Verdict(name, "not needed", f"{m.method} is enough")
    if a is None:
        return Verdict(name, "in doubt", "no solution is known to which its first step could point")
    points = (
        f"a joint step of {a.sizes[-1]} examples points to the solutions with a cosine of {a.joint[-1]:.2f}, "
        f"each one's own gradient with {a.plain:.2f}"
    )
    moved = a.joint_flat is not None and a.joint_flat >= ALIGNED and f.at_x0 > FEW_LOST
    if moved:
        points += f", and it moves those without a gradient, with {a.joint_flat:.2f}"
    if moved or (a.joint[-1] >= ALIGNED and a.joint[-1] - a.plain >= GAIN):
        return Verdict(name, "helps", points)
    return Verdict(
        name, "may help", f"{points}: its first step knows no better, later ones and points that it simulates may"
    )


def _auto(f: Flatness, m: Minima) -> Verdict:
    if _is_enough(f, m):
        return Verdict("auto", "not needed", f"{m.method} is enough")
    return Verdict(
        "auto", "may help", "begins with local solves, and tries a network and further starts on what is left"
    )
