"""Trials that were trained alike: what counts as a difference, and how it is said."""

from dataclasses import replace

from orchestrator.identity import Difference, Numbers, changes, differences, mixed, same_numbers, words
from orchestrator.records import Origin, PartRow

LOSS = PartRow("method", "confidence_penalty", 1, "CP", {}, "3f2a91bc" + "0" * 56, "/home/ada/my_parts.py:8")
SHIPPED = PartRow("method", "pskd", 1, "PS-KD", {}, "77" * 32, "trainer/methods/pskd.py:20")
THEN = Origin(1, "aa" * 32, "dd" * 32, (LOSS, SHIPPED))


def edited(part: PartRow, digest: str = "91bc03d1" + "0" * 56) -> PartRow:
    return replace(part, digest=digest)


def test_an_edited_part_is_said_as_the_design_has_it():
    listed = changes([THEN], replace(THEN, parts=(edited(LOSS), SHIPPED)))
    assert [(each.kind, each.what) for each in listed] == [("code", "my_parts.py")]
    assert words(listed) == "by other code: my_parts.py 3f2a91bc -> 91bc03d1; raise its version, or --retrain"


def test_a_raised_version_is_another_part():
    assert differences(THEN, replace(THEN, parts=(replace(edited(LOSS), version=2), SHIPPED))) == []


def test_a_moved_file_is_the_same_code():
    assert differences(THEN, replace(THEN, parts=(replace(LOSS, source="/tmp/other.py:99"), SHIPPED))) == []


def test_the_trainers_own_code_has_no_version_to_raise():
    listed = changes([THEN], replace(THEN, trainer="bb" * 32, parts=(LOSS, edited(SHIPPED))))
    assert [each.kind for each in listed] == ["trainer", "trainer"]
    assert words(listed) == (
        "by other code: trainer/methods/pskd.py 77777777 -> 91bc03d1, trainer aaaaaaaa -> bbbbbbbb; --retrain"
    )


def test_other_data_is_said_beside_other_code():
    assert words(changes([THEN], replace(THEN, data="ee" * 32))) == "on other data: dddddddd -> eeeeeeee; --retrain"
    both = changes([THEN], replace(THEN, data="ee" * 32, parts=(edited(LOSS), SHIPPED)))
    assert words(both) == (
        "by other code: my_parts.py 3f2a91bc -> 91bc03d1, and on other data: dddddddd -> eeeeeeee; "
        "raise its version, or --retrain"
    )


def test_what_was_not_recorded_is_no_difference():
    nothing = Origin(1, None, None, ())
    assert changes([nothing], THEN) == changes([THEN], nothing) == []
    assert words([]) == ""


def test_two_parts_of_one_file_are_one_change():
    network = replace(LOSS, kind="network", name="small")
    now = replace(THEN, parts=(edited(LOSS), edited(network)))
    assert len(changes([replace(THEN, parts=(LOSS, network))], now)) == 1


def test_every_attempt_of_a_trial_counts():
    other = replace(THEN, number=2, parts=(edited(LOSS), SHIPPED))
    assert changes([THEN, other], other) == [Difference("code", "my_parts.py", LOSS.digest, edited(LOSS).digest)]


def test_trials_of_one_number_that_differ_are_named_with_their_code():
    other = replace(THEN, parts=(edited(LOSS), SHIPPED))
    notes = mixed({"a/seed0": [THEN], "a/seed1": [other], "a/seed2": [replace(THEN, number=3)]})
    assert notes.footnotes == (
        "trained by code that differs at one version, my_parts.py (3f2a91bc: a/seed0, a/seed2; 91bc03d1: a/seed1)",
    )
    assert notes.notes == ()


def test_trials_on_different_data_are_named():
    mixture = mixed({"a/seed0": [THEN], "a/seed1": [replace(THEN, data="ee" * 32)]})
    assert mixture.footnotes == ("trained on data that differs (dddddddd: a/seed0; eeeeeeee: a/seed1)",)


def test_a_trial_that_went_on_with_other_code_differs_from_itself():
    mixture = mixed({"a/seed0": [THEN, replace(THEN, number=2, parts=(edited(LOSS), SHIPPED))]})
    assert mixture.footnotes == (
        "trained by code that differs at one version, my_parts.py (3f2a91bc: a/seed0; 91bc03d1: a/seed0)",
    )


def test_the_trainers_own_code_is_a_note_and_no_footnote():
    notes = mixed({"a/seed0": [THEN], "a/seed1": [replace(THEN, trainer="bb" * 32)]})
    assert notes.footnotes == ()
    assert notes.notes == ("trained by different code of the trainer, trainer (aaaaaaaa: a/seed0; bbbbbbbb: a/seed1)",)


def test_trials_trained_alike_say_nothing():
    assert mixed({"a/seed0": [THEN], "a/seed1": [replace(THEN, number=2)]}) == ((), ())
    assert mixed({"a/seed0": [], "a/seed1": [THEN]}) == ((), ())


def test_same_numbers_are_those_of_every_shared_seed():
    one = {0: Numbers("a", 20), 1: Numbers("b", 20), 2: Numbers("c", 20)}
    assert same_numbers(one, one) == "the same numbers in all 20 epochs of 3 seeds"
    assert (
        same_numbers(one, {1: Numbers("b", 20), 7: Numbers("x", 20)}) == "the same numbers in all 20 epochs of 1 seed"
    )
    assert same_numbers(one, {1: Numbers("b", 20), 2: Numbers("x", 20)}) == ""
    assert same_numbers(one, {7: Numbers("a", 20)}) == same_numbers({}, {}) == ""
    assert same_numbers({0: Numbers("a", 1)}, {0: Numbers("a", 1)}) == "the same numbers in 1 seed"
