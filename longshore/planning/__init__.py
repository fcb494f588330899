"""The decisions: desired state against observed state → changes → plan, with a reason for each.

`plan` makes the plan of all deployments, `deployment` that of one; `check` reckons it again, `guard` holds it back, and
`render` and `explain` say what it means.

Pure: no I/O, no clock, no randomness, no temporalio; the same inputs always give the same plan.
May import: `schemas`.
"""
