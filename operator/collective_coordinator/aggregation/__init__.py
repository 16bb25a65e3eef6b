"""Pure arithmetic over weights that pass by: no IO, no learners, no rounds.

``layout`` reads where the tensors of a safetensors stream lie; ``reduce`` folds one piece of every learner's update
into one piece of the result, so that memory does not grow with the model or with the number of learners; ``server``
applies the result to the current weights as a server optimizer; ``backtrack`` shortens the way to it. Strategies put
them together.
"""
