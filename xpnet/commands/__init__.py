"""One module a command of `xpnet`: SUMMARY, DESCRIPTION and EXAMPLES for its help, `add_arguments(parser)`,
and `run(args)` -> exit code.  Besides them, what they share: `card` (what a model file says of its data),
`output` (files written whole) and `samples` (reading what to predict).

Nothing heavy is imported at the top of the commands' modules: `xpnet --help` loads them all.
"""
