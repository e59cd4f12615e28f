"""The errors that LiverUNet raises. A message states the fault, the value, and the remedy."""

__all__ = ["DeviceError", "LiverUNetError", "ModelError", "OutputError", "ScanError", "TrainingError"]


class LiverUNetError(Exception):
    """A fault that the user can fix; the message is shown unchanged."""


class ScanError(LiverUNetError):
    """A scan or a mask that cannot be used."""


class ModelError(LiverUNetError):
    """A model that is missing, damaged or not of LiverUNet."""


class DeviceError(LiverUNetError):
    """A device that is missing or fails a test convolution."""


class OutputError(LiverUNetError):
    """An output that cannot be written."""


class TrainingError(LiverUNetError):
    """A training or evaluation that cannot continue."""
