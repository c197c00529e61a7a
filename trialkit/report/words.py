"""Sentences from numbers: what a methods or results section says, written from the objects themselves.

Every figure in a sentence is read from a result; nothing is rounded twice, and a number that is not there makes
no sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from trialkit.design import Outcome, TrialDesign
from trialkit.report.flow import Flow, percent
from trialkit.report.missing import Missing
from trialkit.report.tables import COHENS_D, MULTIPLICITY, is_ratio, outcome_rows
from trialkit.results import format_p, minus

_SMALL = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
# a plural that is not the word with an s
_PLURALS = {"person": "people", "body": "bodies", "analysis": "analyses", "has": "have", "was": "were"}


def spelled(n: int) -> str:
    """A whole number below one hundred in words, larger ones in digits.

    >>> spelled(35), spelled(0), spelled(348)
    ('thirty-five', 'no', '348')
    """
    if n < 0 or n >= 100:
        return f"{n:,}"
    if n < 20:
        return _SMALL[n]
    return _TENS[n // 10] + (f"-{_SMALL[n % 10]}" if n % 10 else "")


def counted(n: int, noun: str, *, start: bool = False) -> str:
    """A number with its noun in the right form; at the start of a sentence in words.

    >>> counted(1, "site"), counted(85, "site"), counted(4, "person"), counted(35, "site", start=True)
    ('1 site', '85 sites', '4 people', 'Thirty-five sites')
    """
    form = noun if n == 1 else plural(noun)
    if start:
        words = spelled(n)
        return f"{words[:1].upper()}{words[1:]} {form}"
    return f"{n:,} {form}"


def plural(noun: str) -> str:
    """The plural of a noun of this field.

    >>> plural("site"), plural("peer worker"), plural("person")
    ('sites', 'peer workers', 'people')
    """
    head, _, last = noun.rpartition(" ")
    form = _PLURALS.get(last) or (last if last.endswith("people") else f"{last}s")
    return f"{head} {form}" if head else form


def joined(items: Sequence[str]) -> str:
    """Items as a list in a sentence.

    >>> joined(["gender"]), joined(["gender", "age"]), joined(["gender", "age", "education"])
    ('gender', 'gender and age', 'gender, age and education')
    """
    if len(items) <= 1:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def effect_words(row: Any, conf_level: float = 0.95) -> str:
    """An effect as a paper writes it.

    >>> effect_words({"estimate": 0.351, "conf_low": 0.021, "conf_high": 0.681, "p_value": 0.043})
    'd = 0.35, 95% CI 0.02 to 0.68, p = .043'
    """
    estimate, low, high, p = (float(row[c]) for c in ("estimate", "conf_low", "conf_high", "p_value"))
    if np.isnan(estimate):
        return "not estimated"
    measure = str(row["measure"]) if "measure" in row else COHENS_D
    text = f"{'d' if measure == COHENS_D else measure} {'' if measure.endswith(')') else '= '}{_two(estimate)}"
    if not (np.isnan(low) or np.isnan(high)):
        text += f", {100 * conf_level:g}% CI {_two(low)} to {_two(high)}"
    return text if np.isnan(p) else f"{text}, {p_words(p)}"


def p_words(p: float) -> str:
    """A p-value in a sentence.

    >>> p_words(0.0431), p_words(0.0002), p_words(0.9999)
    ('p = .043', 'p < .001', 'p > .999')
    """
    text = format_p(p)
    return f"p {text[0]} {text[1:]}" if text[:1] in "<>" else f"p = {text}"


def _two(value: float) -> str:
    text = f"{value:.2f}"
    text = text[1:] if text == "-0.00" else text
    return minus(text)


def flow_paragraph(flow: Flow) -> str:
    """The flow of sites and people in sentences."""
    sentences = []
    if flow.recruited is not None:
        out = flow.recruited - flow.randomised
        sentences.append(
            f"{counted(flow.recruited, 'site', start=True)} {_was(flow.recruited)} recruited"
            + (f", of which {out:,} {_was(out)} not randomised ({flow.reasons})" if out else "")
            + f"; {flow.randomised:,} {_was(flow.randomised)} randomised."
        )
    else:
        sentences.append(f"{counted(flow.randomised, 'site', start=True)} {_was(flow.randomised)} randomised.")
    by_arm = [f"{counted(flow.count('eligible', arm=a, what='sites'), 'site')} to {a}" for a in flow.arms]
    sentences.append(f"Allocated: {joined(by_arm)} (sites with eligible people).")
    last = flow.stages[-1]
    for rater in flow.raters:
        # with one kind of person there is no name to give
        who = "people" if len(flow.raters) == 1 else f"people ({rater})"
        eligible = flow.count("eligible", rater=rater)
        parts = []
        if "baseline" in flow.stages:
            n = flow.count("baseline", rater=rater)
            parts.append(f"{n:,} ({percent(n, eligible)}) did the baseline survey")
        if "left" in flow.stages:
            parts.append(f"{flow.count('left', rater=rater):,} left before follow-up")
        if "follow_up" in flow.stages:
            n = flow.count("follow_up", rater=rater)
            base = flow.count("eligible_follow_up", rater=rater) if "eligible_follow_up" in flow.stages else eligible
            parts.append(f"{n:,} of the remaining {base:,} ({percent(n, base)}) did the follow-up survey")
        n = flow.count(last, rater=rater)
        parts.append(f"{n:,} {_was(n)} analysed")
        sentences.append(f"{eligible:,} {who} {_was(eligible)} eligible: {joined(parts)}.")
    return " ".join(sentences)


def _was(n: int) -> str:
    return "was" if n == 1 else "were"


_DF = {
    "kenward-roger": "Kenward and Roger's adjusted standard errors and degrees of freedom",
    "satterthwaite": "Satterthwaite's degrees of freedom",
}
_STANDARDISED = {
    "total": "its standard deviation over both arms",
    "pooled": "its pooled standard deviation within arms",
    "control": "its standard deviation in the reference arm",
    "baseline": "its standard deviation at baseline",
}


def analysis_paragraph(design: TrialDesign, results: Any = None, imputations: Any = None) -> str:
    """The paragraph on the statistical analysis, from what was declared and (where given) what was done.

    Parameters
    ----------
    design : TrialDesign
    results : result of ``itt``, optional
        Gives the number of imputed sets and the sites and people analysed.
    imputations : result of ``impute``, optional

    Examples
    --------
    >>> design = TrialDesign.from_text('[[outcomes]]\\nname = "y"\\nrank = "primary"')
    >>> analysis_paragraph(design).split(". ")[0]
    'Sites were analysed in the arm they were randomised to'
    """
    analysis = design.analysis
    sentences = ["Sites were analysed in the arm they were randomised to."]
    linear = [o for o in design.outcomes if o.linear]
    adjusted = _adjusted(design, linear)
    who = "Each outcome" if len(linear) == len(design.outcomes) else joined([o.label for o in linear])
    model = f"{who[:1].upper()}{who[1:]} at follow-up {'was' if len(linear) == 1 or who == 'Each outcome' else 'were'} regressed on arm" + (
        f", adjusted for {adjusted}," if adjusted else ""
    )
    random = "random intercepts for site and for matched pair" if analysis.pair_effects == "random" else "random intercepts for site"
    if analysis.random_slope:
        random += " and an effect of the intervention that varies between pairs"
    fixed = " and fixed effects for matched pair" if analysis.pair_effects == "fixed" else ""
    by_arm = " and a residual variance in each arm" if analysis.residual_by_arm else ""
    if linear:
        sentences.append(
            f"{model} in a linear mixed model with {random}{fixed}{by_arm}, fitted by restricted maximum likelihood, "
            f"with {_DF[analysis.inference]}."
        )
    sentences += _by_type(design)
    if analysis.standardise in _STANDARDISED and any(o.chosen_measure == "standardised-difference" for o in design.outcomes):
        sentences.append(
            f"The difference between the arms was divided by {_STANDARDISED[analysis.standardise]} and is reported as Cohen's d."
        )
    m = _sets(results, imputations)
    if m and m > 1:
        who = _population(design)
        sentences.append(
            f"Missing values of {who} were imputed {m:,} times in a two-level model with site intercepts and arm, and the estimates "
            "combined by Rubin's rules with Barnard and Rubin's degrees of freedom."
        )
    elif m == 1:
        sentences.append("People with a missing value in a model were left out of it.")
    method = MULTIPLICITY.get(analysis.multiplicity)
    families = len({o.family for o in design.outcomes})
    if method and len(design.outcomes) > 1:
        sentences.append(
            f"P-values were adjusted for the number of outcomes by {method}" + (", within families of outcomes." if families > 1 else ".")
        )
    elif len(design.outcomes) > 1:
        sentences.append("P-values were not adjusted for the number of outcomes.")
    sentences.append(f"Intervals are {100 * analysis.conf_level:g}% confidence intervals.")
    return " ".join(sentences)


_CORRECTED = {
    "MD": "with Mancl and DeRouen's small-sample correction",
    "KC": "with Kauermann and Carroll's small-sample correction",
    "KC-MD": "with the mean of Kauermann and Carroll's and Mancl and DeRouen's corrections",
    "FG": "with Fay and Graubard's small-sample correction",
    "LZ": "without a small-sample correction",
}


def _adjusted(design: TrialDesign, outcomes: Sequence[Outcome]) -> str:
    """What the models of these outcomes are adjusted for, in words; empty when nothing."""
    having = [design.analysis.baseline and o.baseline is not None for o in outcomes]
    own = f"its own value at baseline{'' if all(having) else ' where there is one'}" if any(having) else ""
    return joined([x for x in (own, *(c.name.replace("_", " ") for c in design.covariates)) if x])


def _by_type(design: TrialDesign) -> list[str]:
    """How the outcomes that the linear mixed model does not take were analysed."""
    out = []
    df = "t distributions with sites minus site-level coefficients degrees of freedom"
    for marginal in (True, False):
        mine = [o for o in design.outcomes if not o.linear and (o.chosen_model == "marginal") == marginal]
        if not mine:
            continue
        listed = joined([f"{o.label} ({o.chosen_measure.replace('-', ' ')})" for o in mine])
        text = f"{listed[:1].upper()}{listed[1:]} {'was' if len(mine) == 1 else 'were'} analysed by "
        adjusted = _adjusted(design, mine)
        on = f" on arm, adjusted for {adjusted}" if adjusted else " on arm"
        if marginal:
            several = [w for kind, w in _LINKS.items() if any(o.type == kind for o in mine)]
            out.append(
                f"{text}marginal models{on} ({joined(several)}; generalised estimating equations), with sandwich standard errors "
                f"{_CORRECTED[design.analysis.correction]} and {df}."
            )
        else:
            out.append(f"{text}mixed models{on}, with a random intercept for site, by adaptive Gauss-Hermite quadrature, and {df}.")
    return out


_LINKS = {
    "continuous": "identity link",
    "binary": "logit link, standardised to risks",
    "count": "log link",
    "ordinal": "proportional odds",
    "bounded": "logit link on the range of the scale",
    "skewed": "log link",
}


def _population(design: TrialDesign) -> str:
    population = design.imputation.population
    if population == "randomised":
        return "everybody randomised"
    if design.flow is not None and population == design.flow.follow_up:
        return "the people followed up"
    if design.flow is not None and population == design.flow.baseline:
        return "the people surveyed at baseline"
    return f"the analysed population ({population} = 1)"


def _sets(results: Any, imputations: Any) -> int | None:
    m = getattr(imputations, "m", None)
    if m:
        return int(m)
    frame = results if isinstance(results, pd.DataFrame) else getattr(results, "frame", None)
    if isinstance(frame, pd.DataFrame) and "m" in frame.columns and frame["m"].notna().any():
        return int(frame["m"].max())
    return None


def results_paragraph(results: Any, design: TrialDesign | None = None) -> str:
    """The primary outcomes in sentences, then how many of the others have an interval without zero.

    >>> frame = pd.DataFrame({"outcome": ["y"], "rank": ["primary"], "estimate": [0.351], "conf_low": [0.021], "conf_high": [0.681],
    ...                       "p_value": [0.043], "n": [169], "clusters": [85]})
    >>> results_paragraph(frame)
    'Primary outcome: y, d = 0.35, 95% CI 0.02 to 0.68, p = .043 (169 people at 85 sites).'
    """
    rows = outcome_rows(results, design)
    conf = design.analysis.conf_level if design is not None else 0.95
    primary = rows[rows["rank"] == "primary"]
    sentences = []
    if len(primary):
        parts = []
        for _, r in primary.iterrows():
            where = [counted(int(r["n"]), "person")] if not np.isnan(r["n"]) else []
            where += [f"at {counted(int(r['clusters']), 'site')}"] if not np.isnan(r["clusters"]) else []
            adjusted = (
                f", adjusted {p_words(float(r['p_adjusted']))}"
                if not np.isnan(r["p_adjusted"]) and format_p(float(r["p_adjusted"])) != format_p(float(r["p_value"]))
                else ""
            )
            parts.append(f"{r['label']}, {effect_words(r, conf)}{adjusted}" + (f" ({' '.join(where)})" if where else ""))
        sentences.append(f"Primary outcome{'s' if len(primary) > 1 else ''}: {'; '.join(parts)}.")
    others = rows[rows["rank"] != "primary"]
    if len(others):
        none = np.where([is_ratio(m) for m in others["measure"]], 1.0, 0.0)
        clear = others[(others["conf_low"] > none) | (others["conf_high"] < none)]
        zero = "zero" if not none.any() else "no effect (1 for a ratio, else zero)"
        if len(others) == 1:
            words = f"The interval of the one other outcome {'leaves out' if len(clear) else 'includes'} {zero}"
        else:
            some = "none has" if len(clear) == 0 else "one has" if len(clear) == 1 else f"{spelled(len(clear))} have"
            words = f"Of the {len(others):,} other outcomes, {some} an unadjusted interval that leaves out {zero}"
        if len(clear):
            words += ": " + "; ".join(f"{r['label']} ({effect_words(r, conf)})" for _, r in clear.iterrows())
        sentences.append(f"{words}.")
    missing = rows[rows["estimate"].isna()]
    if len(missing):
        sentences.append(f"Not estimated: {joined(missing['label'].tolist())}.")
    return " ".join(sentences)


def missing_paragraph(missing: Missing) -> str:
    """How much is missing, in a sentence."""
    f = missing.frame
    by = f.groupby(["rater", "variable", "label"], sort=False)[["people", "missing"]].sum().reset_index()
    by = by[by["people"] > 0]
    if by.empty or by["missing"].sum() == 0:
        return "No value is missing among the people analysed."
    share = by["missing"] / by["people"]
    top = by.iloc[int(np.argmax(share.to_numpy()))]
    complete = int((by["missing"] == 0).sum())
    return (
        f"Among the people analysed, {counted(complete, 'variable')} of {len(by):,} {_was(complete)} complete; the largest share missing "
        f"was {percent(top['missing'], top['people'])} ({top['label']}, {int(top['missing']):,} of {int(top['people']):,})."
    )


def power_paragraph(power: Any) -> str:
    """The planned power: the result's own protocol text where it has one."""
    text = getattr(power, "protocol_text", None)
    if callable(text):
        return str(text())
    value = getattr(power, "power", None)
    return f"The planned power is {float(value):.3f}." if value is not None else ""


def allocation_paragraph(allocation: Any) -> str:
    """How sites were matched and drawn: the plan's own text where it has one, else counts."""
    text = getattr(getattr(allocation, "plan", None), "methods_text", None)
    if callable(text):
        return str(text())
    frame = allocation.frame
    arms = [
        f"{counted(int((frame['arm'] == a).sum()), 'site')} to {a}" for a in sorted(frame["arm"].dropna().unique().tolist(), reverse=True)
    ]
    pairs = int(frame["pair"].nunique()) if "pair" in frame.columns else 0
    made = f"{counted(pairs, 'pair', start=True)} of sites were matched and one site of each drawn for each arm. " if pairs else ""
    return f"{made}Drawn: {joined(arms)}."


def matching_paragraph(pairs: int, alpha: float = 0.05) -> str:
    """What pairing costs in degrees of freedom, and how alike pairs must be to pay for it; nothing below two pairs.

    >>> print(matching_paragraph(42))
    A paired comparison of 42 pairs has 41 degrees of freedom where an unpaired one has 82; matching gains power as soon as
    the correlation within pairs is above .024.
    """
    if pairs < 2:
        return ""
    from trialkit.allocation import pairing_cost

    row = pairing_cost(pairs, alpha=alpha).frame.iloc[0]
    paired, unpaired = int(row["df_paired"]), int(row["df_unpaired"])
    least = f"{row['break_even']:.3f}".lstrip("0")
    return (
        f"A paired comparison of {counted(pairs, 'pair')} has {counted(paired, 'degree')} of freedom where an unpaired one has "
        f"{unpaired:,}; matching gains power as soon as the correlation within pairs is above {least}."
    )


def omnibus_sentence(omnibus: Any) -> str:
    """Balance on all covariates at once, against the plan's own distribution."""
    how = "all" if omnibus.exact else "a sample of"
    return (
        f"All covariates at once: d-squared = {omnibus.statistic:.2f} on {omnibus.rank} dimensions (Hansen and Bowers), "
        f"{p_words(omnibus.p_value)} among {how} {omnibus.n_assignments:,} allocations of this plan."
    )


__all__ = [
    "allocation_paragraph",
    "analysis_paragraph",
    "counted",
    "effect_words",
    "flow_paragraph",
    "joined",
    "matching_paragraph",
    "missing_paragraph",
    "omnibus_sentence",
    "p_words",
    "plural",
    "power_paragraph",
    "results_paragraph",
    "spelled",
]
