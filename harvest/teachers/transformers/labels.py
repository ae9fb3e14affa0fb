"""The scores of label words: of their first tokens, or of the whole words by a walk down the tree of their tokens.

Every beginning of a word that is looked at sees the prompt and what stands before it in the word, and no other: so all
of them can be computed at once behind one prompt, whose keys and values are kept ("tree attention", as in SpecInfer,
arXiv:2305.09781). Where a model does not allow that, prompt and beginning are computed anew each time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from harvest.chat.label_trie import ROOT, LabelTrie, TrieWalk
from harvest.chat.scoring import Distribution
from harvest.teachers.transformers.model import LocalModel, Prefill

_MOST_LOGITS = 1 << 26  # numbers that are held at a time: 256 MB


def score_tokens(prefill: Prefill, tokens: Sequence[int]) -> list[Mapping[int, float]]:
    """The log-probabilities of `tokens` as the first of each row's answer."""
    found = (prefill.logits - prefill.logits.logsumexp(-1, keepdim=True))[:, list(tokens)]
    return [dict(zip(tokens, row, strict=True)) for row in found.tolist()]


def score_words(model: LocalModel, prefill: Prefill, trie: LabelTrie) -> list[Distribution]:
    """The probability of each whole label word as the beginning of each row's answer.

    What it adds to the prompts' cache it takes away again.
    """
    walks = [TrieWalk(trie) for _ in prefill.mask]
    for walk, found in zip(walks, score_tokens(prefill, trie.list_tokens(ROOT)), strict=True):
        walk.tell(ROOT, list(found.values()))
    if model.shares_prompts:
        _walk_together(model, prefill, trie, walks)
    else:
        _walk_apart(model, prefill, trie, walks)
    return [walk.distribute() for walk in walks]


def _walk_together(model: LocalModel, prefill: Prefill, trie: LabelTrie, walks: Sequence[TrieWalk]) -> None:
    start = past = prefill.mask.shape[1]
    most = max(1, _MOST_LOGITS // (len(walks) * prefill.logits.shape[1]))
    seen: list[dict[int, tuple[int, ...]]] = [{ROOT: ()} for _ in walks]  # the places of a beginning's tokens
    while any(chosen := [walk.choose()[:most] for walk in walks]):
        for nodes, places in zip(chosen, seen, strict=True):
            for index, node in enumerate(nodes):
                places[node] = (*places[trie.nodes[node].parent], past + index)
        logits = _compute_nodes(model, prefill, trie, chosen, seen, past)
        past += logits.shape[1]
        _tell(trie, walks, chosen, logits)
    prefill.cache.crop(start - past)


def _compute_nodes(
    model: LocalModel,
    prefill: Prefill,
    trie: LabelTrie,
    chosen: Sequence[Sequence[int]],
    seen: Sequence[Mapping[int, Sequence[int]]],
    past: int,
) -> Any:
    """The logits (B, n, V) behind the n nodes that each row has chosen at most."""
    import torch

    most = max(map(len, chosen))
    tokens = torch.zeros((len(chosen), most), dtype=torch.long)
    depths = torch.zeros_like(tokens)
    sees = torch.zeros((len(chosen), most, past + most), dtype=torch.bool)
    sees[:, :, : prefill.mask.shape[1]] = prefill.mask.bool().cpu()[:, None]
    for row, nodes in enumerate(chosen):
        for index, node in enumerate(nodes):
            path = trie.nodes[node].path
            tokens[row, index], depths[row, index] = path[-1], len(path) - 1
            sees[row, index, list(seen[row][node])] = True
    numbers = model.network.dtype
    hidden = torch.zeros(sees.shape, dtype=numbers).masked_fill(~sees, torch.finfo(numbers).min)
    device = prefill.mask.device
    output = model.forward(
        prefill.cache,
        input_ids=tokens.to(device),
        attention_mask=hidden[:, None].to(device),
        position_ids=prefill.lengths[:, None] + depths.to(device),
    )
    return output.logits


def _tell(trie: LabelTrie, walks: Sequence[TrieWalk], chosen: Sequence[Sequence[int]], logits: Any) -> None:
    """Tell each walk the log-probabilities of what may follow its nodes."""
    wanted = [
        (row, index, token)
        for row, nodes in enumerate(chosen)
        for index, node in enumerate(nodes)
        for token in trie.list_tokens(node)
    ]
    rows, indices, tokens = map(list, zip(*wanted, strict=True))
    total = logits.float().logsumexp(-1)
    found = iter((logits[rows, indices, tokens].float() - total[rows, indices]).tolist())
    for walk, nodes in zip(walks, chosen, strict=True):
        for node in nodes:
            walk.tell(node, [next(found) for _ in trie.nodes[node].children])


def _walk_apart(model: LocalModel, prefill: Prefill, trie: LabelTrie, walks: Sequence[TrieWalk]) -> None:
    while any(chosen := [walk.choose() for walk in walks]):
        for node in sorted({node for nodes in chosen for node in nodes}):
            inputs = _extend(prefill, trie.nodes[node].path)
            logits = model.forward(None, **inputs, **model.number(inputs["attention_mask"]), logits_to_keep=1).logits
            logprobs = logits[:, -1].float().log_softmax(-1)[:, trie.list_tokens(node)].tolist()
            for walk, nodes, found in zip(walks, chosen, logprobs, strict=True):
                if node in nodes:
                    walk.tell(node, found)


def _extend(prefill: Prefill, path: Sequence[int]) -> Mapping[str, Any]:
    """The inputs of the prompts with `path` behind each of them."""
    import torch

    ids = prefill.inputs["input_ids"]
    extended = dict(prefill.inputs)
    for name, tensor in prefill.inputs.items():
        if tensor.shape == ids.shape:  # one number a token: what is said is neither padding nor of a picture
            more = torch.full((len(ids), len(path)), int(name == "attention_mask"), dtype=tensor.dtype)
            extended[name] = torch.cat([tensor, more.to(ids.device)], dim=1)
    extended["input_ids"][:, -len(path) :] = torch.tensor(list(path), device=ids.device)
    return extended
