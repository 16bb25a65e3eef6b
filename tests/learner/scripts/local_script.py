"""Rounds over learners of one's own in one process."""

from own_learner import DigitsLearner

from collective_learner import (
    CollectivePlot,
    Results,
    collective_learning_round,
    initial_result,
    plot_results,
    plot_votes,
    print_results,
    set_equal_weights,
)

n_learners = 4
n_rounds = 4
vote_threshold = 0.5

all_learner_models = [DigitsLearner(index, n_learners) for index in range(n_learners)]
set_equal_weights(all_learner_models)

results = Results()
results.data.append(initial_result(all_learner_models))
plot = CollectivePlot(score_name=all_learner_models[0].criterion)

for round_index in range(n_rounds):
    results.data.append(collective_learning_round(all_learner_models, vote_threshold, round_index))
    print_results(results)
    plot.plot_results_and_votes(results)

plot.block()
plot_results(results, n_learners, block=False, score_name=all_learner_models[0].criterion)
plot_votes(results, block=False)
print("scores", sum(results.data[0].test_scores), sum(results.data[-1].test_scores))
print("accepted", sum(result.vote for result in results.data[1:]), results.data[-1].block_proposer)
