"""Results, compared.

- ``results``: one JSON line a trained head
- ``metrics``: scores of logits
- ``summary``: mean and spread over seeds and folds
- ``ranking``: ranks of encoders, wins of heads
- ``significance``: the paired bootstrap over test clips
- ``tables``, ``plots``: Markdown, LaTeX, CSV and pictures
- ``published``: numbers of papers, to stand beside ours
- ``compare``: all of it from result files
"""
