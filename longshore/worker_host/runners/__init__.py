"""One process per model version (DESIGN §5 Runner): `runner` is that process, `supervisor` its parent on the host.

`runner` is one file, standard library only: it runs on the model's interpreter, in the model's environment.
"""
