"""The wire: the .proto and its generated messages, the parts that weights travel in, and the weights' codec.

Kept apart from the learner so that a program without numpy (the coordinator) can speak it: only ``codec`` and
``assembly`` need numpy.
"""
