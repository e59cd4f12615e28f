"""Find missing packages, and explain why an installation failed. Nothing is installed here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

__all__ = ["TORCH_ENGINE", "TORCH_REQUIREMENT", "explain_failure", "unmet"]

TORCH_REQUIREMENT = "torch>=2.4"
# Packages of the engine torch; monai 1.5.0 caps torch below 2.7, 1.4 caps numpy below 2.
TORCH_ENGINE = (TORCH_REQUIREMENT, "monai>=1.5.1")

# Pattern of pip's output -> the cause, and what to do. The first match counts.
FAILURES = (
    (r"No space left|Errno 28|WinError 112", "the disk is full; free some space and try again"),
    (
        r"ProxyError|Tunnel connection failed|407 Proxy",
        "the proxy {proxy} refused the connection; ask for its settings and set HTTPS_PROXY before Slicer starts",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "a certificate could not be verified, as behind some company networks; install from a folder of wheels instead",
    ),
    (
        r"NewConnectionError|NameResolutionError|getaddrinfo|Network is unreachable|ConnectTimeout|Max retries exceeded"
        r"|Failed to establish a new connection|Temporary failure in name resolution",
        "the package index cannot be reached; connect to the internet, or install from a folder of wheels",
    ),
    (
        r"No matching distribution|Could not find a version|ResolutionImpossible",
        "no version fits this Python and the installed packages; the log names the package",
    ),
    (
        r"Permission denied|Access is denied|Errno 13|WinError 5",
        "Slicer's own folder cannot be written to; install Slicer where you may write, or ask its administrator",
    ),
)


def unmet(requirements: Iterable[str]) -> list[str]:
    """The requirements, written as in a requirements file, that the installed packages do not meet."""
    from packaging.requirements import Requirement

    missing = []
    for text in requirements:
        requirement = Requirement(text)
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            missing.append(text)
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            missing.append(text)
    return missing


def explain_failure(output: str, proxies: Mapping[str, str] | None = None) -> str:
    """Explain pip's output in one clause: the cause, and what to do.

    Args:
        proxies: as `urllib.request.getproxies()` gives them.
    """
    proxy = (proxies or {}).get("https") or (proxies or {}).get("http") or "of this network"
    for pattern, meaning in FAILURES:
        if re.search(pattern, output, re.IGNORECASE):
            return meaning.format(proxy=proxy)
    if proxies and not output.strip():
        return f"pip gave no reason; is the proxy {proxy} correct?"
    return "the log in the Python console says why; offline, install from a folder of wheels"
