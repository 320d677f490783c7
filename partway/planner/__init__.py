"""Where to cut one network.

`answer` is the first answer of `partway cut`, for one task: `network` and `statement` say of what, `one_task` computes
it, `one_task_report` prints it. `context`, `plan`, `break_even` and `evaluation` compute the second, under load;
`under_load_report` has `CutResult` and prints it.
"""
