"""Scenarios: `schema` holds every field and its range, `loading` exports `load` and `presets`, `presets/` the files."""
