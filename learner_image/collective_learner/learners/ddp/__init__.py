"""Training one PyTorch model on several devices, by `torch.nn.parallel.DistributedDataParallel`.

Each device has a process, a rank, with the model, the optimizer and the criterion. The learner is none of them: like
torchrun's agent it starts the ranks, hands them their work, and ends them. It goes through the training data itself and
sends each rank its piece of every batch. That way

- the batches are those of a training on one device, whatever gives them: a loader need not be split, nor be sent;
- the data is in memory once, and the learner's own model, optimizer and randomness are not touched at all;
- a rank that runs out of memory, is killed, or hangs in NCCL cannot take the learner with it: the learner ends the
  ranks, says what happened, and starts others for its next training.

`ranks` is the learner's side and `rank` a rank's, which `process` starts; `pieces` splits batches, `channel` carries
them, and `batch_norm` has all ranks normalise by the whole batch.

What is equal to a training on one device, up to rounding: the gradient of each batch, also of an uneven one, hence the
weights, and BatchNorm's statistics. What is not: dropout, which each rank draws for itself, and a criterion of one's
own that is no mean over examples.
"""
