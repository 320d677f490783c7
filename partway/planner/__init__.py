"""Where to cut one network: `context`, `plan`, `break_even` and `evaluation` compute it, `report` has `CutResult`."""
