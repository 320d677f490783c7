"""Scenarios: `loading` exports `load` and `presets`, `schema` has the fields and ranges, `messages` explains errors."""
