"""The commands of `liver-unet models`: list, card, verify, install, remove, pack."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import LiverUNetError, ModelError

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add `models` and its actions to the parser's commands."""
    models = commands.add_parser("models", help="list the installed models; show, verify, install, remove or pack one")
    models.set_defaults(run=_list)
    actions = models.add_subparsers(metavar="ACTION")
    command = actions.add_parser("list", help="list all installed models with scores and license")
    command.set_defaults(run=_list)
    command = actions.add_parser("card", help="print the card of a model")
    command.add_argument("model", help="installed model or model folder")
    command.set_defaults(run=_card)
    command = actions.add_parser("verify", help="check that weights have the right checksums and fit the network")
    command.add_argument("models", nargs="*", help="installed models or model folders (default: all installed models)")
    command.set_defaults(run=_verify)
    command = actions.add_parser("install", help="verify a zip or folder, and copy it to your own models")
    command.add_argument("source", type=Path)
    command.add_argument("--overwrite", action="store_true", help="replace an installed model of that name")
    command.set_defaults(run=_install)
    command = actions.add_parser("remove", help="delete one of your own models")
    command.add_argument("model", help="installed model")
    command.set_defaults(run=_remove)
    command = actions.add_parser("pack", help="write a model as a zip")
    command.add_argument("model", help="installed model or model folder")
    command.add_argument("zip", type=Path)
    command.add_argument("--overwrite", action="store_true", help="replace an existing zip")
    command.set_defaults(run=_pack)


def _list(options: argparse.Namespace) -> None:
    from ..models.store import list_models, model_folders
    from ..segmentation.summary import model_score

    models = list_models()
    for name, model in models.items():
        if isinstance(model, LiverUNetError):
            print(f"{name}: broken: {model}")
            continue
        card = model.card
        print(f"{name} {card.version}: {card.description}")
        print(f"    {model_score(model)}; license: {card.license}\n    {model.folder}")
    if not models:
        raise ModelError(f"No model is installed in {' or '.join(str(folder) for folder in model_folders())}.")


def _card(options: argparse.Namespace) -> None:
    from ..models.folder import README
    from ..models.store import find_model

    model = find_model(options.model)
    try:
        print((model.folder / README).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The model {model.folder} has no readable {README} ({error}).") from error


def _verify(options: argparse.Namespace) -> None:
    from ..models.store import find_model, list_models

    for name in options.models or list_models():
        model = find_model(name)
        model.check()
        print(f"{model.card.name} {model.card.version}: weights verified, SHA-256 {model.card.checksum}")


def _install(options: argparse.Namespace) -> None:
    from ..models.exchange import install_model

    model = install_model(options.source, overwrite=options.overwrite)
    print(f"Installed {model.card.name} {model.card.version} in {model.folder}; license: {model.card.license}")


def _remove(options: argparse.Namespace) -> None:
    from ..models.exchange import remove_model

    print(f"Removed {remove_model(options.model)}")


def _pack(options: argparse.Namespace) -> None:
    from ..models.exchange import pack_model
    from ..models.store import find_model

    model = find_model(options.model)
    pack_model(model, options.zip, overwrite=options.overwrite)
    print(f"Packed {model.card.name} {model.card.version} into {options.zip}")
