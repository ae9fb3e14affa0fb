import base64
import json
from typing import Any

import pytest

from harvest.chat.dialects import DIALECTS, Scoring, recognise_host, recognise_models
from harvest.chat.elicitation import Elicitation
from harvest.chat.scoring import Alternative, LabelWords, Position
from harvest.teachers.endpoint.config import EndpointConfig
from harvest.teachers.endpoint.elicitation import build_parameters, build_spelling

WORDS = LabelWords(["yes", "no"])


def parameters(dialect: str, scoring: Scoring, first_tokens: Any = (), **options: Any) -> dict[str, Any]:
    config = EndpointConfig(("http://h/v1",), "m", **options)
    return build_parameters(Elicitation(DIALECTS[dialect], scoring, first_tokens), config, WORDS)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.together.xyz/v1", "together"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini"),
        ("https://api.anthropic.com/v1", "anthropic"),
        ("https://ours.openai.azure.com/openai/deployments/d?api-version=2024-10-21", "azure"),
        ("https://ours.services.ai.azure.com/openai/v1", "azure"),
        ("https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi", "vertex"),
        ("https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/openapi", "vertex"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1", "bedrock"),
        ("https://bedrock-mantle.us-west-2.api.aws/v1", "bedrock"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.fireworks.ai/inference/v1", "fireworks"),
        ("https://bedrock-runtime.us-west-2.amazonaws.com.elsewhere.com/v1", None),
        ("https://bedrock-runtime.a.b.amazonaws.com/v1", None),
        ("https://my-aiplatform.googleapis.com.elsewhere.com/v1", None),
        ("https://notopenrouter.ai/v1", None),
        ("http://localhost:8000/v1", None),
    ],
)
def test_well_known_hosts(url: str, name: str | None) -> None:
    dialect = recognise_host(url)
    assert (None if dialect is None else dialect.name) == name


@pytest.mark.parametrize(
    ("models", "name"),
    [
        ({"object": "list", "data": [{"id": "x", "owned_by": "vllm"}]}, "vllm"),
        ({"data": [{"id": "x", "owned_by": "llamacpp"}]}, "llamacpp"),
        ({"data": [{"id": "x", "owned_by": "sglang"}]}, "sglang"),
        ({"data": [{"id": "x", "owned_by": "library"}]}, "ollama"),
        ({"data": [{"id": "x", "owned_by": "organization_owner"}]}, "lmstudio"),
        ({"data": [{"id": "x", "owned_by": "somebody"}]}, "compatible"),
        ({"data": "x"}, "compatible"),
        (None, "compatible"),
    ],
)
def test_servers_sign_their_models(models: Any, name: str) -> None:
    assert recognise_models(models).name == name


def test_openai_asks_by_its_names() -> None:
    assert parameters("openai", Scoring.TOP_LOGPROBS) == {
        "model": "m",
        "max_completion_tokens": 8,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": 20,
    }


def test_choice_is_a_strict_schema_where_nothing_shorter_exists() -> None:
    schema = parameters("openai", Scoring.CHOICE)["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["label"]["enum"] == ["yes", "no"]
    assert parameters("together", Scoring.CHOICE)["response_format"]["schema"] == schema["schema"]


def test_vllm_names_tokens_by_id() -> None:
    asked = parameters("vllm", Scoring.TOKEN_IDS, ((5, 7), (9,)))
    assert asked["logprob_token_ids"] == [5, 7, 9]
    assert asked["top_logprobs"] >= 3
    assert asked["return_tokens_as_token_ids"] is True
    assert asked["max_tokens"] == 1
    assert parameters("vllm", Scoring.CHOICE)["structured_outputs"] == {"choice": ["yes", "no"]}


def test_vllm_tells_ids_without_a_change_of_what_is_asked() -> None:
    """What has ids told is no part of the parameters that a recipe holds: an old folder goes on."""
    config = EndpointConfig(("http://h/v1",), "m", keep_topk=True)
    for scoring, told in ((Scoring.TEXT, "return_tokens_as_token_ids"), (Scoring.TOP_LOGPROBS, "return_token_ids")):
        elicitation = Elicitation(DIALECTS["vllm"], scoring)
        assert build_spelling(elicitation, config) == {told: True}
        assert told not in build_parameters(elicitation, config, WORDS)
        assert build_spelling(Elicitation(DIALECTS["openai"], scoring), config) == {}
    plain = EndpointConfig(("http://h/v1",), "m")
    assert build_spelling(Elicitation(DIALECTS["vllm"], Scoring.TEXT), plain) == {}
    # A server that refuses the field is asked without it.
    without = EndpointConfig(("http://h/v1",), "m", body={"return_token_ids": None})
    assert build_spelling(Elicitation(DIALECTS["vllm"], Scoring.TOP_LOGPROBS), without) == {}


def test_vllm_tells_the_ids_of_a_reply_beside_its_texts() -> None:
    content: list[dict[str, Any]] = [{"token": text, "logprob": -0.5, "top_logprobs": []} for text in ("yes", "")]
    read = DIALECTS["vllm"].read_positions
    found = read({"token_ids": [5, 2], "logprobs": {"content": content}})
    assert [position.reply_id for position in found] == [5, 2]
    # Of another length they cannot be told apart.
    assert [position.reply_id for position in read({"token_ids": [5], "logprobs": {"content": content}})] == [None] * 2


def test_llamacpp_has_a_grammar() -> None:
    elicitation = Elicitation(DIALECTS["llamacpp"], Scoring.CHOICE)
    words = LabelWords(['a "quoted" word', "new\nline"])
    grammar = build_parameters(elicitation, EndpointConfig(("http://h/v1",), "m"), words)["grammar"]
    assert grammar == r'root ::= "a \"quoted\" word" | "new\nline"'


def test_openrouter_goes_only_to_providers_that_give_what_is_asked() -> None:
    asked = parameters("openrouter", Scoring.TOP_LOGPROBS)
    assert asked["provider"] == {"require_parameters": True}


def test_together_asks_with_a_number_and_answers_in_parallel_lists() -> None:
    assert parameters("together", Scoring.TOP_LOGPROBS)["logprobs"] == 20
    read = DIALECTS["together"].read_positions
    lists = {"tokens": ["yes"], "token_logprobs": [-0.1], "token_ids": [5], "top_logprobs": [{"yes": -0.1, "no": -2.5}]}
    assert read({"logprobs": lists}) == [
        Position(Alternative("yes", -0.1), [Alternative("yes", -0.1), Alternative("no", -2.5)], 5)
    ]
    assert read({"logprobs": {"tokens": ["yes"], "token_logprobs": [-0.1]}}) == [Position(Alternative("yes", -0.1), [])]
    content = {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": []}]}
    assert read({"logprobs": content}) == [Position(Alternative("yes", -0.1), [])]


def test_token_ids_are_read_in_both_spellings() -> None:
    read = DIALECTS["vllm"].read_positions
    vllm = {
        "content": [
            {"token": "token_id:12", "logprob": -0.1, "top_logprobs": [{"token": "token_id:12", "logprob": -0.1}]}
        ]
    }
    assert read({"logprobs": vllm})[0].said.token_id == 12
    llamacpp = {"content": [{"id": 12, "token": "yes", "logprob": -0.1, "top_logprobs": []}]}
    assert read({"logprobs": llamacpp})[0].said == Alternative("yes", -0.1, 12)


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}])
def test_missing_log_probabilities_are_no_positions(logprobs: Any) -> None:
    for dialect in DIALECTS.values():
        assert dialect.read_positions({"logprobs": logprobs}) == []
        assert dialect.read_positions({}) == []


def test_a_picture_is_a_data_url() -> None:
    part = DIALECTS["openai"].make_image_part(b"\x89PNG")
    assert base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,")) == b"\x89PNG"


def test_a_picture_takes_the_form_of_each_route() -> None:
    url = "data:image/png;base64,iVBORw=="
    assert DIALECTS["mistral"].make_image_part(b"\x89PNG") == {"type": "image_url", "image_url": url}
    parts = [DIALECTS["openai"].make_image_part(b"\x89PNG"), {"type": "text", "text": "Which?"}]
    chat = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    write_ollama, write_response = (DIALECTS[name].write_request for name in ("ollama-chat", "responses"))
    assert write_ollama is not None
    assert write_response is not None
    own = {**chat, "max_tokens": 8, "options": {"num_ctx": 8192}}
    assert write_ollama(own) == {
        **{"model": "m", "stream": False, "options": {"num_predict": 8, "num_ctx": 8192}},
        "messages": [{"role": "user", "content": "Which?", "images": ["iVBORw=="]}],
    }
    told = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "Which?"}]
    assert write_response(chat) == {"model": "m", "input": [{"role": "user", "content": told}]}


def test_votes_are_sampled_and_everything_else_is_not() -> None:
    assert parameters("anthropic", Scoring.VOTES)["temperature"] == 1.0
    assert parameters("openai", Scoring.CHOICE)["temperature"] == 0.0
    assert parameters("openai", Scoring.VOTES, temperature=0.5)["temperature"] == 0.5


def test_the_users_own_fields_are_merged_and_null_removes_one() -> None:
    asked = parameters("openai", Scoring.CHOICE, body={"reasoning_effort": "low", "temperature": None})
    assert asked["reasoning_effort"] == "low"
    assert "temperature" not in asked
    json.dumps(asked)
