"""``trialkit demo``: the main job on a simulated supervision trial, from site list to published table."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trialkit.cli._show import new_folder, say

if TYPE_CHECKING:
    import pandas as pd

    from trialkit.allocation import Allocation, Pairing, Plan
    from trialkit.design import TrialDesign

SEED = 20260901
IMPUTATIONS = 20


def demo(
    output: Path = typer.Option(Path("trialkit-demo"), "-o", "--output", help="Folder for what the demo makes."),
    seed: int = typer.Option(SEED, help="Seed of the simulated trial."),
    m: int = typer.Option(IMPUTATIONS, help="Imputations."),
    force: bool = typer.Option(False, "--force", help="Overwrite the files of an earlier demo (its allocation is kept and verified)."),
) -> None:
    """Simulate a trial, allocate, power, impute, analyse, report: the whole path with nothing to prepare."""
    from trialkit import __version__
    from trialkit.design import TrialDesign
    from trialkit.door import read_table, write_whole
    from trialkit.imputation import impute
    from trialkit.itt import itt
    from trialkit.power import power
    from trialkit.report import report, write_tables
    from trialkit.simulation import simulate as make
    from trialkit.simulation.shipped import shipped_scenario

    begun = time.perf_counter()
    scenario = shipped_scenario("supervision")
    trial = make(scenario, seed=seed)
    folder = new_folder(output, ["sites.csv", "people.csv", "plan.json", "report.html"], force=force)
    for name, content in {**trial.files(), "trial.toml": scenario.design.to_toml()}.items():
        write_whole(folder / name, content, force=force)
    typer.echo(f"trialkit {__version__}  demo: the supervision trial, simulated with seed {seed}; the true effects are known")

    # from here on only what a user has: the files
    design = TrialDesign.from_toml(folder / "trial.toml")
    sites = read_table(folder / "sites.csv", text=[_id(design)])
    people = read_table(folder / "people.csv", text=design.text_columns)
    typer.echo(_line("sites", _sites_words(sites)))

    planned = power(**_planning(design))
    typer.echo(
        _line(
            "power",
            f"{planned.power:.4f} at d = {design.power.effect:g}, ICC {design.power.icc:g}, {design.power.clusters} sites x "  # type: ignore[union-attr]
            f"{design.power.cluster_size:g} (exact F, df {planned.df:g}); published: .80",  # type: ignore[union-attr]
        )
    )

    pairing, plan, allocation = _allocate(sites, design, folder, trial.draw_seed, force=force)
    for line in _allocation_words(pairing, plan, allocation):
        typer.echo(_line("allocate" if line.startswith(str(len(pairing.pairs))) else "", line))

    imputations = impute(people, design, m=m, seed=seed)
    results = itt(imputations, design)
    typer.echo(_line("people", _people_words(people, design)))
    typer.echo(
        _line("impute", f"{m} two-level imputations of {_asked_rows(imputations)} people; largest FMI {results.frame['fmi'].max():.2f}")
    )
    typer.echo(_line("ITT", "d with 95% CI, Kenward-Roger df, pooled by Rubin's rules; 'planted' is the truth of the simulation"))
    typer.echo(_results_table(results.frame, trial.truth))

    write_tables(results, folder, design=design, people=people, force=force)
    page = report(
        results,
        folder / "report.html",
        design=design,
        sites=sites,
        people=people,
        allocation=allocation,
        power=planned,
        imputations=imputations,
        force=force,
    )
    page.save_figures(folder / "figures", force=force)
    typer.echo(
        _line("report", f"{page.path}; tables in {folder}/, pictures in {folder / 'figures'}/, certificate {folder / 'allocation.json'}")
    )
    typer.echo(_line("next", f"trialkit allocate verify {folder / 'allocation.json'} {folder / 'sites_randomised.csv'}"))
    typer.echo(f"done in {time.perf_counter() - begun:.1f} s", err=True)


def _line(head: str, text: str) -> str:
    return f" {head:<9} {text}"


def _id(design: TrialDesign) -> str:
    return design.allocation.id if design.allocation else design.columns.site


def _planning(design: TrialDesign) -> dict[str, Any]:
    assert design.power is not None
    return design.power.model_dump(exclude={"icc_source"})


def _sites_words(sites: pd.DataFrame) -> str:
    randomised = sites[sites["status"] == "randomised"]
    kinds = ", ".join(f"{n} {kind}" for kind, n in randomised["type"].value_counts().items())
    return f"{len(sites)} recruited, {len(sites) - len(randomised)} left before the draw, {len(randomised)} randomised ({kinds})"


def _allocate(sites: pd.DataFrame, design: TrialDesign, folder: Path, seed: str, *, force: bool) -> tuple[Pairing, Plan, Allocation]:
    """Match, lock, draw once, verify; an allocation that is there already is kept if it is this plan's."""
    from trialkit.allocation import Certificate, draw_once, log_path, match_from_design, verify, within_pairs
    from trialkit.door import Refused, write_whole
    from trialkit.simulation.trial import csv_text

    eligible = sites[sites["status"] == "randomised"].reset_index(drop=True)
    write_whole(folder / "sites_randomised.csv", csv_text(eligible), force=force)
    pairing = match_from_design(eligible, design)
    plan = within_pairs(pairing, arms=design.arms.labels)
    certificate = folder / "allocation.json"
    source = "derived from the demo's own seed; in a real trial it is drawn outside, after the plan's hash is published"
    if certificate.exists():
        if Certificate.load(certificate).plan_digest != plan.digest:
            raise Refused(f"{certificate} belongs to another plan, and an allocation is never overwritten. Name another folder with -o.")
        record = Certificate.load(certificate).to_dict()
        say(f"{certificate} is kept: an allocation is never overwritten")
        again = plan.draw(seed=seed, seed_source=source)
        allocation = replace(again, attempts=record["attempts"], log_head=record["log_head"], drawn_at=record["drawn_at"])
    else:
        log_path(folder / "plan.json").unlink(missing_ok=True)
        plan.save(folder / "plan.json", force=force)
        allocation = draw_once(folder / "plan.json", certificate, seed=seed, seed_source=source, csv_path=folder / "allocation.csv")
    verify(certificate, eligible)
    return pairing, plan, allocation


def _allocation_words(pairing: Pairing, plan: Plan, allocation: Allocation) -> list[str]:
    counts = allocation.frame["arm"].value_counts()
    alone = f" and {len(pairing.singles)} drawn alone ({', '.join(pairing.singles)})" if pairing.singles else ""
    return [
        f"{len(pairing.pairs)} pairs{alone}; total distances {', '.join(str(c) for c in pairing.costs)}: proved least",
        f"plan sha256 {plan.digest}",
        "drawn once: " + ", ".join(f"{counts[arm]} {arm}" for arm in plan.arms) + "; verified site by site",
    ]


def _people_words(people: pd.DataFrame, design: TrialDesign) -> str:
    assert design.columns.rater is not None and design.flow is not None
    parts = []
    for rater, rows in people.groupby(design.columns.rater, sort=False):
        done, followed = rows[design.flow.baseline].sum(), rows[design.flow.follow_up].sum()
        parts.append(f"{len(rows)} {rater}s (baseline {done:.0f}, follow-up {followed:.0f})")
    return ", ".join(parts)


def _asked_rows(imputations: Any) -> int:
    return len(next(iter(imputations)))


def _results_table(frame: pd.DataFrame, truth: pd.DataFrame) -> str:
    """Outcome by outcome: d, interval, p, and the effect that was planted."""
    import pandas as pd

    from trialkit.results import Table, format_cell

    planted = truth.set_index("outcome")["planted"]
    rows = pd.DataFrame(
        {
            "": [""] * len(frame),
            "outcome": frame["outcome"],
            "level": frame["level"],
            "rank": frame["rank"],
            "n": frame["n"],
            "d": [format_cell(v, "+.2f") for v in frame["estimate"]],
            "95% CI": [
                f"{format_cell(low, '+.2f')} to {format_cell(high, '+.2f')}"
                for low, high in zip(frame["conf_low"], frame["conf_high"], strict=True)
            ],
            "df": frame["df"],
            "p": frame["p_value"],
            "planted": [planted[o] for o in frame["outcome"]],
        }
    )
    inside = ((frame["conf_low"].to_numpy() <= rows["planted"]) & (rows["planted"] <= frame["conf_high"].to_numpy())).sum()
    table = Table(rows, formats={"p": "p", "planted": "+.2f", "n": "d", "df": ".1f"}).to_text()
    note = f"{inside} of {len(rows)} planted effects lie inside their 95% intervals"
    return "\n".join(
        [
            *("          " + line.lstrip() if k == 0 else "          " + line[2:] for k, line in enumerate(table.splitlines())),
            _line("", note),
        ]
    )
