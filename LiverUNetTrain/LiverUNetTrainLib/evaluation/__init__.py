"""How good models are, and how a run becomes one.

measures.py      what is measured, and how it is shown
metrics.py       a mask is compared with its reference
evaluate.py      a model on cases, or masks made elsewhere
tables.py        scores as text, CSV and JSON; two evaluations side by side
figures.py       curves and scores, drawn
report.py        all of it as one HTML file
export.py        a run becomes a model
card_text.py     the model card as text
training_record.py  what a card records of the training
before_after.py  whether fine-tuning has improved a model
crossval.py      every patient is tested once
"""
