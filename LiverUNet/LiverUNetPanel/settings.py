"""Choices that belong to this computer, not to a scene; they are kept in the settings of the application."""

from __future__ import annotations

import slicer

__all__ = ["DEVICES", "Settings"]

# The devices that a user can choose, with their titles.
DEVICES = {"auto": "Auto", "cpu": "CPU", "cuda": "NVIDIA GPU (PyTorch)", "mps": "Apple GPU (PyTorch)"}


class Settings:
    """Device, folders, and the licenses that the user has agreed to."""

    @property
    def device(self) -> str:
        """The device for `choose_device`; "auto" unless the user chose another."""
        return self._value("Device") or "auto"

    @device.setter
    def device(self, name: str) -> None:
        self._set("Device", name)
        self._set("UsesGpu", "")

    @property
    def usesGpu(self) -> bool | None:
        """Whether the user wants PyTorch for the GPU that "auto" found; None if not asked yet."""
        return {"yes": True, "no": False}.get(self._value("UsesGpu"))

    @usesGpu.setter
    def usesGpu(self, answer: bool) -> None:
        self._set("UsesGpu", "yes" if answer else "no")

    @property
    def wheelFolder(self) -> str:
        """A folder of wheels to install from instead of the internet; empty for none."""
        return self._value("WheelFolder")

    @wheelFolder.setter
    def wheelFolder(self, folder: str) -> None:
        self._set("WheelFolder", folder)

    def folder(self, name: str) -> str:
        """A folder that the user has chosen for this purpose; empty if not chosen."""
        return self._value(f"Folders/{name}")

    def setFolder(self, name: str, folder: str) -> None:
        """Remember a folder."""
        self._set(f"Folders/{name}", folder)

    def hasConsent(self, license: str) -> bool:  # noqa: A002 - hides a builtin of no use here
        """Whether the user has agreed to this license; if its text changes, the user is asked again."""
        return _line(license) in self._consents()

    def addConsent(self, license: str) -> None:  # noqa: A002 - likewise
        """Remember that the user has agreed."""
        self._set("Consents", "\n".join([*self._consents(), _line(license)]))

    def withdrawConsents(self) -> None:
        """Forget every agreement; the next run asks again."""
        self._set("Consents", "")

    def hasConsents(self) -> bool:
        """Whether there is anything to withdraw."""
        return bool(self._consents())

    def _consents(self) -> list[str]:
        return [line for line in self._value("Consents").split("\n") if line]

    @staticmethod
    def _value(name: str) -> str:
        return str(slicer.app.userSettings().value(f"LiverUNet/{name}") or "")

    @staticmethod
    def _set(name: str, value: str) -> None:
        slicer.app.userSettings().setValue(f"LiverUNet/{name}", value)


def _line(text: str) -> str:
    return " ".join(text.split())
