"""The CSV file of a channel that was measured.

The file has a header and one row for every change, in the order of time:

    time_s        from the start of the trace [s]; a value holds until the next row
    gain_per_w    channel gain over noise [1/W], or instead
    rate_bit_s    data rate of the device at a transmit power that is known [bit/s]
    device        optional, 0, 1, ...: whose trace the row belongs to

Other columns are not read. A file may come from elsewhere, so it is read with suspicion.
"""

import csv
import math

from partway.errors import InputError, shorten, shown
from partway.files import read_limited, why

Rows = list[tuple[float, float]]
"""(time [s], value) of a trace."""
MAX_BYTES = 200_000_000
TIME, GAIN, RATE, DEVICE = "time_s", "gain_per_w", "rate_bit_s", "device"


def read_trace(path: str) -> tuple[str, list[Rows]]:
    """The column, `gain_per_w` or `rate_bit_s`, and the rows of every device in a CSV file.

    Raises InputError for what cannot be read or is not a trace.
    """
    given = f"radio.fading.file {shown(path, 100)}"
    try:
        text = read_limited(path, MAX_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{given} cannot be read: {why(error)}") from None
    try:
        return _parse(text.splitlines())
    except (csv.Error, ValueError) as error:
        raise InputError(f"{given} is not a trace: {error}") from None


def _parse(lines: list[str]) -> tuple[str, list[Rows]]:
    reader = csv.DictReader(lines)
    names = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = names
    columns = [name for name in names if name in (GAIN, RATE)]
    if names.count(TIME) != 1 or len(columns) != 1 or names.count(DEVICE) > 1:
        raise ValueError(f"its header must have {TIME} and either {GAIN} or {RATE}, got {shorten(', '.join(names))}")
    traces = dict[int, Rows]()
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num}: has more cells than the header; decimals need a point")
        time, value = (_number(reader.line_num, name, row[name]) for name in (TIME, columns[0]))
        number = _number(reader.line_num, DEVICE, row[DEVICE]) if DEVICE in names else 0.0
        rows = traces.setdefault(int(number), [])
        if number % 1 or (rows and time <= rows[-1][0]) or (not rows and time != 0):
            raise ValueError(
                f"line {reader.line_num}: a device is a whole number, and its times begin at 0 and increase"
            )
        rows.append((time, value))
    if sorted(traces) != list(range(len(traces))) or not traces or min(map(len, traces.values())) < 2:
        raise ValueError("it must have two rows or more of every device 0, 1, ..., without gaps")
    return columns[0], [traces[number] for number in range(len(traces))]


def _number(line: int, column: str, text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not 0 <= number < 1e30:
        raise ValueError(f"line {line}: {column} must be a number of at least 0, got {shown(text or '')}")
    return number
