"""The text of a model card states what its numbers are."""

from dataclasses import asdict

import pytest

from LiverUNetLib.models.card import ModelCard
from LiverUNetLib.models.folder import README
from LiverUNetLib.models.spec import ModelSpec
from LiverUNetLib.models.store import find_model
from LiverUNetTrainLib.evaluation.card_text import card_text
from LiverUNetTrainLib.evaluation.training_record import TrainingRecord
from LiverUNetTrainLib.run.settings import Refinement, TrainingSettings


def test_the_text_of_the_bundled_model_is_made_from_its_card():
    model = find_model("liver-ct")
    assert (model.folder / README).read_text(encoding="utf-8") == card_text(model.card)


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        (40, " The last 8 of these epochs are a second course"),
        (9, " The last of these epochs is a second course"),
        (4, ""),
    ],
)
def test_the_epochs_of_the_refinement_are_named(epochs, words):
    settings = TrainingSettings(epochs=epochs, refinement=Refinement(epochs=8))
    record = asdict(settings) | {"weights": "last", "validated": [], "parent": None}
    card = ModelCard("a", "1", "A", "MIT", ModelSpec(), training=record)
    text = card_text(card)
    assert words in text
    assert ("second course" in text) == bool(words)
    assert TrainingRecord.of(card).refined_epochs == epochs - settings.first_epochs
