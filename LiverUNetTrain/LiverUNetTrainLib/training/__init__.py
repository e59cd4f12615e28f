"""The networks learn.

settings.py         how long, how fast, on what
recipes.py          named ways to train
augmentation.py     scans are varied
fine_sampling.py    what the fine look learns from
coarse_sampling.py  what the coarse look learns from
learner.py          one step of learning
trainer.py          the training of one look: epochs, validation, resuming
model_training.py   both looks, in one run folder
run_settings.py     what a run folder keeps of what was asked for
cost.py             disk, time and memory, estimated before
pictures.py         a validated case, augmented slices
"""
