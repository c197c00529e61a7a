"""Made tests/reference/certificates.json, once: a certificate of every scheme, as somebody would find it years later.

They must verify for ever. If a change of the code makes one fail, the change is wrong, or every certificate that
users hold needs a way to be read: never make these again to please a test.

    python tests/reference/certificates.py > tests/reference/certificates.json
"""

from __future__ import annotations

import io
import json
import sys

import pandas as pd

from trialkit.allocation import (
    Minimisation,
    beacon,
    canonical,
    commit,
    constrained,
    drand_rule,
    exact,
    exact_if_possible,
    mahalanobis,
    match_pairs,
    nearest,
    reveal,
    reveal_rule,
    simple,
    stratified,
    within_pairs,
)

CSV = """site,county,budget,staff,day
S01,yes,410000,9,3
S02,no,125000.50,4,1
S03,no,98000,3,2
S04,yes,395000,8,9
S05,no,2210000,31,4
S06,no,131000,5,5
S07,yes,120000,4,11
S08,no,1990000,27,6
S09,yes,88000,2,7
S10,no,104000,3,8
S11,no,9007199254740993,12,10
site 12,no,77000,6,12
Ωmega,yes,310000,7,13
"""
SEED, SOURCE = "a3f1c2d4e5b60718293a4b5c6d7e8f90", "dice thrown by two people outside the study"
# drand, quicknet, as published by the League of Entropy
PULSE = {
    "round": 1000,
    "randomness": "fe290beca10872ef2fb164d2aa4442de4566183ec51c56ff3cd603d930e54fdd",
    "signature": "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39",
}


def made() -> dict[str, object]:
    """Every scheme, odd rule and source of a seed."""
    sites = pd.read_csv(io.StringIO(CSV), dtype=str)
    numbers = sites.astype({"staff": float, "day": float})
    ranked = [exact("county"), nearest("budget"), exact_if_possible("staff")]
    single = within_pairs(match_pairs(sites, id="site", criteria=ranked, odd="single"))
    secrets = {"A. Investigator": "correct horse battery", "B. Statistician": "staple 9f8e7d6c5b4a"}
    sealed = {who: commit(secret, who=who, digest=single.digest) for who, secret in secrets.items()}
    revealed = reveal([(who, secrets[who], sealed[who]) for who in secrets], digest=single.digest)
    trial = Minimisation({"county": 2, "staff": 1}, seed=SEED, seed_source=SOURCE, ratio=(1, 2), measure="variance")
    for row in sites.sort_values("day", key=lambda d: d.astype(int)).to_dict(orient="records"):
        trial.enter(row["site"], {"county": row["county"], "staff": "many" if int(row["staff"]) > 5 else "few"})

    def drawn(plan, seed=SEED, source=SOURCE):  # type: ignore[no-untyped-def]
        return plan.draw(seed=seed, seed_source=source).certificate

    certificates = {
        "pairs, single, typed": drawn(single),
        "pairs, short seed": drawn(single, seed=8392017465),
        "pairs, reveal": single.with_seed_rule(reveal_rule(sealed)).draw(seed=revealed).certificate,
        "pairs, trio, beacon": within_pairs(match_pairs(sites, id="site", criteria=ranked, odd="trio"), seed_rule=drand_rule(round=1000))
        .draw(seed=beacon(json.dumps(PULSE)))
        .certificate,
        "pairs, reserve, Mahalanobis": drawn(
            within_pairs(match_pairs(numbers, id="site", criteria=[mahalanobis(["staff", "day"])], odd="reserve"))
        ),
        "pairs, named, sequential": drawn(
            within_pairs(match_pairs(sites, id="site", criteria=[nearest("budget")], odd="S05", method="sequential-nearest"))
        ),
        "stratified": drawn(stratified(numbers, id="site", strata=["county"], misfits="wglobal", ratio=(1, 2), arms=("0", "1"))),
        "stratified, blocks": drawn(stratified(numbers, id="site", block_size=3, order="day", arms=("a", "b", "c"), misfits="strata")),
        "constrained": drawn(constrained(numbers, id="site", covariates={"staff": 2, "day": 1}, strata=["county"], cutoff=0.2)),
        "simple": drawn(simple(numbers, id="site", arms=("0", "1", "2"), ratio=(2, 1, 1))),
        "minimisation": trial.certificate,
    }
    return {"sites": CSV, "certificates": {name: c.to_dict() for name, c in certificates.items()}}


if __name__ == "__main__":
    sys.stdout.write(canonical.dumps(made()))
