"""The control side: turns a CollectiveTask into learner pods and a coordinator pod, and tells the truth about them."""
