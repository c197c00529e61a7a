"""Makes laplace_wine.json: the observed information of Laplace's approximation for the wine data, in 30 digits.

    python tests/reference/laplace_wine.py

Proportional odds with a random intercept for judge (`ordinal::wine`, as stored in outcome_models.json). The modes are found anew at
every point and the Hessian is taken by central differences in 30-digit arithmetic at our maximum, whose likelihood is stored too. Beside it
stand the standard errors that R's ordinal 2022.11-16 prints for the same model by its two functions, ``clmm(..., nAGQ = 1)`` and ``clmm2``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mpmath as mp
import pandas as pd

from trialkit.itt import fit_ordinal

HERE = Path(__file__).parent
# R: library(ordinal); sqrt(diag(vcov(clmm(rating ~ temp + contact + (1|judge), wine, nAGQ = 1, control = clmm.control(gradTol = 1e-9)))))
CLMM = [0.6832662, 0.6060678, 0.8128948, 0.9774621, 0.5989458, 0.5137253]
# R: summary(clmm2(rating ~ temp + contact, random = judge, data = wine, nAGQ = 1, Hess = TRUE))
CLMM2 = [0.6824427, 0.6037583, 0.8089741, 0.9724622, 0.5953803, 0.5125311]


def logistic(x: Any) -> Any:
    return 1 / (1 + mp.e ** (-x))


def laplace(parameters: list[Any], judges: list[list[tuple[int, int, int]]]) -> Any:
    """Log-likelihood at (four thresholds, warm, yes, sd)."""
    thresholds, (warm, yes, sd), total = parameters[:4], parameters[4:], mp.mpf(0)
    for people in judges:
        u = mp.mpf(0)
        for _ in range(80):
            slope, curvature, value = -u, mp.mpf(1), -u * u / 2
            for grade, w, c in people:
                eta = warm * w + yes * c + sd * u
                above = logistic(thresholds[grade] - eta) if grade < 4 else mp.mpf(1)
                below = logistic(thresholds[grade - 1] - eta) if grade > 0 else mp.mpf(0)
                value += mp.log(above - below)
                slope += sd * (above - 1 + below)
                curvature += sd**2 * (above * (1 - above) + below * (1 - below))
            if abs(slope) < mp.mpf(10) ** -26:
                break
            u += slope / curvature
        total += value - mp.log(curvature) / 2
    return total


def main() -> None:
    mp.mp.dps = 30
    data = pd.DataFrame(json.loads((HERE / "outcome_models.json").read_text())["wine"]["data"])
    fit = fit_ordinal("rating ~ warm + yes", data, cluster="judge", model="mixed", nodes=1)
    judges = [list(zip(d["rating"] - 1, d["warm"], d["yes"], strict=True)) for _, d in data.groupby("judge")]
    at = [mp.mpf(float(v)) for v in (*fit.thresholds, *fit.beta, fit.sd)]
    n, h = len(at), mp.mpf(10) ** -6
    best = laplace(at, judges)

    def near(*moves: tuple[int, int]) -> Any:
        moved = list(at)
        for k, sign in moves:
            moved[k] += sign * h
        return laplace(moved, judges)

    information = mp.matrix(n, n)
    for i in range(n):
        information[i, i] = -(near((i, 1)) - 2 * best + near((i, -1))) / h**2
        for j in range(i):
            corners = near((i, 1), (j, 1)) - near((i, 1), (j, -1)) - near((i, -1), (j, 1)) + near((i, -1), (j, -1))
            information[i, j] = information[j, i] = -corners / (4 * h**2)
    covariance = information**-1
    std_error = [float(mp.sqrt(covariance[k, k])) for k in range(n)]
    made = {
        "made_by": f"laplace_wine.py, mpmath {mp.__version__}, 30 digits",
        "parameters": [float(v) for v in at],
        "log_likelihood": float(best),
        "std_error": std_error,
        "ordinal": {"version": "2022.11-16", "clmm": CLMM, "clmm2": CLMM2},
    }
    (HERE / "laplace_wine.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
