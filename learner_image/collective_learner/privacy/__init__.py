"""Differential privacy: what a training may reveal about single examples, bounded, counted, and never forgotten.

`accountant` says what a history of noisy steps has spent, `ledger` keeps that history over restarts, and `spending`
puts both at the service of a learner, whichever it is. `torch_dp` and `keras_dp` train models so that the accountant's
assumptions hold. This package itself imports nothing.

What is covered, and what is not:

- Covered is whatever follows from the weights that a learner proposes, for adding or removing one example of its
  training set, over all trainings that its ledger knows.
- Not covered: the scores and votes, which come from the vote and test sets; the number of examples, which is told; and
  an observer of the learner's memory or timing. Noise is drawn in floating point by generators that start from the
  operating system's randomness; attacks on the last bits of such numbers are not defended against.
"""
