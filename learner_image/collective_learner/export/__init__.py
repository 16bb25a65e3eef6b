"""Models out: files for programs that know nothing of learners, and predictions from a run's model.

A module here that is named after a framework is imported only by a learner of that framework; ONNX's packages are
imported when an export is asked for, and say which extra brings them.
"""
