"""Learners: one adapter a framework, each a `MachineLearningInterface` around a model and private data.

A module here is imported only by whoever uses its framework; this package itself imports nothing.

What all of them promise, because rounds depend on it:

- Proposing and testing leave a learner as it was, down to its random state. So a proposal is a function of the weights
  held, the data and the seed: a learner that was killed and started again proposes the same bytes as before.
- The random numbers of a training are seeded from the learner's own seed *and* the weights it starts from. Restoring
  the random state alone would shuffle every training of a learner in the same order.
- A vote is strict: equal is not better, and NaN is never better than anything.
"""
