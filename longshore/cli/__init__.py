"""The `longshore` command: one file per verb. Heavy imports stay inside the verbs, so that `--help` is instant.

May import: every room.
"""
