"""A trained head on new sound, without a cache.

- ``predictor``, ``opening``: a saved head with its encoder: waveforms in, logits out
- ``waveforms``: the same for sound in memory
- ``recordings``: which audio, and its windows, decoded and scored in order
- ``decide``: from logits to detections: thresholds, chosen on the validation split, or the best few
- ``tables``: detections as CSV, JSON lines, parquet, Audacity labels and Raven selections
"""

from featcache.heads.predicting.decide import Detection
from featcache.heads.predicting.opening import open_predictor
from featcache.heads.predicting.predictor import Predictor
from featcache.heads.predicting.recordings import Scored

__all__ = ["Detection", "Predictor", "Scored", "open_predictor"]
