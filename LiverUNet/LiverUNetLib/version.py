"""The version of the package, the extension and the bundled model."""

__all__ = ["__version__"]

__version__ = "0.3.1"
