"""Read models: what a person or a client sees of the facts. `panel` serves the panel, `emails` the API.

Nothing here writes. Every query is bounded: by a page, by a LIMIT, or by the index that it names.
"""
