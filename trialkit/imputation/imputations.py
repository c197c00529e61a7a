"""The completed data sets: an iterable of frames that knows how it was made."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trialkit.door import InputError, frame_digest, write_whole
from trialkit.results import Provenance, Result

Array = NDArray[np.float64]
_FORMAT = 1
_EVENTS_SHOWN = 12

# columns of the table of diagnostics
DIAGNOSTICS = [
    "group", "variable", "method", "missing", "observed", "share", "predictors", "r_hat_mean", "r_hat_sd", "r_hat_icc",
    "ess_mean", "ess_sd", "ess_icc", "icc", "observed_mean", "imputed_mean",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cells:
    """The imputed cells of one column.

    Attributes
    ----------
    rows : int array (q,)
        Row positions in the analysed frame, ascending.
    values : array (m, q)
        Numbers, or codes into `labels`.
    labels : tuple
        What a code is written as; empty for numbers.
    passing : array (m, q, K - 1) or None
        Of binary and ordinal columns drawn by a probit: the change of the log odds of a higher category at which each cell would pass into
        category 1, 2, ..., K - 1. A cell's code is how many of them are negative.
    """

    rows: NDArray[np.intp]
    values: Array
    labels: tuple[Any, ...] = ()
    passing: Array | None = None

    def of(self, k: int) -> list[Any] | Array:
        """The cells of completed set `k`, as the column writes them."""
        if not self.labels:
            return np.asarray(self.values[k])
        return [self.labels[code] for code in self.values[k].astype(np.intp)]


@dataclass(frozen=True, slots=True, eq=False)
class Imputations(Result):
    """m completed data sets.

    Iterating yields m DataFrames with the analysed rows of the input, its columns and their order; observed values are the
    input's own, bit for bit; a completed column of a nullable or Arrow kind comes as the plain NumPy kind that holds it.
    ``imputations[k]`` is one of them, ``len(imputations)`` is m.

    Attributes
    ----------
    m : int
    frame : DataFrame
        One row an incomplete variable: method, missing cells, R-hat and effective sample size of the imputed values' mean, SD and of the
        ICC, observed and imputed means.
    events : DataFrame
        What the imputation decided by itself: kind, group, variable, detail.
    traces : mapping
        (group, variable) -> array (3, iterations, m): mean and SD of the imputed values, ICC.
    provenance : Provenance
    population_note : str
        Whom the sets hold.
    base : DataFrame
        The analysed rows before imputation.
    cells : mapping of column to `Cells`
    """

    m: int
    base: pd.DataFrame
    cells: Mapping[str, Cells]
    frame: pd.DataFrame
    events: pd.DataFrame
    traces: Mapping[tuple[str, str], Array]
    provenance: Provenance
    population_note: str
    m_recommended: int

    def __len__(self) -> int:
        return self.m

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return (self[k] for k in range(self.m))

    def __getitem__(self, k: int) -> pd.DataFrame:
        """Completed set `k` (0-based); a frame of its own, to do with as you like."""
        if not -self.m <= k < self.m:
            raise IndexError(f"completed set {k} of {self.m}")
        k %= self.m
        out = self.base.copy()
        for name, cells in self.cells.items():
            out[name] = _fill(out[name], cells, k)
        return out

    @property
    def title(self) -> str:
        """Heading of the printed table."""
        return f"{self.m} imputations of {len(self.base)} people"

    @property
    def notes(self) -> tuple[str, ...]:
        """Population, recommended m, convergence, and how many events there are."""
        out = [self.population_note]
        worst = self.frame[["r_hat_mean", "r_hat_sd"]].max().max() if len(self.frame) else np.nan
        if np.isfinite(worst):
            out.append(f"Largest R-hat {worst:.3f} over {self.m} chains of {self.provenance.settings['iterations']} iterations.")
        if self.m_recommended:
            enough = "enough" if self.m_recommended <= self.m else "more than were made"
            out.append(f"Imputations for standard errors of outcome means by arm that repeat within 5%: {self.m_recommended} ({enough}).")
        many = len(self.events)
        if many:
            kinds = "; ".join(f"{n} {kind}" for kind, n in self.events["kind"].value_counts().items())
            out.append(f"{many} event{'s' if many > 1 else ''}: {kinds}.")
        for kind, group, variable, detail in self.events.head(_EVENTS_SHOWN).astype(str).to_numpy().tolist():
            out.append(f"  {kind}: {variable}{f' ({group})' if group else ''}: {detail}")
        if many > _EVENTS_SHOWN:
            out.append(f"  and {many - _EVENTS_SHOWN} more: see .events")
        return tuple(out)

    @property
    def formats(self) -> dict[str, str]:
        """Number formats of the printed table."""
        return {
            **dict.fromkeys(("missing", "observed", "predictors"), "d"),
            **dict.fromkeys(("r_hat_mean", "r_hat_sd", "r_hat_icc"), ".3f"),
            **dict.fromkeys(("ess_mean", "ess_sd", "ess_icc"), ".0f"),
            **dict.fromkeys(("share", "icc", "observed_mean", "imputed_mean"), ".3f"),
        }

    def long(self) -> pd.DataFrame:
        """All sets under one another: `imputation` 0 (as observed), 1..m, `row` (position), then the columns.

        The layout R's mice reads with ``as.mids(x, .imp = "imputation", .id = "row")`` and Stata with ``mi import flong``.
        """
        parts = [self.base, *self]
        frame = pd.concat(parts, ignore_index=True)
        frame.insert(0, "imputation", np.repeat(np.arange(self.m + 1), len(self.base)))
        frame.insert(1, "row", np.tile(np.arange(len(self.base)), self.m + 1))
        return pd.DataFrame(frame)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the sets, diagnostics, events and provenance to one Parquet file that reloads exactly.

        The rows are those of `long`, so that any Parquet reader sees the data.

        Raises
        ------
        Refused
            The file exists and `force` is False.
        WriteError
            It could not be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        traces = io.BytesIO()
        _write_arrays(traces, {f"{k}": v for k, v in enumerate(self.traces.values())})
        cells = io.BytesIO()
        arrays: dict[str, NDArray[Any]] = {}
        for k, c in enumerate(self.cells.values()):
            arrays |= {f"r{k}": c.rows, f"v{k}": c.values, **({} if c.passing is None else {f"p{k}": c.passing})}
        _write_arrays(cells, arrays)
        kept = {
            "format": _FORMAT,
            "m": self.m,
            "frame": self.frame.to_dict(orient="tight"),
            "events": self.events.to_dict(orient="tight"),
            "traces": [list(key) for key in self.traces],
            "traces_npz": base64.b64encode(traces.getvalue()).decode(),
            "cells": [[name, list(c.labels)] for name, c in self.cells.items()],
            "cells_npz": base64.b64encode(cells.getvalue()).decode(),
            "provenance": self.provenance.to_dict(),
            "population_note": self.population_note,
            "m_recommended": self.m_recommended,
            "base": frame_digest(self.base),
            "objects": [str(c) for c in self.base.columns if self.base[c].dtype == object],
            "frame_types": {str(c): str(t) for c, t in self.frame.dtypes.items()},
        }
        long = self.long()
        table = pa.Table.from_pandas(long, preserve_index=False)
        index = pa.Table.from_pandas(self.base.index.to_frame(name="index").reset_index(drop=True), preserve_index=False)
        kept["index_ipc"] = base64.b64encode(_ipc(index)).decode()
        kept["index_name"] = self.base.index.name if isinstance(self.base.index.name, str | None) else str(self.base.index.name)
        meta = {**(table.schema.metadata or {}), b"trialkit.imputations": json.dumps(kept).encode()}
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(meta), sink, compression="zstd")
        write_whole(path, sink.getvalue(), force=force)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Imputations:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            The file is absent, is not one of ours, or its data do not fit its metadata.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
            kept = json.loads((table.schema.metadata or {})[b"trialkit.imputations"])
        except FileNotFoundError:
            raise InputError(f"{path}: no such file. Check the path.") from None
        except (KeyError, ValueError, OSError, pa.ArrowException):
            raise InputError(f"{path} is not a file that Imputations.save wrote. Save the imputations again.") from None
        long = table.to_pandas()
        base = long[long["imputation"] == 0].drop(columns=["imputation", "row"])
        index = pa.ipc.open_stream(base64.b64decode(kept["index_ipc"])).read_all().to_pandas()["index"]
        base.index = pd.RangeIndex(len(base)) if (index == np.arange(len(index))).all() else pd.Index(index)
        base.index.name = kept["index_name"]
        for name in kept.get("objects", []):
            base[name] = base[name].astype(object).where(base[name].notna(), np.nan)
        if frame_digest(base) != kept["base"]:
            raise InputError(f"{path}: the data are not those that were saved. Save the imputations again.")
        with np.load(io.BytesIO(base64.b64decode(kept["cells_npz"]))) as z:
            cells = {name: Cells(z[f"r{k}"], z[f"v{k}"], tuple(labels), z.get(f"p{k}")) for k, (name, labels) in enumerate(kept["cells"])}
        with np.load(io.BytesIO(base64.b64decode(kept["traces_npz"]))) as z:
            traces = {(key[0], key[1]): z[str(k)] for k, key in enumerate(kept["traces"])}
        return cls(
            m=kept["m"],
            base=base,
            cells=cells,
            frame=pd.DataFrame.from_dict(kept["frame"], orient="tight").astype(kept["frame_types"]),
            events=pd.DataFrame.from_dict(kept["events"], orient="tight").astype("str"),
            traces=traces,
            provenance=Provenance(**kept["provenance"]),
            population_note=kept["population_note"],
            m_recommended=kept["m_recommended"],
        )


def _fill(column: pd.Series[Any], cells: Cells, k: int) -> pd.Series[Any]:
    """The column with its missing cells written; observed cells keep their bits."""
    values = cells.of(k)
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = column.cat.codes.to_numpy().copy()
        place = {category: j for j, category in enumerate(column.dtype.categories)}
        codes[cells.rows] = [place[v] for v in values]
        return pd.Series(pd.Categorical.from_codes(codes, dtype=column.dtype), index=column.index, name=column.name)
    if pd.api.types.is_float_dtype(column.dtype) and isinstance(column.dtype, np.dtype):
        numbers = column.to_numpy().astype(np.float64, copy=True) if column.dtype != np.float64 else column.to_numpy().copy()
        numbers[cells.rows] = np.asarray(values, dtype=np.float64)
        return pd.Series(numbers, index=column.index, name=column.name)
    filled = column.tolist()
    for row, value in zip(cells.rows.tolist(), list(values), strict=True):
        filled[row] = value
    if isinstance(column.dtype, pd.StringDtype):
        return pd.Series(filled, index=column.index, name=column.name, dtype=column.dtype)
    return pd.Series(filled, index=column.index, name=column.name)


def _ipc(table: Any) -> bytes:
    import pyarrow as pa

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _write_arrays(sink: io.BytesIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    np.savez_compressed(sink, allow_pickle=False, **arrays)
