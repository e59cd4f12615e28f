"""What a model consists of, and where models are installed.

spec.py      all numbers of a model
network.py   builds its networks with MONAI
engines.py   computes them with ONNX Runtime or PyTorch
scores.py    the scores of an evaluated model
card.py      the card: all facts about a model
calibration.py  estimates the Dice of its results
folder.py    opens, verifies and loads a model folder
store.py     finds installed models: the bundled ones and the user's own
exchange.py  packs, installs and removes models
bundle.py    writes a new model folder
"""
