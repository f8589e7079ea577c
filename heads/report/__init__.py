"""Results, compared.

- ``results``, ``schema``: one JSON line a trained head, and what it must hold
- ``metrics``: scores of logits
- ``settings``, ``naming``: what a run is of but for its seed; names that tell apart what differs
- ``summary``: mean and spread over seeds and folds
- ``ranking``: ranks of encoders, wins of heads
- ``bootstrap``, ``significance``: the paired bootstrap over test clips
- ``shortfall``: whether a trained linear head stays below what can be solved on its features
- ``marks``: what a reader should doubt
- ``tables``, ``formats``: grids, Markdown, LaTeX, CSV
- ``plots``, ``curves``: pictures of who beats whom, and of scores over shots, layers and classes
- ``published``: numbers of papers, to stand beside ours
- ``compare``: all of it from result files
- ``explorer``: the same on one HTML page, to sort and filter
"""
