"""Five learners, each behind a gRPC server in a process of its own, learn to read digits together.

    python examples/tutorials/grpc_tutorial.py [FIRST_PORT] [ROUNDS]

`grpc_tutorial.md` walks through it.
"""

from __future__ import annotations

import json
import sys
from multiprocessing import Process

import grpc_tasks  # registers the data loader and the model  # noqa: F401

from collective_learner import (
    CollectivePlot,
    DefaultMliFactory,
    GRPCLearnerClient,
    GRPCServer,
    Results,
    collective_learning_round,
    initial_result,
    print_results,
    set_equal_weights,
)

first_port = int(sys.argv[1]) if len(sys.argv) > 1 else 9995
n_rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
n_learners = 5
vote_threshold = 0.5


def serve(port: int) -> None:
    """Serve one learner until the process is ended."""
    GRPCServer(mli_factory=DefaultMliFactory(), port=port, host="127.0.0.1").run()


def connect(index: int) -> GRPCLearnerClient:
    """Connect to a learner, and have it load its data and build its model."""
    client = GRPCLearnerClient(f"client {index}", f"127.0.0.1:{first_port + index}")
    client.start()
    client.setup_ml(
        dataset_loader_name="TUTORIAL_DIGITS",
        dataset_loader_parameters=json.dumps({"location": f"{index}/{n_learners}"}),
        model_arch_name="TUTORIAL_LOGISTIC",
        model_parameters=json.dumps({"learning_rate": 0.03}),
    )
    return client


def learn_together() -> None:
    """Connect to the learners, and run the rounds."""
    learners = [connect(index) for index in range(n_learners)]
    print(learners[0].probe()["data_loaders"]["TUTORIAL_DIGITS"])

    set_equal_weights(learners)
    results = Results()
    results.data.append(initial_result(learners))
    plot = CollectivePlot(score_name="log loss")

    for round_index in range(n_rounds):
        results.data.append(collective_learning_round(learners, vote_threshold, round_index))
        print_results(results)
        plot.plot_results_and_votes(results)

    for client in learners:
        client.stop()
    plot.block()


if __name__ == "__main__":
    servers = [Process(target=serve, args=(first_port + index,)) for index in range(n_learners)]
    for server in servers:
        server.start()
    try:
        learn_together()
    finally:
        for server in servers:
            server.terminate()
            server.join()
