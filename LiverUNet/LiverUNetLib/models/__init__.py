"""What a model is, and where models are.

spec.py      all numbers of a model
network.py   its networks, as MONAI builds them
engines.py   what computes them: ONNX Runtime or PyTorch
scores.py    how good a model was measured to be
card.py      all that is known about a model
calibration.py  how its results are judged
folder.py    a model on disk: opened, verified, loaded
store.py     the models that are there, bundled and the user's own
exchange.py  they come and go as zip files
bundle.py    a new one is written
"""
