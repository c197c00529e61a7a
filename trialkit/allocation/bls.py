"""BLS signatures on the curve BLS12-381, checked: the pairing e(signature, generator) = e(hash of the message, public key).

The curve, its pairing and the hashing to it (RFC 9380) are `py_ecc`'s. Where that library is missing the check
says so (`Unavailable`) and passes nothing.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

G1_BYTES, G2_BYTES = 48, 96


class Unavailable(RuntimeError):
    """A library that a check needs is not installed; the message names it."""


@lru_cache(maxsize=64)
def verified(*, public_key: bytes, signature: bytes, message: bytes, tag: bytes) -> bool:
    """Whether `signature` is that of `message` under `public_key`.

    Parameters
    ----------
    public_key, signature : bytes
        Compressed points, one of G1 (48 bytes), the other of G2 (96 bytes).
    message : bytes
        What was signed; hashed to the signature's group.
    tag : bytes
        The scheme's domain separation tag.

    Returns
    -------
    bool
        False as well for bytes that are no point, or a point outside the subgroup of prime order.

    Raises
    ------
    Unavailable
        `py_ecc` is not installed.

    Notes
    -----
    Boneh, Lynn and Shacham (2004); draft-irtf-cfrg-bls-signature, section 2.7. One final exponentiation for both pairings.
    """
    try:
        from py_ecc.bls.hash_to_curve import hash_to_G1, hash_to_G2
        from py_ecc.optimized_bls12_381 import FQ12, G1, G2, final_exponentiate, neg, pairing
    except ImportError as error:
        raise Unavailable(f"the library py_ecc cannot be loaded ({error})") from None
    try:
        key, signed = _point(public_key), _point(signature)
    except ValueError:
        return False
    if key is None or signed is None or len(public_key) + len(signature) != G1_BYTES + G2_BYTES:
        return False
    if len(signature) == G1_BYTES:
        left = pairing(G2, neg(signed), final_exponentiate=False)
        right = pairing(key, hash_to_G1(message, tag, hashlib.sha256), final_exponentiate=False)
    else:
        left = pairing(signed, neg(G1), final_exponentiate=False)
        right = pairing(hash_to_G2(message, tag, hashlib.sha256), key, final_exponentiate=False)
    return bool(final_exponentiate(left * right) == FQ12.one())


def _point(data: bytes) -> Any:
    """A compressed point of the subgroup; None for the point at infinity or one outside it."""
    from py_ecc.bls.point_compression import decompress_G1, decompress_G2
    from py_ecc.bls.typing import G1Compressed, G2Compressed
    from py_ecc.optimized_bls12_381 import curve_order, is_inf, multiply

    if len(data) == G1_BYTES:
        point: Any = decompress_G1(G1Compressed(int.from_bytes(data, "big")))
    elif len(data) == G2_BYTES:
        halves = int.from_bytes(data[:G1_BYTES], "big"), int.from_bytes(data[G1_BYTES:], "big")
        point = decompress_G2(G2Compressed(halves))
    else:
        raise ValueError(f"{len(data)} bytes are no point of BLS12-381")
    return point if not is_inf(point) and is_inf(multiply(point, curve_order)) else None
