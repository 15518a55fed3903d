"""An epoch's result: its main evaluation, and the seconds that it took."""

from trainer.results import EpochResult, Evaluation, Metrics


def evaluation(network: int, classifier: str, split: str) -> Evaluation:
    return Evaluation(network, classifier, Metrics(1.0, 1.0, 1.0, 1.0, 1.0), 10, split)


def test_the_main_evaluation_is_the_first_networks_main_classifier_on_the_test_split():
    main = evaluation(0, "main", "test")
    before = [evaluation(1, "main", "test"), evaluation(0, "main", "validation"), evaluation(0, "head1", "test")]
    assert EpochResult(0, 0.1, 1.0, 0.5, 0.25, 10, {}, [*before, main]).main is main
    assert EpochResult(0, 0.1, 1.0, 0.5, 0.25, 10, {}, before).main is None


def test_an_epoch_takes_the_seconds_of_all_its_clocks():
    assert EpochResult(0, 0.1, 1.0, 0.5, 0.25, 10, {}).seconds == 1.75
