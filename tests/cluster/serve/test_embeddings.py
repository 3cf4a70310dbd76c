"""Embeddings as OpenAI's client asks for them, sync and async, with minilm.

The client takes most of a second to import, so it is imported where it is used.
"""

import asyncio
import base64
import os

import httpx
import numpy as np
import pytest

from cluster import LocalCluster
from cluster.serve.admission import WINDOW_MIN
from perfkit.optimized.specs import OPTIMIZED

TEXTS = ["A man is eating food.", "Somebody eats a meal.", "The satellite left its orbit."]
WIDTH = 384


@pytest.fixture(scope="module")
def api(minilm_home, start_api):
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(minilm_home)
    try:
        with (
            LocalCluster(1, OPTIMIZED, models=["minilm", "digits"]) as local,
            start_api("--endpoint", local.endpoint) as running,
        ):
            yield running
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="module")
def client(api):
    import openai

    with openai.OpenAI(api_key="none", base_url=f"{api.url}/v1", max_retries=0) as one:
        yield one


def client_error(name):
    import openai

    return getattr(openai, name)


def vectors(answer):
    return np.array([one.embedding for one in answer.data])


def test_texts_of_like_meaning_are_near_each_other(client):
    answer = client.embeddings.create(model="minilm", input=TEXTS, user="me")
    found = vectors(answer)
    assert found.shape == (3, WIDTH)
    assert [one.index for one in answer.data] == [0, 1, 2]
    assert answer.model == "minilm"
    alone = [client.embeddings.create(model="minilm", input=text).usage for text in TEXTS]
    assert answer.usage.total_tokens == sum(usage.prompt_tokens for usage in alone)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert found[0] @ found[1] > 0.5 > found[0] @ found[2] + 0.3


def test_floats_base64_and_a_single_text_give_the_same_numbers(client, api):
    floats = vectors(
        client.embeddings.create(model="minilm", input=TEXTS[0], encoding_format="float")
    )
    np.testing.assert_array_equal(
        floats.astype(np.float32),
        vectors(client.embeddings.create(model="minilm", input=[TEXTS[0]])).astype(np.float32),
    )
    raw = httpx.post(
        f"{api.url}/v1/embeddings",
        json={"model": "minilm", "input": TEXTS[0], "encoding_format": "base64"},
    ).json()
    data = base64.b64decode(raw["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(data, "<f4"), floats[0].astype(np.float32))
    tokens = len("[CLS] a man is eating food . [SEP]".split())
    assert raw["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_the_async_client_gets_many_at_once_in_order(api):
    import openai

    async def ask():
        async with openai.AsyncOpenAI(api_key="none", base_url=f"{api.url}/v1") as client:
            return await asyncio.gather(
                *(client.embeddings.create(model="minilm", input=TEXTS[n % 3]) for n in range(12))
            )

    found = [vectors(answer)[0] for answer in asyncio.run(ask())]
    for number, vector in enumerate(found):
        np.testing.assert_allclose(vector, found[number % 3], atol=1e-5)


def test_models_are_listed_and_looked_up(client):
    assert [model.id for model in client.models.list()] == ["digits", "minilm"]
    assert client.models.retrieve("minilm").owned_by == "perfkit"
    with pytest.raises(client_error("NotFoundError"), match="did you mean 'minilm'"):
        client.models.retrieve("minilmm")


@pytest.mark.parametrize(
    ("asked", "error", "words", "param"),
    [
        ({"input": []}, "BadRequestError", "a list of 0", "input"),
        ({"input": [""]}, "BadRequestError", "an empty text", "input[0]"),
        ({"input": ["a", ""]}, "BadRequestError", "an empty text", "input[1]"),
        ({"input": [1, 2]}, "BadRequestError", "tokenizers of their own", "input"),
        ({"input": [[1, 2]]}, "BadRequestError", "tokenizers of their own", "input"),
        ({"input": ["a", {"b": 1}]}, "BadRequestError", "input[1] can't be read", "input[1]"),
        ({"input": 5}, "BadRequestError", "input can't be read: Expected", "input"),
        ({"input": ["a"] * 2_049}, "BadRequestError", "a list of 2049", "input"),
        ({"input": "a", "dimensions": 64}, "BadRequestError", "vectors of 384", "dimensions"),
        (
            {"input": "a", "encoding_format": "hex"},
            "BadRequestError",
            "can't be read: Invalid enum",
            "encoding_format",
        ),
        ({"input": "a", "model": "minilmm"}, "NotFoundError", "did you mean", None),
        ({"input": "a", "model": "digits"}, "BadRequestError", "does not turn texts", "model"),
    ],
)
def test_what_cannot_be_done_is_an_error_as_openai_has_them(client, asked, error, words, param):
    with pytest.raises(client_error(error)) as raised:
        client.embeddings.create(**{"model": "minilm", **asked})
    assert words in raised.value.message
    assert raised.value.type == "invalid_request_error"
    assert raised.value.param == param


def test_the_models_own_length_may_be_asked_for(client):
    answer = client.embeddings.create(model="minilm", input="a", dimensions=WIDTH)
    assert vectors(answer).shape == (1, WIDTH)


def test_more_texts_than_fit_into_the_window_are_answered_in_order(client):
    texts = [f"{n}" for n in range(WINDOW_MIN + 20)]
    found = vectors(client.embeddings.create(model="minilm", input=texts))
    lone = vectors(client.embeddings.create(model="minilm", input=texts[WINDOW_MIN]))
    np.testing.assert_allclose(found[WINDOW_MIN], lone[0], atol=1e-5)
