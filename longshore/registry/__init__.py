"""Git in, git out: reads any path at any ref, validates a commit (PRD §5.1), writes state and errors back.

Fetching is the only part with I/O; the validation steps are functions over bytes.
Doors, each above the next: `validation`, `records`, `documents`, `repositories`.
May import: `schemas`.
"""
