"""What a model is made of, by content: code by commit, environments by lock, artifacts by digest (DESIGN §5 Caches).

Everything lies on `shelves`: built aside, renamed when complete, removed by `caches` when nobody names it any more.
"""
