"""``trialkit allocate``: plan (lock the pairs), draw (once), verify (for ever); who may see what, and what becomes of sites."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trialkit.cli._seed import read_text, seed_of, seed_rule
from trialkit.cli._show import print_json, rows, say

if TYPE_CHECKING:
    import pandas as pd

    from trialkit.allocation import Plan

app = typer.Typer(help="Match sites, lock the plan, draw once, verify for ever.", no_args_is_help=True)

_JSON = typer.Option(False, "--json", help="Print one JSON object and nothing else.")
_CERTIFICATE = typer.Argument(..., help="The certificate (JSON).")
_LOG = typer.Option(..., "--log", help="The log of attempts (plan.json.log).")


@app.command("plan")
def plan(
    sites: Path = typer.Argument(..., help="CSV, XLSX or Parquet, one row a site."),
    design: Path = typer.Option(..., help="The trial design (TOML) with its \\[allocation] block."),
    output: Path = typer.Option(..., "-o", "--output", help="Where the locked plan goes (JSON)."),
    rule: str | None = typer.Option(
        None, "--seed-rule", help="Where the seed will come from: drand:ROUND, nist:TIME, reveal:COMMITMENTS.json, or words."
    ),
    chain: Path | None = typer.Option(None, help="A drand chain other than quicknet and default: the JSON of its /info."),
    force: bool = typer.Option(False, "--force", help="Overwrite a plan that exists (never an allocation)."),
    as_json: bool = _JSON,
) -> None:
    """Match the sites and lock the pairs; publish the hash it prints before any seed exists."""
    from trialkit.allocation import match_from_design, within_pairs
    from trialkit.design import TrialDesign
    from trialkit.door import InputError

    if chain is not None and rule is None:
        raise InputError("--chain is the info of a drand chain, and no rule for the seed was given. Write --seed-rule drand:ROUND.")
    named = None if rule is None else seed_rule(rule, chain)
    declared = TrialDesign.from_toml(design)
    pairing = match_from_design(_sites(sites, declared.allocation.id if declared.allocation else "site"), declared)
    locked = within_pairs(pairing, arms=declared.arms.labels, source=sites, seed_rule=named)
    _keep_drawn(output)
    locked.save(output, force=force)
    if as_json:
        print_json(
            {
                "plan": str(output),
                "digest": locked.digest,
                "commitment": locked.commitment,
                "pairs": len(pairing.pairs),
                "trios": [list(t) for t in pairing.trios],
                "singles": list(pairing.singles),
                "reserve": list(pairing.reserve),
                "costs": [str(cost) for cost in pairing.costs],
                "proved_least": pairing.optimality.checked,
                "seed_rule": locked.seed_rule,
            }
        )
    else:
        groups = [("in a trio", [s for t in pairing.trios for s in t]), ("drawn alone", pairing.singles), ("set aside", pairing.reserve)]
        typer.echo(f"{len(pairing.pairs)} pairs" + "".join(f", {what}: {', '.join(who)}" for what, who in groups if who))
        for criterion, cost in zip(pairing.criteria, pairing.costs, strict=True):
            typer.echo(f"  {criterion.kind} {criterion.name}: total distance {cost}")
        proof = pairing.optimality
        proved = f"proved least on {proof.edges:,} allowed pairs" if proof.checked else "not proved least"
        typer.echo(f"{proved}: {proof.reason}" if proof.reason else proved)
        typer.echo(f"plan sha256 {locked.digest}")
        typer.echo(f"commitment  {locked.commitment}")
        say(
            f"Wrote {output}. Publish the commitment (registry, e-mail, signed tag) before the seed exists; "
            "it binds the plan, arms, sites and the rule for the seed."
        )
    _say_when(locked)


def _keep_drawn(output: Path) -> None:
    """A plan whose draw was begun stays as it is, whatever is forced: re-planning is the other way of re-drawing."""
    from trialkit.allocation import Log, log_path
    from trialkit.door import Refused

    log = log_path(output)
    if output.exists() and log.exists() and any(line["event"] == "attempt" for line in Log(log).read()):
        raise Refused(
            f"{output} has been drawn ({log}), so it is kept as it is. A new plan gets a new name, and the old log tells of the old one."
        )


def _say_when(locked: Plan) -> None:
    """When the value that the plan names comes into the world; a value that is there already anchors nothing."""
    from trialkit.allocation import seeds

    when = seeds.published(locked.seed_rule)
    if when is None or locked.seed_rule is None:
        return
    named, at = seeds.rule_words(locked.seed_rule), f"{when:%Y-%m-%d %H:%M:%S} UTC"
    if when <= datetime.now(UTC):
        say(f"warning: {named} was published at {at}, so its value could be known to whoever made this plan. Name one that lies ahead.")
    else:
        say(f"The seed: {named}, published at {at}.")


@app.command("commit")
def commit(
    plan: Path = typer.Argument(..., help="The locked plan (JSON)."),
    who: str = typer.Option(..., help="The party's name."),
    secret_file: Path | None = typer.Option(None, help="The party's secret, 16 characters or more; asked for at a terminal when left out."),
    as_json: bool = _JSON,
) -> None:
    """One party's commitment to a secret: both publish theirs, the plan is locked again with them, then both reveal."""
    from trialkit.allocation import Plan
    from trialkit.allocation import commit as seal
    from trialkit.door import InputError

    digest = Plan.load(plan).digest
    if secret_file is None and not sys.stdin.isatty():
        raise InputError("a commitment needs a secret: --secret-file FILE, or a terminal to ask at.")
    secret = (
        read_text(secret_file).strip()
        if secret_file is not None
        else typer.prompt("Secret (it is not shown)", hide_input=True, confirmation_prompt="Once more", err=True)
    )
    made = seal(secret, who=who, digest=digest)
    if as_json:
        print_json({"who": who, "commitment": made, "digest": digest})
    else:
        typer.echo(made)


@app.command("draw")
def draw(
    plan: Path = typer.Argument(..., help="The locked plan (JSON)."),
    seed: str | None = typer.Option(None, help="The seed as published; '-' reads it from standard input."),
    seed_file: Path | None = typer.Option(None, help="A file that holds the seed, so that it need not stand in a shell history."),
    beacon: Path | None = typer.Option(None, help="A drand or NIST pulse as the beacon answered it (JSON); checked offline."),
    beacon_certificate: Path | None = typer.Option(None, help="The certificate that a NIST pulse names (PEM)."),
    chain: Path | None = typer.Option(None, help="The drand chain's /info (JSON), where the plan does not name the chain."),
    reveal: Path | None = typer.Option(None, help="The parties' secrets (JSON), against the commitments in the plan."),
    seed_source: str | None = typer.Option(None, help="Where a typed seed came from, in words."),
    output: Path = typer.Option(..., "-o", "--output", help="Where the allocation's certificate goes (JSON); never overwritten."),
    csv: Path | None = typer.Option(None, help="Also write the allocation as CSV."),
    as_json: bool = _JSON,
) -> None:
    """Draw the arms, once. Without a seed it is asked for, unseen. A second draw on the same plan is refused (exit 3)."""
    from trialkit.allocation import Plan, draw_once

    chosen, source = seed_of(
        Plan.load(plan),
        seed=seed,
        seed_file=seed_file,
        beacon=beacon,
        reveal=reveal,
        source=seed_source,
        chain=chain,
        certificate=beacon_certificate,
    )
    allocation = draw_once(plan, output, seed=chosen, seed_source=source, csv_path=csv)
    counts = allocation.frame["arm"].value_counts().to_dict()
    record = allocation.certificate.record
    if as_json:
        print_json(
            {
                "allocation": str(output),
                "plan_digest": allocation.certificate.plan_digest,
                "commitment": allocation.plan.commitment,
                "arms": counts,
                "anchored": record["seed"]["anchored"],
                "anchor": record["seed"]["anchor"],
                "attempts": allocation.attempts,
                "log_head": allocation.log_head,
            }
        )
        return
    typer.echo(f"plan sha256 {allocation.certificate.plan_digest}")
    typer.echo("arms: " + ", ".join(f"{arm} {n}" for arm, n in sorted(counts.items())))
    typer.echo(f"seed: {record['seed']['anchor']}")
    typer.echo(f"attempt {allocation.attempts} at this plan; log head {allocation.log_head}")
    say(f"Wrote {output}" + (f" and {csv}" if csv else "") + ".")


@app.command("verify")
def verify(
    allocation: Path = _CERTIFICATE,
    sites: Path = typer.Argument(..., help="The site list that went in."),
    commitment: str | None = typer.Option(None, help="The commitment as it was published before the draw."),
    head: str | None = typer.Option(None, help="The log's last hash, as somebody else kept it."),
    log: Path | None = typer.Option(None, help="The log of attempts (plan.json.log)."),
    as_json: bool = _JSON,
) -> None:
    """Re-derive the allocation from its certificate; exit 0 only when every site agrees."""
    from trialkit.allocation import verify as rederive

    result = rederive(allocation, sites, commitment=commitment, head=head, log=log)
    if as_json:
        print_json(result.to_dict())
    else:
        typer.echo(result.to_text())


# --- after the draw ---


@app.command("export")
def export(
    allocation: Path = _CERTIFICATE,
    output: Path = typer.Option(..., "-o", "--output", help="Where the table with arms A and B goes (CSV)."),
    key: Path = typer.Option(..., help="Where the key to the letters goes (JSON); to be kept by somebody else."),
    as_json: bool = _JSON,
) -> None:
    """The allocation for blind eyes: arms coded A and B, the key apart. Neither file is ever overwritten."""
    from trialkit.allocation import save_blinded

    frame = save_blinded(allocation, output, key)
    if as_json:
        print_json({"table": str(output), "key": str(key), "sites": len(frame)})
    else:
        say(f"Wrote {output} ({len(frame)} sites, arms coded) and {key}. Whoever has both is no longer blind.")


@app.command("release")
def release(
    allocation: Path = _CERTIFICATE,
    site: str = typer.Argument(..., help="The site whose arm is asked for."),
    to: str = typer.Option(..., help="Who asks; written in the log before the arm is told."),
    log: Path = _LOG,
    as_json: bool = _JSON,
) -> None:
    """Tell one person one site's arm."""
    from trialkit.allocation import release as tell

    arm = tell(allocation, site, to=to, log=log)
    if as_json:
        print_json({"site": site, "arm": arm, **_head(log)})
    else:
        typer.echo(arm)


@app.command("amend")
def amend(
    allocation: Path = _CERTIFICATE,
    site: str = typer.Argument(..., help="The site that was withdrawn or replaced."),
    kind: str = typer.Option(..., help="withdrawn or replaced."),
    reason: str = typer.Option(..., help="Why."),
    by: str = typer.Option(..., help="Who decided."),
    log: Path = _LOG,
    replacement: str | None = typer.Option(None, help="The site that takes the place of a replaced one."),
    as_json: bool = _JSON,
) -> None:
    """Write down what became of a site after the draw: a new entry in the log's chain, never an edit."""
    from trialkit.allocation import amend as write

    line = write(allocation, site, kind=kind, reason=reason, by=by, log=log, replacement=replacement)
    if as_json:
        print_json({"entry": line, **_head(log)})
    else:
        typer.echo(f"entry {line['n']}, log head {line['sha256']}")


@app.command("status")
def status(allocation: Path = _CERTIFICATE, log: Path = _LOG, as_json: bool = _JSON) -> None:
    """The allocation as it stands after its amendments."""
    from trialkit.allocation import amended
    from trialkit.results import Table

    frame: pd.DataFrame = amended(allocation, log)
    if as_json:
        print_json({"sites": rows(frame), **_head(log)})
        return
    counts = frame["status"].str.split(" ").str[0].value_counts()
    typer.echo(Table(frame, f"{len(frame)} sites: " + ", ".join(f"{n} {what}" for what, n in counts.items())).to_text())


def _head(log: Path) -> dict[str, Any]:
    from trialkit.allocation import Log

    return {"log_head": Log(log).head}


def _sites(path: Path, id_column: str) -> pd.DataFrame:
    from trialkit.door import read_table

    return read_table(path, text=[id_column])
