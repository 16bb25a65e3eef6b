"""Tables of card payments, as two well-known fraud data sets are published, turned into numbers alike at each site.

No site sees the others' columns, so nothing is learnt from the data: no mean, no list of categories. Numbers are
brought into a common range by ``sign(x) * log(1 + |x|)``, and categories are hashed into a fixed number of columns.

Sources: "Credit Card Fraud Detection" (creditcard.csv: Time, V1..V28, Amount, Class), and IEEE-CIS "Fraud Detection"
(train_transaction.csv with isFraud, and train_identity.csv, joined by TransactionID).
"""

from __future__ import annotations

import csv
import io
import zlib
from typing import TYPE_CHECKING

import numpy as np

from collective_learner.data.places import DataRefusedError, Place, first_of, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Table = tuple[NDArray[np.float32], NDArray[np.uint8]]

FILES = ("creditcard.csv", "train_transaction.csv")
EXPECTED = "creditcard.csv or train_transaction.csv, with or without train_identity.csv (or .gz)"
_IDENTITIES = ("train_identity.csv",)
_LABELS = ("isFraud", "Class")
_KEY = "TransactionID"
_BUCKETS = 256
# The columns of IEEE-CIS that hold categories, as its publishers list them; all others hold numbers.
_CATEGORIES = frozenset(
    {
        "ProductCD",
        *(f"card{number}" for number in range(1, 7)),
        "addr1",
        "addr2",
        "P_emaildomain",
        "R_emaildomain",
        *(f"M{number}" for number in range(1, 10)),
        "DeviceType",
        "DeviceInfo",
        *(f"id_{number}" for number in range(12, 39)),
    }
)


def read_payments(place: Place) -> Table | None:
    """Read a table of payments: features of shape (n, columns), and 1 for fraud; None when there is no such file.

    Raises
    ------
    DataRefusedError
        A file has no label, or a cell is neither a number nor empty where one is needed.
    """
    if place.is_file():
        return _features(_rows(read(place), place.shown), {}, place.shown)
    name = first_of(place, FILES)
    if name is None:
        return None
    identities: dict[str, dict[str, str]] = {}
    extra = first_of(place, _IDENTITIES)
    if extra is not None:
        identities = {row[_KEY]: row for row in _rows(read(place, extra), f"{place.shown}/{extra}")}
    return _features(_rows(read(place, name), f"{place.shown}/{name}"), identities, f"{place.shown}/{name}")


def _rows(data: bytes, name: str) -> Iterator[dict[str, str]]:
    rows = csv.DictReader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=""), restval="")
    for row in rows:
        if None in row:
            raise DataRefusedError(f"{name}: line {rows.line_num} has more cells than the header")
        yield {key.replace("-", "_") if key.startswith("id-") else key: value for key, value in row.items()}


def _features(rows: Iterator[dict[str, str]], identities: dict[str, dict[str, str]], name: str) -> Table:
    x, y = [], []
    columns = sorted({column for row in identities.values() for column in row} - {_KEY})
    for number, row in enumerate(rows, 2):
        label = next((each for each in _LABELS if each in row), None)
        if label is None:
            raise DataRefusedError(f"{name}: no column {' or '.join(_LABELS)}")
        if row[label].strip('"') not in ("0", "1"):
            raise DataRefusedError(f"{name}: line {number}, {label}: {row[label]!r}, 0 or 1 is needed")
        known = identities.get(row.get(_KEY, ""), {})
        cells = {**{column: known.get(column, "") for column in columns}, **row}
        y.append(int(row[label].strip('"')))
        x.append(_numbers({key: value for key, value in cells.items() if key not in (label, _KEY)}, name, number))
    if not x:
        raise DataRefusedError(f"{name}: no lines of data")
    values = np.stack(x)
    return (np.sign(values) * np.log1p(np.abs(values))).astype(np.float32), np.array(y, dtype=np.uint8)


def _numbers(cells: dict[str, str], name: str, line: int) -> NDArray[np.float64]:
    plain = [key for key in cells if key not in _CATEGORIES]
    found = np.zeros(len(plain) + (_BUCKETS if len(plain) < len(cells) else 0))
    for place, key in enumerate(plain):
        try:
            found[place] = float(cells[key] or 0)
        except ValueError as error:
            raise DataRefusedError(f"{name}: line {line}, {key}: {cells[key]!r}, a number is needed") from error
    for key in cells.keys() & _CATEGORIES:
        if cells[key]:
            found[len(plain) + zlib.crc32(f"{key}={cells[key]}".encode()) % _BUCKETS] = 1
    if not np.isfinite(found).all():
        raise DataRefusedError(f"{name}: line {line} holds a number that is not finite")
    return found
