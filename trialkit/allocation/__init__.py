"""Allocation: rank-ordered optimal pairs, plans of every kind, a draw nobody can steer, a certificate anybody can check."""

from __future__ import annotations

from trialkit.allocation.allocated import Allocation
from trialkit.allocation.amendments import amend, amended
from trialkit.allocation.balance import Balance, Omnibus
from trialkit.allocation.blinding import blind, release, save_blinded, unblind
from trialkit.allocation.certificate import Certificate
from trialkit.allocation.constrained import Constrained, Validity, constrained
from trialkit.allocation.criteria import exact, exact_if_possible, mahalanobis, nearest
from trialkit.allocation.diagnostics import Comparison, PairingCost, compare_pairings, pairing_cost
from trialkit.allocation.from_design import match_from_design
from trialkit.allocation.log import Log, draw_once, log_path
from trialkit.allocation.matching import match_pairs
from trialkit.allocation.minimisation import Minimisation
from trialkit.allocation.pairing import Pairing
from trialkit.allocation.plans import Plan, WithinPairs, within_pairs
from trialkit.allocation.seeds import Seed, ShortSeedWarning, beacon, commit, drand_rule, nist_rule, reveal, reveal_rule
from trialkit.allocation.stratified import Simple, Stratified, simple, stratified
from trialkit.allocation.verification import Verification, verify

__all__ = [
    "Allocation",
    "Balance",
    "Certificate",
    "Comparison",
    "Constrained",
    "Log",
    "Minimisation",
    "Omnibus",
    "Pairing",
    "PairingCost",
    "Plan",
    "Seed",
    "ShortSeedWarning",
    "Simple",
    "Stratified",
    "Validity",
    "Verification",
    "WithinPairs",
    "amend",
    "amended",
    "beacon",
    "blind",
    "commit",
    "compare_pairings",
    "constrained",
    "drand_rule",
    "draw_once",
    "exact",
    "exact_if_possible",
    "log_path",
    "mahalanobis",
    "match_from_design",
    "match_pairs",
    "nearest",
    "nist_rule",
    "pairing_cost",
    "release",
    "reveal",
    "reveal_rule",
    "save_blinded",
    "simple",
    "stratified",
    "unblind",
    "verify",
    "within_pairs",
]
