"""Which packages are missing, and what a failed installation means. Installs nothing itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

__all__ = ["TORCH_ENGINE", "TORCH_REQUIREMENT", "explain_failure", "unmet"]

TORCH_REQUIREMENT = "torch>=2.4"
# What the engine torch needs; monai 1.5.0 caps torch below 2.7, 1.4 caps numpy below 2.
TORCH_ENGINE = (TORCH_REQUIREMENT, "monai>=1.5.1")

# What pip says, and what that means for the user; the first match counts.
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
        "no version fits this Python and what is installed already; the log names the package",
    ),
    (
        r"Permission denied|Access is denied|Errno 13|WinError 5",
        "Slicer's own folder cannot be written to; install Slicer where you may write, or ask its administrator",
    ),
)


def unmet(requirements: Iterable[str]) -> list[str]:
    """Those of the requirements (as in a requirements file) that the installed packages do not meet."""
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
    """What pip's output means, in one clause that says what to do.

    Args:
        proxies: as `urllib.request.getproxies()` gives them.
    """
    proxy = (proxies or {}).get("https") or (proxies or {}).get("http") or "of this network"
    for pattern, meaning in FAILURES:
        if re.search(pattern, output, re.IGNORECASE):
            return meaning.format(proxy=proxy)
    if proxies and not output.strip():
        return f"pip gave no reason; is the proxy {proxy} right?"
    return "the log in the Python console says why; offline, install from a folder of wheels"
