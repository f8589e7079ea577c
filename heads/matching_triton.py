"""The prototype match on CUDA."""


def available() -> bool:
    """Whether it can run here."""
    return False
