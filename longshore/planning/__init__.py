"""The decisions: desired state against observed state → changes → plan, with a reason for each.

Pure: no I/O, no clock, no randomness, no temporalio; the same inputs always give the same plan.
May import: `schemas`.
"""
