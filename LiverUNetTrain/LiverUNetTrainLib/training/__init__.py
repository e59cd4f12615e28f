"""How the networks learn.

recipes.py          named ways to train
augmentation.py     random changes of what is shown
fine_sampling.py    training slices from simulated scanner stacks
coarse_sampling.py  what the coarse look learns from
sampler.py          the interface of both samplers
learner.py          one step of learning
schedule.py         learning rate, validation and end, from settings and log
trainer.py          the training of one look: epochs, validation, resuming
plan.py             what to train, on which cases, and how
model_training.py   both looks, in one run folder
cost.py             disk, time and memory, estimated before
pictures.py         pictures of a validated case and of augmented slices
"""
