"""The table of encoders: one line each."""

from featcache.encoders.asit import ASIT
from featcache.encoders.ast import AST
from featcache.encoders.atst_frame import ATST_FRAME
from featcache.encoders.audiomae import AUDIOMAE
from featcache.encoders.base import EncoderSpec
from featcache.encoders.beats_encoder import BEATS, OPENBEATS
from featcache.encoders.birdmae import BIRDMAE_BASE, BIRDMAE_HUGE, BIRDMAE_LARGE
from featcache.encoders.dasheng import DASHENG_06B, DASHENG_12B, DASHENG_BASE
from featcache.encoders.eat import EAT_BASE, EAT_LARGE, SSLAM
from featcache.encoders.logmel import LOGMEL
from featcache.encoders.m2d import M2D_BASE
from featcache.encoders.passt import PASST

_SPECS = (
    AUDIOMAE,
    BEATS,
    OPENBEATS,
    ASIT,
    EAT_BASE,
    EAT_LARGE,
    SSLAM,
    DASHENG_BASE,
    DASHENG_06B,
    DASHENG_12B,
    BIRDMAE_BASE,
    BIRDMAE_LARGE,
    BIRDMAE_HUGE,
    AST,
    M2D_BASE,
    ATST_FRAME,
    PASST,
    LOGMEL,
)

ENCODERS: dict[str, EncoderSpec] = {spec.name: spec for spec in _SPECS}
