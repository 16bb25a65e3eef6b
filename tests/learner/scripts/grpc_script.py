"""Rounds over learners behind servers, one process each."""

import json
import sys
from multiprocessing import Process

from own_learner import SimpleFactory

from collective_learner import (
    CollectivePlot,
    GRPCLearnerClient,
    GRPCServer,
    Results,
    collective_learning_round,
    initial_result,
    print_results,
    set_equal_weights,
)

n_learners = 3
n_rounds = 3
first_port = int(sys.argv[1])

if __name__ == "__main__":
    processes = []
    for i in range(n_learners):
        server = GRPCServer(mli_factory=SimpleFactory(), port=first_port + i)
        process = Process(target=server.run)
        process.start()
        processes.append(process)

    try:
        learners = []
        for i in range(n_learners):
            client = GRPCLearnerClient(f"client {i}", f"127.0.0.1:{first_port + i}")
            client.start()
            client.setup_ml(
                dataset_loader_name="DIGITS_DATA",
                dataset_loader_parameters=json.dumps({"location": f"{i}/{n_learners}"}),
                model_arch_name="DIGITS_MODEL",
                model_parameters=json.dumps({"batch_size": 16}),
            )
            learners.append(client)

        set_equal_weights(learners)
        results = Results()
        results.data.append(initial_result(learners))
        plot = CollectivePlot(score_name=learners[0].criterion)
        for round_index in range(n_rounds):
            result = collective_learning_round(learners, vote_threshold=0.5, round_index=round_index)
            results.data.append(result)
            print_results(results)
            plot.plot_results_and_votes(results)
        plot.block()
        print("scores", sum(results.data[0].test_scores), sum(results.data[-1].test_scores))
        print("accepted", sum(result.vote for result in results.data[1:]), results.data[-1].block_proposer)
        for client in learners:
            client.stop()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(30)
            if process.is_alive():
                process.kill()
        print("exit codes", [process.exitcode for process in processes])
