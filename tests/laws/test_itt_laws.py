"""What must hold for any trial: the order of rows, the names of things and the units of the outcome are not information."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

import trialkit as tk
from trialkit.design import TrialDesign
from trialkit.itt.estimands import weighted_effects

DESIGN = TrialDesign.from_text(
    """
[columns]
pair = "pair"
[analysis]
pair_effects = "none"
[[outcomes]]
name = "y"
rank = "primary"
[[covariates]]
name = "band"
type = "categorical"
"""
)
NUMBERS = ["estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high", "icc"]


@st.composite
def trials(draw):
    """A trial of 6 to 20 sites of 1 to 9 people, at least two sites an arm, with any share of variation between sites."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pairs = draw(st.integers(3, 10))
    sizes = rng.integers(2, 10, size=2 * pairs)
    site = np.repeat(np.arange(2 * pairs), sizes)
    tau = draw(st.sampled_from([0.0, 0.2, 1.0, 3.0]))
    n = len(site)
    frame = pd.DataFrame(
        {
            "person": [f"P{k}" for k in range(n)],
            "site": [f"S{s}" for s in site],
            "pair": [f"Q{s // 2}" for s in site],
            "arm": np.where(site % 2, "intervention", "control"),
            "band": rng.choice(["a", "b", "c"], size=n),
            "y_0": rng.normal(size=n),
        }
    )
    frame["y"] = 0.5 * frame["y_0"] + tau * rng.normal(size=2 * pairs)[site] + rng.normal(size=n)
    return frame


def numbers(frame: pd.DataFrame) -> np.ndarray:
    return tk.itt(frame, DESIGN).frame[NUMBERS].to_numpy(dtype=float)[0]


@settings(max_examples=25, deadline=None)
@given(trials(), st.randoms(use_true_random=False))
def test_row_order_and_labels_change_nothing(frame, random):
    order = list(range(len(frame)))
    random.shuffle(order)
    shuffled = frame.iloc[order].reset_index(drop=True)
    names = list("abcdefghijklmnopqrstuvwxyz")
    random.shuffle(names)
    codes = {site: names[k] for k, site in enumerate(dict.fromkeys(shuffled["site"]))}
    renamed = shuffled.assign(site=shuffled["site"].map(codes), person=[f"N{k}" for k in range(len(frame))])
    np.testing.assert_allclose(numbers(renamed), numbers(frame), rtol=1e-8, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(trials(), st.floats(-1e4, 1e4), st.floats(1e-4, 1e4))
def test_units_of_the_outcome_change_nothing(frame, shift, scale):
    # a standardised effect has no units; the baseline's are free too. The shift grows with the scale: a double must still hold the digits
    moved = frame.assign(y=scale * (frame["y"] + shift), y_0=(frame["y_0"] - shift) / scale)
    np.testing.assert_allclose(numbers(moved), numbers(frame), rtol=1e-6, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(trials())
def test_swapping_arms_turns_the_sign_alone(frame):
    swapped = frame.assign(arm=np.where(frame["arm"] == "control", "intervention", "control"))
    a, b = numbers(frame), numbers(swapped)
    np.testing.assert_allclose(b[[0, 3, 5, 6]], -a[[0, 3, 6, 5]], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(b[[1, 2, 4, 7]], a[[1, 2, 4, 7]], rtol=1e-7, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(trials(), st.sampled_from([1e6, 1e-6]), st.sampled_from([0.0, 1e9]))
def test_extreme_units_leave_df_and_t_alone(frame, scale, shift):
    if scale < 1 and shift:
        shift = 0.0  # 1e-6 beside 1e9 leaves no digits in a double
    fit, moved = (
        tk.fit_mixed("y ~ arm + y_0 + band", f, groups=["site"]).frame for f in (frame, frame.assign(y=scale * frame["y"] + shift))
    )
    np.testing.assert_allclose(moved["df"][1:], fit["df"][1:], rtol=1e-8)
    np.testing.assert_allclose(moved["statistic"][1:], fit["statistic"][1:], rtol=1e-8, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(trials())
def test_kenward_roger_is_never_the_smaller_standard_error_and_df_stay_below_the_people(frame):
    kr, plain = (tk.fit_mixed("y ~ arm + y_0", frame, groups=["site"], inference=i).frame for i in ("kenward-roger", "normal"))
    assert (kr["std_error"] >= plain["std_error"] * (1 - 1e-9)).all()
    assert (kr["df"] > 0).all()
    assert kr["df"].max() <= len(frame)


@given(st.integers(0, 10_000), st.floats(-5, 5))
def test_an_effect_added_to_everybody_is_found_by_both_weightings(seed, effect):
    """Adding the same effect to all treated people moves both estimates by it, and neither standard error nor their difference."""
    rng = np.random.default_rng(seed)
    sites = int(rng.integers(6, 14))
    sizes = rng.integers(1, 9, size=sites)
    site = np.repeat(np.arange(sites), sizes)
    arm = (rng.permutation(sites) % 2)[site].astype(float)
    x = np.column_stack([np.ones(len(site)), arm, rng.normal(size=len(site))])
    y = rng.normal(size=len(site)) + 0.3 * rng.normal(size=sites)[site]
    before, after = weighted_effects(x, y, site), weighted_effects(x, y + effect * arm, site)
    np.testing.assert_allclose(after.estimate[:2], before.estimate[:2] + effect, atol=1e-9)
    np.testing.assert_allclose(after.estimate[2], before.estimate[2], atol=1e-9)
    np.testing.assert_allclose(after.std_error, before.std_error, rtol=1e-7)
    np.testing.assert_allclose(after.df, before.df, rtol=1e-6)


@given(st.integers(0, 10_000))
def test_leaving_the_sites_in_another_order_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(8), rng.integers(1, 7, size=8))
    x = np.column_stack([np.ones(len(site)), site % 2])
    y = rng.normal(size=len(site))
    order = rng.permutation(len(site))
    names = rng.permutation(8)[site]
    one, other = weighted_effects(x, y, site), weighted_effects(x[order], y[order], names[order])
    np.testing.assert_allclose(other.estimate, one.estimate, atol=1e-12)
    np.testing.assert_allclose(other.std_error, one.std_error, rtol=1e-8)
