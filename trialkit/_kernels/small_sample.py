"""Small-sample inference for fixed effects of a mixed model: Kenward-Roger and Satterthwaite, t and F.

Everything is a product of the whitened matrices left by :func:`trialkit._kernels.reml.fit`. Conventions (they decide p-values, so each is
a switch):

* Kenward-Roger uses the *expected* information and keeps a component whose variance is zero (pbkrtest; Kenward and Roger 1997, Biometrics
  53:983);
* Satterthwaite uses the *observed* information, and a component at zero counts as dropped (lmerTest; n - p degrees of freedom when it was
  the only one).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trialkit._kernels.reml_criterion import Components
from trialkit._kernels.reml_fit import MixedFit
from trialkit._kernels.reml_reduction import STATUS, Array
from trialkit._kernels.structured_fit import StructuredFit

__all__ = ["FTest", "Inference", "kenward_roger", "kenward_roger_f", "satterthwaite", "satterthwaite_f", "variance_covariance"]

Information = Literal["expected", "observed"]
AtZero = Literal["keep", "drop"]
Fit = MixedFit | StructuredFit


@dataclass(frozen=True, slots=True)
class Inference:
    """r contrasts of the fixed effects."""

    estimate: Array  # (r,)
    std_error: Array  # (r,)
    df: Array  # (r,)
    cov: Array  # (r, r)  covariance of the contrasts (adjusted, for Kenward-Roger)


@dataclass(frozen=True, slots=True)
class FTest:
    """Joint test of r contrasts."""

    statistic: float  # refer to F(df_num, df_den)
    df_num: int  # rank of the contrasts
    df_den: float
    scaling: float  # Kenward-Roger's lambda; 1 for Satterthwaite
    unscaled: float  # statistic / scaling


def kenward_roger(fit: Fit, L: Array, *, information: Information = "expected", at_zero: AtZero | None = None) -> Inference:
    """Kenward-Roger standard errors and degrees of freedom, one t-test a row of L.

    Parameters
    ----------
    fit : a REML fit
    L : (r, p) contrasts
    information : of the variances; "expected" is pbkrtest's, "observed" that of mmrm
    at_zero : what a variance estimated at zero does to the information: "keep" it (pbkrtest; the default with expected information) or
        "drop" it (the default with observed information, which has no meaning at a boundary)

    Raises
    ------
    ValueError : the fit's status forbids inference, or the fit is by maximum likelihood
    """
    if fit.method != "reml":
        raise ValueError("Kenward-Roger inference needs a REML fit")
    C, kept, W = _prepare(fit, L, information, at_zero)
    CP, plain = C @ kept.P, C.dot(C.T)
    cov = fit.unit * (plain + _adjustment(C, CP, kept, W))
    return Inference(np.dot(L, fit.beta), np.sqrt(cov.diagonal()), _df(C, CP, plain.diagonal(), W), cov)


def satterthwaite(fit: Fit, L: Array, *, information: Information = "observed", at_zero: AtZero = "drop") -> Inference:
    """Satterthwaite degrees of freedom with the usual standard errors, one t-test a row of L.

    Parameters
    ----------
    fit : REML or ML fit
    L : (r, p) contrasts
    information : "observed" is lmerTest's, "expected" a switch
    at_zero : "drop" (lmerTest) or "keep" a variance estimated at zero

    Raises
    ------
    ValueError : the fit's status forbids inference
    """
    C, kept, W = _prepare(fit, L, information, at_zero)
    plain = C.dot(C.T)
    cov = fit.unit * plain
    return Inference(np.dot(L, fit.beta), np.sqrt(cov.diagonal()), _df(C, C @ kept.P, plain.diagonal(), W), cov)


def variance_covariance(fit: Fit, *, information: Information = "expected", at_zero: AtZero = "keep") -> Array:
    """Covariance matrix of the variance components, residual last (k + 1, k + 1); pbkrtest's W. A dropped component has zeros.

    Of a structured fit, the covariance of all its variance parameters in the kernel's own coordinates.
    """
    _, W = _information_inverse(fit, information, at_zero)
    return W * fit.unit**2


def kenward_roger_f(
    fit: Fit, L: Array, *, null: Array | None = None, information: Information = "expected", at_zero: AtZero | None = None
) -> FTest:
    """Kenward-Roger F-test that L beta equals `null` (zero); pbkrtest's formulas and guards.

    Parameters
    ----------
    fit : a REML fit
    L : (r, p) contrasts; rows may be dependent
    null : (r,) values under the null hypothesis
    """
    if fit.method != "reml":
        raise ValueError("Kenward-Roger inference needs a REML fit")
    C, kept, W = _prepare(fit, np.atleast_2d(L), information, at_zero)
    O, T = _directions(C)
    q = O.shape[0]
    # in orthonormal whitened directions the paper's Theta is a projection, O'O
    OP = O @ kept.P
    products = OP @ O.T
    traces = np.einsum("kii->k", products)
    A1 = float(traces @ W @ traces)
    A2 = float(np.einsum("kl,kij,lji->", W, products, products))
    df, scaling = _kr_f_df(A1, A2, q)
    x = T @ _difference(fit, L, null)
    unscaled = float(x @ np.linalg.solve(np.eye(q) + _adjustment(O, OP, kept, W), x)) / (q * fit.unit)
    return FTest(scaling * unscaled, q, df, scaling, unscaled)


def satterthwaite_f(
    fit: Fit, L: Array, *, null: Array | None = None, information: Information = "observed", at_zero: AtZero = "drop"
) -> FTest:
    """Satterthwaite F-test that L beta equals `null` (zero): Fai and Cornelius (1996), as in lmerTest.

    The contrast is turned to independent directions, each with its own degrees of freedom, and their F is matched in the mean.
    """
    C, kept, W = _prepare(fit, np.atleast_2d(L), information, at_zero)
    O, T = _directions(C)
    q = O.shape[0]
    x = T @ _difference(fit, L, null)
    # the independent directions are the principal axes of the contrasts as they are given, as in lmerTest
    axes = np.linalg.svd(C, full_matrices=False)[2][:q]
    nu = _df(axes, axes @ kept.P, np.ones(q), W)
    F = float(x @ x) / (q * fit.unit)
    return FTest(F, q, _fai_cornelius_df(nu), 1.0, F)


def _prepare(fit: Fit, L: Array, information: Information, at_zero: AtZero | None) -> tuple[Array, Components, Array]:
    """Whitened contrasts (r, p), the components kept, and the covariance of their variances (at residual variance 1)."""
    L = np.asarray(L, dtype=np.float64)
    if L.ndim != 2 or L.shape[1] != fit.p:
        raise ValueError(f"contrasts must be (r, {fit.p}); got {L.shape}")
    if at_zero is None:
        at_zero = "keep" if information == "expected" else "drop"
    kept, W = _information_inverse(fit, information, at_zero)
    return L.dot(fit.half.T), kept, W


def _information_inverse(fit: Fit, information: Information, at_zero: AtZero) -> tuple[Components, Array]:
    """The components, and the covariance of their variances (at unit 1); a dropped component has rows of zeros."""
    if fit.components is None:
        raise ValueError(f"no inference: {STATUS.get(fit.status, fit.status)}")
    if information not in ("expected", "observed") or at_zero not in ("keep", "drop"):
        raise ValueError('information is "expected" or "observed", at_zero is "keep" or "drop"')
    c = fit.components
    twice = c.observed if information == "observed" else c.expected
    if fit.status == "singletons":
        return c, 2.0 * _inverse(twice)
    if information == "observed" and at_zero == "keep" and fit.boundary.any():
        raise ValueError("observed information has no meaning for a variance at zero: use the expected, or drop the component")
    if at_zero == "keep" or not fit.boundary.any():
        return c, 2.0 * _inverse(twice)
    if isinstance(fit, StructuredFit):
        return c, _along_the_surface(fit, twice, information)
    index = np.append(np.flatnonzero(~fit.boundary), fit.theta.size)
    W = np.zeros_like(twice)
    W[np.ix_(index, index)] = 2.0 * _inverse(twice[np.ix_(index, index)])
    return c, W


def _along_the_surface(fit: StructuredFit, twice: Array, information: Information) -> Array:
    """Covariance of the variances when they may only move among matrices of the ranks found (a lost rank counts as dropped)."""
    H = fit.free.T @ twice @ fit.free
    if information == "observed":
        H += fit.bend
    # directions that only rotate a factor move no variance
    values, vectors = np.linalg.eigh(H)
    used = values > 1e-9 * values[-1]
    half = fit.free @ vectors[:, used] / np.sqrt(values[used])
    return np.asarray(2.0 * half @ half.T)


def _inverse(A: Array) -> Array:
    """Inverse of a small symmetric matrix whose rows may differ in scale."""
    if A.shape[0] == 2:
        (a, b), (_, d) = A.tolist()
        scale = 1.0 / (a * d - b * b)
        return np.array([[d * scale, -b * scale], [-b * scale, a * scale]])
    diagonal = np.diagonal(A)
    scale = np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    outer = scale[:, None] * scale
    return np.asarray(np.linalg.inv(A / outer) / outer)


def _df(C: Array, CP: Array, v: Array, W: Array) -> Array:
    """2 v^2 / (g'Wg) for each whitened contrast C (r, p): v (r,) its variance, g the derivative of v in the variance components.

    `CP` (c, r, p) is C P_i.
    """
    g = np.einsum("crp,rp->rc", CP, C)
    return np.asarray(2.0 * v * v / np.einsum("rc,rc->r", g.dot(W), g))


def _adjustment(C: Array, CP: Array, c: Components, W: Array) -> Array:
    """What Kenward and Roger add to the covariance of whitened contrasts (r, r), over sigma^2: 2 C sum W_ij (Q_ij - P_i P_j) C'."""
    k, r, p = CP.shape
    by_contrast = CP.transpose(1, 0, 2)
    bracket = C.dot(W.ravel().dot(c.Q.reshape(k * k, p * p)).reshape(p, p)).dot(C.T)
    bracket -= (W @ by_contrast).reshape(r, k * p).dot(by_contrast.reshape(r, k * p).T)
    return np.asarray(bracket + bracket.T)


def _difference(fit: Fit, L: Array, null: Array | None) -> Array:
    estimate = np.atleast_2d(L) @ fit.beta
    return np.asarray(estimate if null is None else estimate - np.asarray(null, dtype=np.float64))


def _directions(C: Array) -> tuple[Array, Array]:
    """Orthonormal directions O (q, p) spanning the whitened contrasts C (r, p), and T (q, r) with O = T C; q is their rank."""
    lengths = np.sqrt((C * C).sum(axis=1))
    if not np.all(lengths > 0.0):
        raise ValueError("a contrast is zero")
    left, values, right = np.linalg.svd(C / lengths[:, None], full_matrices=False)
    rank = int(np.count_nonzero(values > 1e-10 * values[0]))
    return right[:rank], left[:, :rank].T / values[:rank, None] / lengths


def _kr_f_df(A1: float, A2: float, q: int) -> tuple[float, float]:
    """Denominator degrees of freedom and scaling of F (Kenward and Roger 1997, section 3), with pbkrtest's guards."""
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    below = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / below, (q - g) / below, (q + 2 - g) / below
    V0, V1, V2 = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
    if abs(V0) < 1e-10:
        V0 = 0.0
    E = 1.0 - A2 / q
    if abs(V1) < 1e-14:
        ratio = 1.0 if abs(E) < 1e-14 else math.inf
    else:
        ratio = E / V1
    rho = math.inf if V2 == 0.0 else ratio * ratio * V0 / V2 / q
    excess = q * rho - 1.0
    df = 4.0 + ((q + 2.0) / excess if excess != 0.0 else math.inf)
    if math.isnan(df):
        raise ValueError("Kenward-Roger's moments give no denominator degrees of freedom for this test")
    scaling = E if math.isinf(df) else 1.0 if abs(df - 2.0) < 0.01 else df * E / (df - 2.0)
    return df, scaling


def _fai_cornelius_df(nu: Array) -> float:
    if nu.size == 1:
        return float(nu[0])
    if np.all(np.abs(np.diff(nu)) < 1e-8):
        return float(nu.mean())
    if np.any(nu <= 2.0):
        return 2.0
    E = float((nu / (nu - 2.0)).sum())
    return 2.0 * E / (E - nu.size)
