"""The networks learn.

recipes.py          named ways to train
augmentation.py     scans are varied
fine_sampling.py    what the fine look learns from
coarse_sampling.py  what the coarse look learns from
sampler.py          what a training asks of either of them
learner.py          one step of learning
schedule.py         learning rate, validation and end, from settings and log
trainer.py          the training of one look: epochs, validation, resuming
plan.py             what a training is asked for
model_training.py   both looks, in one run folder
cost.py             disk, time and memory, estimated before
pictures.py         a validated case, augmented slices
"""
