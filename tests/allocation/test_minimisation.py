"""Minimisation: Pocock and Simon's worked arithmetic by hand, the biased coin, the log, and the randomisation distribution."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trialkit.allocation import Log, Minimisation, Plan, canonical, drand_rule, verify
from trialkit.allocation.biased_coin import coins, imbalances
from trialkit.door import InputError, Refused, VerificationError

from .conftest import SEED, SOURCE


def levels(k: int) -> dict[str, str]:
    """A fixed, uneven stream of sites."""
    return {"county": "yes" if k % 3 else "no", "size": ("small", "large", "small", "medium")[k % 4]}


def entered(n: int, **settings: Any) -> Minimisation:
    trial = Minimisation(["county", "size"], seed=SEED, seed_source=SOURCE, **settings)
    for k in range(n):
        trial.enter(f"S{k:03d}", levels(k))
    return trial


@pytest.mark.parametrize(
    ("measure", "expected"), [("range", [1 + 2 * 3, 1 + 2 * 1]), ("variance", [0.5 + 2 * 4.5, 0.5 + 2 * 0.5]), ("sd", None)]
)
def test_imbalance_by_hand(measure: str, expected: list[float] | None) -> None:
    """Level yes: 1 and 1 before; level small: 2 and 0 before; weights 1 and 2."""
    before = [(("yes", "small"), 0), (("yes", "large"), 1), (("no", "small"), 0)]
    found = imbalances(before, ("yes", "small"), ratio=(1, 1), weights=[Fraction(1), Fraction(2)], measure=measure)
    if expected is None:
        expected = [0.5**0.5 + 2 * 4.5**0.5, 0.5**0.5 + 2 * 0.5**0.5]
    assert found == pytest.approx(expected)


def test_the_published_example() -> None:
    """Pocock, Clinical Trials (Wiley 1983), chapter 5: 80 patients with advanced breast cancer; the next one is ambulatory, under 50,
    with two years or more free of disease and a visceral lesion. Sums of margins 76 and 77, so A is preferred; the range ties."""
    margins = [(30, 31), (18, 17), (9, 8), (19, 21)]
    before = []
    for factor, counts in enumerate(margins):
        for arm, n in enumerate(counts):
            before += [(tuple("this" if f == factor else "other" for f in range(4)), arm)] * n
    levels, weights = ("this",) * 4, [Fraction(1)] * 4
    assert [sum(m[arm] for m in margins) for arm in (0, 1)] == [76, 77]
    assert imbalances(before, levels, ratio=(1, 1), weights=weights, measure="range") == [5, 5]
    assert imbalances(before, levels, ratio=(1, 1), weights=weights, measure="variance") == [4.5, 6.5]


def test_unequal_ratio_compares_counts_over_the_ratio() -> None:
    before = [(("yes",), 0), (("yes",), 1), (("yes",), 1)]
    assert imbalances(before, ("yes",), ratio=(1, 2), weights=[Fraction(1)], measure="range") == pytest.approx([1.0, 0.5])


def test_coins_keep_the_ratio() -> None:
    assert coins(0, (1, 1), Fraction(4, 5)) == (Fraction(4, 5), Fraction(1, 5))
    assert coins(2, (1, 1, 1), Fraction(4, 5)) == (Fraction(1, 10), Fraction(1, 10), Fraction(4, 5))
    p = Fraction(4, 5)
    ratio = (1, 2, 3)
    # preferred as often as the ratio says, each arm is given as often as the ratio says
    given = [sum(Fraction(r, 6) * coins(a, ratio, p)[k] for a, r in enumerate(ratio)) for k in range(3)]
    assert given == [Fraction(1, 6), Fraction(2, 6), Fraction(3, 6)]


@pytest.mark.parametrize("measure", ["range", "sd", "variance"])
def test_it_balances_the_margins(measure: str) -> None:
    trial = entered(120, measure=measure)
    balance = trial.balance()
    assert (balance["control"] - balance["intervention"]).abs().max() <= 6
    assert balance.groupby("factor")[["control", "intervention"]].sum().sum(axis=1).eq(120).all()


def test_the_coin_is_not_deterministic_whatever_the_arms_are_called() -> None:
    """Arms labelled 0 and 1 made a known package's coin deterministic."""
    trial = entered(600, arms=("0", "1"), probability="0.8")
    decided = trial.frame[trial.frame["probability"] != 0.5]
    followed = (decided["arm"] == decided["preferred"]).mean()
    assert abs(followed - 0.8) < 5 * (0.16 / len(decided)) ** 0.5
    always = entered(60, probability=1).frame
    assert (always["arm"] == always["preferred"]).all()


def test_unequal_ratio_is_reached() -> None:
    trial = entered(300, ratio=(1, 2))
    assert abs((trial.codes == 1).mean() - 2 / 3) < 0.03


def test_probability_of_an_entry() -> None:
    trial = entered(40)
    assert trial.entries[0].probability == 0.5
    assert {e.probability for e in trial.entries} <= {0.5, 0.8, 0.2} | {float(Fraction(1, 5))}


def test_the_sample_is_the_distribution_the_seeds_give() -> None:
    reference = entered(12)
    sampled = reference.sample(4000, seed=1)
    assert sampled.shape == (4000, 12) and reference.sites[0] == "S000"
    by_seed = []
    for k in range(400):
        trial = Minimisation(["county", "size"], seed=f"{k}{SEED}", seed_source=SOURCE)
        for i in range(12):
            trial.enter(f"S{i:03d}", levels(i))
        by_seed.append(trial.codes)
    drawn = np.array(by_seed)
    np.testing.assert_allclose(drawn.mean(axis=0), 0.5, atol=0.13)
    np.testing.assert_allclose(sampled.mean(axis=0), 0.5, atol=0.045)
    # the dependence between successive sites, not only the margins
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(sampled.T), atol=0.075)


def test_seed_and_settings_are_checked() -> None:
    for settings, says in (
        ({"seed": None}, "no seed"),
        ({"measure": "rnge"}, "Did you mean 'range'"),
        ({"probability": 0.3}, "fair share"),
        ({"probability": 1.2}, "fair share"),
        ({"probability": "x"}, "fair share"),
        ({"levels": {"cunty": ["yes"]}}, "Did you mean 'county'"),
        ({"ratio": (1, 2, 3)}, "does not fit the arms"),
    ):
        with pytest.raises(InputError, match=says):
            Minimisation(["county"], **{"seed": SEED, "seed_source": SOURCE, **settings})
    for factors in ([], ["a", "a"], {"a": -1}, {"a": True}):
        with pytest.raises(InputError):
            Minimisation(factors, seed=SEED, seed_source=SOURCE)


def test_entries_are_checked() -> None:
    trial = Minimisation(["county"], seed=SEED, seed_source=SOURCE, levels={"county": ["yes", "no"]})
    trial.enter("S1", {"county": "yes"})
    for site, given, says in (
        ("S2", {"county": "Yes"}, "unknown level of county 'Yes'. Did you mean 'yes'"),
        ("S2", {}, "no level of 'county'"),
        ("S2", {"county": "yes", "x": 1}, "unknown factor 'x'"),
        ("  ", {"county": "yes"}, "blank"),
        ("S\t2", {"county": "yes"}, "control character"),
        ("S2/coin", {"county": "yes"}, "another site's coin"),
    ):
        with pytest.raises(InputError, match=says):
            trial.enter(site, given)
    with pytest.raises(Refused, match="entered before"):
        trial.enter("S1", {"county": "no"})
    assert len(trial.entries) == 1


def test_the_log_is_written_first_and_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "minimisation.log"
    trial = entered(15, log=path)
    assert [line["event"] for line in Log(path).read()] == ["opened", *["entered"] * 15]
    assert SEED not in path.read_text()
    again = Minimisation(["county", "size"], seed=SEED, seed_source=SOURCE, log=path)
    assert again.entries == trial.entries and again.digest == trial.digest
    # two hands on one log: each sees what the other entered
    trial.enter("X1", levels(1))
    assert again.enter("X2", levels(2)).site == "X2"
    with pytest.raises(Refused):
        trial.enter("X2", levels(2))
    assert trial.sites == again.sites == (*[f"S{k:03d}" for k in range(15)], "X1", "X2")
    assert entered(15).codes.tolist() == trial.codes.tolist()[:15]


def test_a_changed_log_is_found(tmp_path: Path) -> None:
    path = tmp_path / "minimisation.log"
    entered(6, log=path)
    with pytest.raises(InputError, match="another seed"):
        Minimisation(["county", "size"], seed=SEED[::-1], seed_source=SOURCE, log=path)
    with pytest.raises(InputError, match="log of another plan"):
        Minimisation(["county"], seed=SEED, seed_source=SOURCE, log=path)
    # a forger who rebuilds the whole chain with one arm turned
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    other = tmp_path / "forged.log"
    with Log(other).opened() as held:
        for line in lines:
            body = {k: v for k, v in line.items() if k not in ("n", "at", "event", "plan", "previous", "sha256")}
            if line.get("site") == "S003":
                body["arm"] = "control" if body["arm"] == "intervention" else "intervention"
            held.append(line["event"], plan=line["plan"], **body)
    with pytest.raises(VerificationError, match="site S003: under this seed"):
        Minimisation(["county", "size"], seed=SEED, seed_source=SOURCE, log=other)
    # its end cut off behind the back of a running trial
    trial = Minimisation(["county", "size"], seed=SEED, seed_source=SOURCE, log=path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(VerificationError, match="site S005 is no longer in the log"):
        trial.enter("S9", levels(9))


# --- as any other scheme ---


def as_table(trial: Minimisation) -> pd.DataFrame:
    """The sites as a file would hold them, in another order than they entered."""
    frame = trial.frame[[trial.id, *trial.rule.weights]]
    return frame.iloc[::-1].reset_index(drop=True)


@pytest.mark.parametrize(
    "settings",
    [{}, {"arms": ("0", "1"), "ratio": (1, 2), "measure": "sd"}, {"arms": ("a", "b", "c"), "measure": "variance", "probability": "2/3"}],
)
def test_a_certificate_is_derived_again(settings: dict[str, Any], tmp_path: Path) -> None:
    trial = entered(23, log=tmp_path / "m.log", id="clinic", seed_rule="dice, once", **settings)
    first = Minimisation(["county", "size"], seed=SEED, seed_source=SOURCE, seed_rule="dice, once", **settings)
    assert first.commitment == trial.commitment  # published before anybody entered
    trial.certificate.save(tmp_path / "c.json")
    as_table(trial).to_csv(tmp_path / "sites.csv", index=False)
    found = verify(tmp_path / "c.json", tmp_path / "sites.csv", commitment=first.commitment, log=tmp_path / "m.log")
    assert found.anchored and found.sites == 23 and ("entries", "23 sites in their order of entry") in found.checks
    again = Plan.from_dict(trial.certificate.to_dict()["plan"])
    assert again.probabilities().sum(axis=1) == pytest.approx(1) and (again.sample(9, seed=3) == trial.plan.sample(9, seed=3)).all()
    assert trial.allocation.balance().frame["covariate"].iloc[0] == "county"
    assert trial.certificate.frame["clinic"].tolist() == list(trial.sites)
    assert trial.certificate.frame["arm"].tolist() == trial.frame["arm"].tolist()


def test_a_changed_certificate_is_found(tmp_path: Path) -> None:
    trial = entered(23, log=tmp_path / "m.log")
    record = trial.certificate.to_dict()
    rows = record["plan"]["rows"]
    swapped = {**record, "plan": {**record["plan"], "rows": [rows[1], rows[0], *rows[2:]]}}
    for changed, says in (
        (swapped, "site S00"),
        ({**record, "arms": [[s, "control"] for s, _ in record["arms"]]}, "the draw gives intervention"),
        ({**record, "plan": {**record["plan"], "probability": "9/10"}}, "the plan text"),
        ({**record, "plan": {**record["plan"], "measure": "rnge"}}, "unknown measure"),
        ({**record, "plan": {**record["plan"], "rows": rows[:-1]}}, "list of rows"),
    ):
        with pytest.raises(VerificationError, match=says):
            verify(changed, as_table(trial))
    with pytest.raises(VerificationError, match="site S005, column 'size'"):
        verify(record, as_table(trial).assign(size=lambda f: f["size"].where(f["site"] != "S005", "huge")))
    # a log of the same plan and seed, in which the sites entered otherwise
    other = Minimisation(["county", "size"], seed=SEED, seed_source=SOURCE, log=tmp_path / "o.log")
    for k in (1, 0):
        other.enter(f"S{k:03d}", levels(k))
    forged = {**record, "log_head": Log(tmp_path / "o.log").head}
    with pytest.raises(VerificationError, match="in another order, than the certificate"):
        verify(canonical.sealed(forged), as_table(trial), log=tmp_path / "o.log")


def test_what_a_minimisation_cannot_give() -> None:
    trial = Minimisation(["county"], seed=SEED, seed_source=SOURCE)
    with pytest.raises(InputError, match="no site has entered"):
        _ = trial.allocation
    trial.enter("S1", {"county": "yes"})
    with pytest.raises(InputError, match="not equally likely"):
        trial.plan.assignments()
    with pytest.raises(InputError, match="both as the id and as a factor"):
        Minimisation(["county"], seed=SEED, seed_source=SOURCE, id="county")
    with pytest.raises(InputError, match="the plan says its seed will be round 7"):
        Minimisation(["county"], seed=SEED, seed_source=SOURCE, seed_rule=drand_rule(round=7))


def test_words() -> None:
    text = entered(3, ratio=(1, 2), measure="sd").methods_text()
    assert "imbalance being the sd" in text and "1:2" in text and "probability 0.8" in text
    assert "drawn only after its site had been entered" in text
    assert "Minimisation of 3 sites" in str(entered(3))
