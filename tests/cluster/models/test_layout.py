"""Sessions and threads are chosen by measurement, once for a model and a machine."""

import pytest

from cluster.models import layout
from cluster.models.inference import ModelError, ModelRepository
from cluster.models.layout import Layout, choose_layout, layout_of, made_up_question, measure
from cluster.models.runtime.cache import Cache


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def test_every_way_to_share_out_the_cores_is_measured_and_a_good_one_is_taken(monkeypatch):
    seen = []
    rates = {1: 60.0, 2: 99.0, 4: 100.0}  # four sessions are hardly better than two

    def items_per_s(model, question, sessions):
        seen.append((sessions, model.threads, question.items))
        return rates[sessions]

    monkeypatch.setattr(layout, "items_per_s", items_per_s)
    told = {"1 x 4": 60.0, "2 x 2": 99.0, "4 x 1": 100.0}
    assert measure(ModelRepository(), "digits", 4) == Layout(2, 2, told)
    assert sorted(set(seen)) == [(1, 4, 8), (2, 2, 8), (4, 1, 8)]


def test_real_sessions_answer_in_every_layout():
    found = measure(ModelRepository(), "digits", 2)
    assert found.sessions * found.threads == 2
    assert all(rate > 0 for rate in found.items_per_s.values())
    assert list(found.items_per_s) == ["1 x 2", "2 x 1"]


def test_what_was_measured_is_remembered_for_the_model_and_the_cores(cache, monkeypatch):
    first = choose_layout("digits", 2, cache)
    monkeypatch.setattr(layout, "measure", lambda *_: pytest.fail("it was measured again"))
    assert choose_layout("digits", 2, cache) == first
    with pytest.raises(pytest.fail.Exception):
        choose_layout("digits", 3, cache)


def test_one_core_leaves_nothing_to_choose(cache):
    assert choose_layout("nothing is loaded", 1, cache) == Layout(1, 1)


def test_a_model_that_refuses_made_up_inputs_gets_a_session_a_core(cache, monkeypatch):
    monkeypatch.setattr(layout, "made_up_question", lambda model: None)
    assert choose_layout("digits", 2, cache) == Layout(2, 1)


def test_a_made_up_question_is_a_batch_that_the_model_answers():
    model = ModelRepository().load("digits")
    question = made_up_question(model)
    assert question.items == 8
    assert not isinstance(model.run([question])[0], Exception)


def test_an_unknown_model_is_refused_from_the_process_beside():
    with pytest.raises(ModelError, match="did you mean 'digits'"):
        layout_of("digitz", 2)
