"""What a source has already taught the model, and taking it back."""

from monitor.runtime.blast.desk import BlastRadius
from monitor.runtime.blast.follower import AcceptedFollower

__all__ = ["AcceptedFollower", "BlastRadius"]
