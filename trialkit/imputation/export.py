"""Completed sets for Stata: the flong style of its `mi`, with value labels, in a .dta file.

For R the Parquet file of `Imputations.save` is enough: its rows are what ``mice::as.mids`` reads.
"""

from __future__ import annotations

import io
import os
import re

import numpy as np
import pandas as pd

from trialkit.door import InputError, few, write_whole
from trialkit.imputation.imputations import Imputations

_LONGEST_NAME = 32
_TEXT_MOST = 2045


def write_stata(imputations: Imputations, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write the sets to a Stata file: ``_mi_m`` (0 as observed, then 1..m), ``_mi_id`` (1..n), ``_mi_miss``, then the columns.

    Parameters
    ----------
    imputations : Imputations
    path : path
        Ends in ``.dta``.
    force : bool, default False
        Overwrite.

    Raises
    ------
    InputError
        The path does not end in .dta; two columns would have one name in Stata (letters, digits and underscores, 32 of them).
    Refused
        The file exists and `force` is False.

    Notes
    -----
    Stata imputes numbers only, so categories are written as numbers with value labels. ``_mi_miss`` is 1 in set 0 where any imputed
    column is missing, 0 where none is, and missing in the other sets, as Stata has it. In Stata::

        use sets.dta, clear
        rename (_mi_m _mi_id _mi_miss) (m id incomplete)
        mi import flong, m(m) id(id) imputed(climate climate_0) clear
        mi estimate: mixed climate i.arm climate_0 || site:, reml

    Examples
    --------
    ``write_stata(sets, "sets.dta")``
    """
    if not str(path).lower().endswith(".dta"):
        raise InputError(f"{path}: a Stata file ends in .dta. Change the ending.")
    long = imputations.long()
    n, m = len(imputations.base), imputations.m
    incomplete = imputations.base[list(imputations.cells)].isna().any(axis=1).to_numpy() if imputations.cells else np.zeros(n, bool)
    out = pd.DataFrame(
        {
            "_mi_m": long["imputation"].astype("int32"),
            "_mi_id": (long["row"] + 1).astype("int32"),
            "_mi_miss": np.concatenate([incomplete.astype(float), np.full(n * m, np.nan)]),
        }
    )
    names = {str(c): _name(str(c)) for c in imputations.base.columns}
    taken = [*out.columns, *names.values()]
    twice = sorted({name for name in taken if taken.count(name) > 1})
    if twice:
        both = [old for old, new in names.items() if new == twice[0]]
        raise InputError(f"the columns {few(both)} would both be called {twice[0]!r} in Stata. Rename one before imputing.")
    for column in imputations.base.columns:
        cells = imputations.cells.get(str(column))
        out[names[str(column)]] = _column(long[column], cells.labels if cells is not None else ())
    sink = io.BytesIO()
    labels = {new: old[:80] for old, new in names.items() if old != new}
    out.to_stata(sink, write_index=False, version=118, variable_labels=labels or None, data_label="trialkit: multiple imputation, flong")
    write_whole(path, sink.getvalue(), force=force)


def _name(name: str) -> str:
    """A name as Stata takes it."""
    clean = re.sub(r"[^0-9A-Za-z_]", "_", name)
    if not clean or clean[0].isdigit():
        clean = f"_{clean}"
    return clean[:_LONGEST_NAME]


def _column(values: pd.Series, labels: tuple[object, ...]) -> pd.Series:
    """Numbers as doubles, categories with value labels, everything else as text."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.rename_categories([str(c) for c in values.dtype.categories])
    if pd.api.types.is_bool_dtype(values.dtype) or pd.api.types.is_numeric_dtype(values.dtype):
        return pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan), index=values.index)
    cells = values.tolist()
    if labels:
        order = [str(v) for v in labels]
        texts = [None if pd.isna(v) else str(v) for v in cells]
        # a cell outside the labels belongs to a kind of person that was not imputed
        order += sorted({t for t in texts if t is not None} - set(order))
        return pd.Series(pd.Categorical(texts, categories=order), index=values.index)
    # an object column of numbers is a number
    if all(pd.isna(v) or (isinstance(v, int | float | np.number) and not isinstance(v, bool)) for v in cells):
        return pd.Series([np.nan if pd.isna(v) else float(v) for v in cells], index=values.index, dtype=np.float64)
    return pd.Series(["" if pd.isna(v) else str(v)[:_TEXT_MOST] for v in cells], index=values.index, dtype=object)
