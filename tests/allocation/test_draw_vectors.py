"""The draw trialkit-draw-1: published vectors, a second implementation, openssl, and the formula itself."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from trialkit._kernels import draws
from trialkit.allocation import WithinPairs
from trialkit.allocation.sites import SiteRecord, by_bytes

HERE = Path(__file__).parent
VECTORS: dict[str, Any] = json.loads((HERE.parent / "reference" / "draw_vectors.json").read_text(encoding="utf-8"))


def plan_of(blocks: list[list[str]]) -> WithinPairs:
    ids = [s for b in blocks for s in b]
    record = SiteRecord(id="site", columns=(), cells=dict.fromkeys(by_bytes(ids), ()))
    ordered = sorted((tuple(by_bytes(b)) for b in blocks), key=lambda b: b[0].encode())
    return WithinPairs(id="site", rows=tuple(ids), record=record, blocks=tuple(ordered), labels=dict.fromkeys(ids))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: v["seed"])
def test_vectors(vector: dict[str, Any]) -> None:
    plan = plan_of([line.split("\t") for line in vector["plan_utf8"].splitlines()[1:]])
    assert plan.text == vector["plan_utf8"]
    assert plan.digest == vector["plan_sha256"]
    allocation = plan.drawn(_seed(vector["seed"]))
    assert [d.hmac for d in allocation.draws] == vector["hmacs"]
    assert {s: "1" if a == "intervention" else "0" for s, a in allocation.arms.items()} == vector["arms"]


@pytest.mark.parametrize("case", VECTORS["integers"], ids=lambda c: c["label"])
def test_integers(case: dict[str, Any]) -> None:
    first = VECTORS["vectors"][0]
    assert draws.draw(first["seed"].encode(), first["plan_sha256"], case["label"], case["m"]).value == case["value"]


def test_an_int_seed_is_its_decimal_digits() -> None:
    plan = plan_of([["a", "b"], ["c", "d"], ["e"]])
    as_text = plan.draw(seed="123456789012345678901234567890", seed_source="x")
    as_int = plan.draw(seed=123456789012345678901234567890, seed_source="x")
    assert as_text.arms == as_int.arms and as_int.seed.text == "123456789012345678901234567890"


def test_rejection_passes_over_a_hash_in_the_uneven_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail is hit once in 2^250 draws, so it is made to happen: counter 0 in the tail, counter 1 below it."""
    m = 3
    tail = (2**256 // m) * m
    answers = iter([tail.to_bytes(32, "big"), (7).to_bytes(32, "big")])

    class Fixed:
        def __init__(self, *_: Any) -> None:
            self._bytes = next(answers)

        def digest(self) -> bytes:
            return self._bytes

        def hexdigest(self) -> str:
            return self._bytes.hex()

    monkeypatch.setattr(draws.hmac, "new", Fixed)
    d = draws.draw(b"k", "p", "x", m)
    assert (d.counter, d.value) == (1, 1)


def test_the_message_is_as_documented() -> None:
    expected = hmac.new(b"seed", b"trialkit-draw-1\nP\nlabel\n0", hashlib.sha256).hexdigest()
    assert draws.draw(b"seed", "P", "label", 2).hmac == expected
    with pytest.raises(ValueError, match="line feed"):
        draws.draw(b"seed", "P", "a\nb", 2)
    with pytest.raises(ValueError, match="at least 1"):
        draws.draw(b"seed", "P", "a", 0)


def test_fairness_over_seeds() -> None:
    """10,000 seeds: the first site, all 32 patterns of five pairs, all six outcomes of a trio; exact limits at 1e-6."""
    plan = plan_of([["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"], ["i", "j"]])
    first = [plan.sites.index(b[0]) for b in plan.blocks]
    codes = np.array([plan.allocate(f"fairness {k}".encode())[0][first] for k in range(10_000)])
    assert 4755 <= codes[:, 0].sum() <= 5245
    patterns = np.bincount(codes @ (2 ** np.arange(5)), minlength=32)
    assert stats.chisquare(patterns).pvalue > 1e-6
    trio = plan_of([["a", "b", "c"]])
    outcomes = np.bincount([int(trio.allocate(f"trio {k}".encode())[0] @ [1, 2, 4]) for k in range(6_000)], minlength=8)
    assert outcomes[0] == outcomes[7] == 0
    assert stats.chisquare(outcomes[1:7]).pvalue > 1e-6


def test_streams_do_not_move() -> None:
    """SHAKE-256 words are the same for ever; a changed value here is a changed randomisation distribution."""
    assert draws.words("key", (2,)).tolist() == [
        int.from_bytes(hashlib.shake_256(b"key").digest(16)[:8], "big"),
        int.from_bytes(hashlib.shake_256(b"key").digest(16)[8:], "big"),
    ]
    permutations = draws.permutations("key", 500, 7)
    assert (np.sort(permutations, axis=1) == np.arange(7)).all()
    assert stats.chisquare(np.bincount(draws.integers("key", 3, (3000,)))).pvalue > 1e-6


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed, so the second implementation in JavaScript was not run")
def test_a_second_implementation_in_javascript_agrees() -> None:
    plan = plan_of([["S01", "S07"], ["S02", "S05"], ["Ä", "z\u00e9"], ["t1", "t2", "t3"], ["u1", "u2", "u3"], ["alone"], ["007", "NA"]])
    for k in range(4):
        seed = hashlib.sha256(str(k).encode()).hexdigest()
        allocation = plan.drawn(_seed(seed))
        question = json.dumps({"plan": plan.text, "seed": seed})
        answer = subprocess.run(
            ["node", str(HERE / "second_implementation.js")], input=question, capture_output=True, text=True, check=True, timeout=60
        )
        got = json.loads(answer.stdout)
        assert got["digest"] == plan.digest
        assert {s: "intervention" if a else "control" for s, a in got["arms"].items()} == allocation.arms


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed, so the line in the docs was not run")
def test_one_pair_by_hand_with_openssl() -> None:
    first = VECTORS["vectors"][0]
    digest = subprocess.run(["openssl", "dgst", "-sha256"], input=first["plan_utf8"].encode(), capture_output=True, check=True).stdout
    assert digest.decode().split("= ")[1].strip() == first["plan_sha256"]
    message = f"trialkit-draw-1\n{first['plan_sha256']}\nS01\n0"
    command = ["openssl", "dgst", "-sha256", "-hmac", first["seed"]]
    answer = subprocess.run(command, input=message.encode(), capture_output=True, check=True).stdout.decode().split("= ")[1].strip()
    assert answer == first["hmacs"][0]
    assert int(answer, 16) % 2 == 0  # even: the pair's first site goes to the intervention


def _seed(text: str) -> Any:
    from trialkit.allocation import Seed

    return Seed(text=text, source="vector")
