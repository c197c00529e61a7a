"""``trialkit allocate``: plan (lock the pairs), draw (once), verify (for ever)."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from trialkit.cli._show import print_json, say

app = typer.Typer(help="Match sites, lock the plan, draw once, verify for ever.", no_args_is_help=True)


@app.command("plan")
def plan(
    sites: Path = typer.Argument(..., help="CSV, XLSX or Parquet, one row a site."),
    design: Path = typer.Option(..., help="The trial design (TOML) with its [allocation] block."),
    output: Path = typer.Option(..., "-o", "--output", help="Where the locked plan goes (JSON)."),
    force: bool = typer.Option(False, "--force", help="Overwrite a plan that exists (never an allocation)."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Match the sites and lock the pairs; publish the hash it prints before any seed exists."""
    from trialkit.allocation import match_from_design, within_pairs
    from trialkit.design import TrialDesign

    declared = TrialDesign.from_toml(design)
    pairing = match_from_design(_sites(sites, declared.allocation.id if declared.allocation else "site"), declared)
    locked = within_pairs(pairing, arms=declared.arms.labels, source=sites)
    locked.save(output, force=force)
    if as_json:
        print_json(
            {
                "plan": str(output),
                "digest": locked.digest,
                "commitment": locked.commitment,
                "pairs": len(pairing.pairs),
                "singles": list(pairing.singles),
                "costs": [str(cost) for cost in pairing.costs],
            }
        )
        return
    typer.echo(f"{len(pairing.pairs)} pairs" + (f", drawn alone: {', '.join(pairing.singles)}" if pairing.singles else ""))
    for criterion, cost in zip(pairing.criteria, pairing.costs, strict=True):
        typer.echo(f"  {criterion.kind} {criterion.name}: total distance {cost}")
    typer.echo(f"plan sha256 {locked.digest}")
    typer.echo(f"commitment  {locked.commitment}")
    say(f"Wrote {output}. Publish the commitment (registry, e-mail, signed tag) before the seed exists; it binds the plan, arms and sites.")


@app.command("draw")
def draw(
    plan: Path = typer.Argument(..., help="The locked plan (JSON)."),
    seed: str | None = typer.Option(None, help="The seed as published; '-' reads it from standard input."),
    seed_file: Path | None = typer.Option(None, help="A file that holds the seed, so that it need not stand in a shell history."),
    seed_source: str = typer.Option(..., help="Where the seed came from, in words."),
    output: Path = typer.Option(..., "-o", "--output", help="Where the allocation's certificate goes (JSON); never overwritten."),
    csv: Path | None = typer.Option(None, help="Also write the allocation as CSV."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Draw the arms, once. A second draw on the same plan is refused (exit 3)."""
    from trialkit.allocation import draw_once

    allocation = draw_once(plan, output, seed=_seed(seed, seed_file), seed_source=seed_source, csv_path=csv)
    counts = allocation.frame["arm"].value_counts().to_dict()
    if as_json:
        print_json({"allocation": str(output), "plan_digest": allocation.certificate.plan_digest, "arms": counts})
        return
    typer.echo(f"plan sha256 {allocation.certificate.plan_digest}")
    typer.echo("arms: " + ", ".join(f"{arm} {n}" for arm, n in sorted(counts.items())))
    say(f"Wrote {output}" + (f" and {csv}" if csv else "") + ".")


@app.command("verify")
def verify(
    allocation: Path = typer.Argument(..., help="The certificate (JSON)."),
    sites: Path = typer.Argument(..., help="The site list that went in."),
    commitment: str | None = typer.Option(None, help="The commitment as it was published before the draw."),
    head: str | None = typer.Option(None, help="The log's last hash, as somebody else kept it."),
    log: Path | None = typer.Option(None, help="The log of attempts (plan.json.log)."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
) -> None:
    """Re-derive the allocation from its certificate; exit 0 only when every site agrees."""
    from trialkit.allocation import verify as rederive

    result = rederive(allocation, sites, commitment=commitment, head=head, log=log)
    if as_json:
        print_json(result.to_dict())
    else:
        typer.echo(result.to_text())


def _sites(path: Path, id_column: str):  # type: ignore[no-untyped-def]
    from trialkit.door import read_table

    return read_table(path, text=[id_column])


def _seed(seed: str | None, seed_file: Path | None) -> str:
    from trialkit.door import InputError

    if (seed is None) == (seed_file is None):
        raise InputError("the draw needs one seed: --seed N, --seed - (standard input) or --seed-file FILE. There is no default seed.")
    if seed_file is not None:
        try:
            text = seed_file.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{seed_file} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise InputError(f"{seed_file} is not UTF-8 text.") from None
    elif seed == "-":
        text = sys.stdin.readline()
    else:
        text = seed or ""
    text = text.strip()
    if not text:
        raise InputError("the seed is empty. Give the value that was drawn, as it was published.")
    return text
