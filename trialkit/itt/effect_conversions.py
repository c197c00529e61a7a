"""A standardised effect in other words: log odds ratio, correlation, chance of the better outcome; and back.

With ``a = (n1 + n0)^2 / (n1 n0)`` (4 for equal arms):

=========================  ===========================================================  ==========================================
form                       from d                                                       variance
=========================  ===========================================================  ==========================================
``log-odds-ratio``         ``d pi / sqrt(3)`` (logistic outcome cut anywhere)           ``Var(d) pi^2 / 3``
``r``                      ``d / sqrt(d^2 + a)`` (point-biserial)                       ``a^2 Var(d) / (d^2 + a)^3``
``superiority``            ``Phi(d / sqrt(2))``: a person of one arm above one of the   ``phi(d / sqrt 2)^2 Var(d) / 2``
                           other
=========================  ===========================================================  ==========================================

Sources: Hasselblad & Hedges (1995), Psychol. Bull. 117:167; Borenstein et al. (2009), Introduction to Meta-Analysis, ch. 7; McGraw &
Wong (1992), Psychol. Bull. 111:361. All are monotone, so limits are converted, not made anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from scipy import special

from trialkit.door import InputError, unknown_word
from trialkit.itt.effect_sizes import EffectSize

FORMS = ("d", "log-odds-ratio", "r", "superiority")
_LOGISTIC = math.pi / math.sqrt(3.0)


def convert_effect(effect: EffectSize, to: str, *, sizes: tuple[int, int] | None = None, of: str = "d") -> EffectSize:
    """The same effect in another form.

    Parameters
    ----------
    effect : EffectSize
        From `effect_size`, `cohens_d`, `hedges_g`, ...; or made by hand.
    to : {"d", "log-odds-ratio", "r", "superiority"}
    sizes : two int, optional
        People in the arms, for ``"r"``; equal arms when left out.
    of : same words
        The form `effect` is in.

    Returns
    -------
    EffectSize
        Estimate and limits converted, the standard error by the delta method.

    Raises
    ------
    InputError
        A form is unknown; a correlation beyond (-1, 1), or a chance beyond (0, 1).

    Examples
    --------
    >>> from trialkit.itt import cohens_d
    >>> d = cohens_d(0.4, std_error=0.2, df=40, sd=1.0)
    >>> round(convert_effect(d, "log-odds-ratio").estimate, 4), round(convert_effect(d, "r").estimate, 4)
    (0.7255, 0.1961)
    """
    for form in (to, of):
        if form not in FORMS:
            raise InputError(unknown_word(str(form), FORMS, what="form of an effect"))
    n1, n0 = sizes if sizes is not None else (1, 1)
    if min(n1, n0) <= 0:
        raise InputError(f"sizes = {sizes}: both arms need people.")
    a = (n1 + n0) ** 2 / (n1 * n0)
    back, slope_back = _to_d(of, a)
    there, slope = _from_d(to, a)
    for value in (effect.estimate, effect.conf_low, effect.conf_high):
        if (of == "r" and not -1 < value < 1) or (of == "superiority" and not 0 < value < 1):
            raise InputError(f"{value:g} is no {'correlation between -1 and 1' if of == 'r' else 'chance between 0 and 1'}.")
    d = back(effect.estimate)
    return replace(
        effect,
        estimate=there(d),
        std_error=effect.std_error * slope_back(effect.estimate) * slope(d),
        conf_low=there(back(effect.conf_low)),
        conf_high=there(back(effect.conf_high)),
        title=f"{effect.title or 'Effect'} as {to}",
    )


_Pair = tuple[Callable[[float], float], Callable[[float], float]]


def _from_d(form: str, a: float) -> _Pair:
    """The form as a function of d, and its derivative."""
    if form == "log-odds-ratio":
        return (lambda d: d * _LOGISTIC), (lambda d: _LOGISTIC)
    if form == "r":
        return (lambda d: d / math.sqrt(d * d + a)), (lambda d: a / (d * d + a) ** 1.5)
    if form == "superiority":
        half = math.sqrt(0.5)
        return (lambda d: float(special.ndtr(d * half))), (lambda d: math.exp(-d * d / 4) / math.sqrt(2 * math.pi) * half)
    return (lambda d: d), (lambda d: 1.0)


def _to_d(form: str, a: float) -> _Pair:
    """d as a function of the form, and its derivative."""
    there, slope = _from_d(form, a)
    del there
    back: Callable[[float], float]
    if form == "log-odds-ratio":
        back = lambda x: x / _LOGISTIC  # noqa: E731
    elif form == "r":
        back = lambda x: x * math.sqrt(a / (1 - x * x))  # noqa: E731
    elif form == "superiority":
        back = lambda x: float(special.ndtri(x)) * math.sqrt(2.0)  # noqa: E731
    else:
        back = lambda x: x  # noqa: E731
    return back, (lambda x: 1.0 / slope(back(x)))
