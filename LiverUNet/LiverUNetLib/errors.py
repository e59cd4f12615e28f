"""The errors LiverUNet raises. A message says what, which value, and what to do."""

__all__ = ["DeviceError", "LiverUNetError", "ModelError", "OutputError", "ScanError", "TrainingError"]


class LiverUNetError(Exception):
    """Something the user can fix; the message is shown to them unchanged."""


class ScanError(LiverUNetError):
    """A scan or a mask that cannot be used."""


class ModelError(LiverUNetError):
    """A model that is missing, damaged or not ours."""


class DeviceError(LiverUNetError):
    """A processor that is absent or does not compute."""


class OutputError(LiverUNetError):
    """A result that cannot be written where it was asked for."""


class TrainingError(LiverUNetError):
    """A training or evaluation that cannot continue."""
