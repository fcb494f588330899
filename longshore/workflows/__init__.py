"""The durable order of things; decides nothing that a plan has not decided.

`conventions` holds every queue name, workflow id, search attribute, timeout, retry policy and patch id.
May import: `schemas`, and `activities` for their signatures.
"""
