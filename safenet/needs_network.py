"""One line that says what needs the network, if torch, timm or torchvision is not installed."""

from __future__ import annotations

from importlib.util import find_spec

NETWORK_PACKAGES = ("torch", "timm", "torchvision")
REMEDY = "pip install 'safenet-atlas[network]'"


class NetworkNotInstalledError(ImportError):
    """A package of the extra `network` is missing; the message is one line that ends with the remedy."""


def missing_network_packages() -> tuple[str, ...]:
    """Name the packages of the extra `network` that are not installed; imports none of them."""
    return tuple(name for name in NETWORK_PACKAGES if not _is_installed(name))


def require_network(what: str) -> None:
    """Refuse before `what` imports the network.

    Parameters
    ----------
    what : str
        What is about to run the network, as the beginning of a sentence, such as "extract".

    Raises
    ------
    NetworkNotInstalledError
        If torch, timm or torchvision is not installed.
    """
    if missing := missing_network_packages():
        verb = "is" if len(missing) == 1 else "are"
        raise NetworkNotInstalledError(f"{what} needs {', '.join(missing)}, which {verb} not installed. Run {REMEDY}")


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # an import hook refuses it
        return False
