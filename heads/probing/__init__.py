"""Stage two: which heads read an encoder best, on which questions.

- ``probe``: the entry: train, test and record
- ``arguments``: what it may be given; ``trials``: what it then trains; ``rounds``: the search and the runs
- ``presets``: published protocols in numbers
- ``experiment``: a cache joined with manifests
- ``search``, ``study``: learning rate and weight decay, by Sobol, TPE and successive halving
- ``evaluate``, ``predictions``: trained heads meet the test split, once, and are written down
- ``record``: what every result line says
- ``tracking``, ``trackers``: TensorBoard, Weights & Biases or MLflow hear of each run
- ``cost``, ``rehearsal``: what a probe will cost, and how long it will take here
- ``audit``: what a storage dtype costs a probe
"""
