"""What single mixers promise beyond the laws."""

import pytest
import torch

from core.backbones.mixers._build import build_mixer
from core.backbones.mixers.attention import Attention
from core.backbones.mixers.bidirectional import reversal
from core.backbones.positions import rotate
from core.backbones.state import KeyValue
from core.data import Layout, MaskSpec
from core.errors import UserError
from tests.laws import mixer_laws as laws

CAUSAL, FULL = MaskSpec("causal"), MaskSpec("full")


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("mask", [CAUSAL, MaskSpec("causal", 4, 1)], ids=["growing", "ring"])
def test_shared_key_heads_keep_the_laws(kv_heads: int, mask: MaskSpec) -> None:
    mixer = Attention(8, mask, heads=4, kv_heads=kv_heads, head_dim=6).double()
    for law in (laws.check_chunks, laws.check_packed, laws.check_rollback, laws.check_visibility):
        law(mixer)
    _, state = mixer(torch.randn(2, 3, 8).double(), Layout.padded(torch.tensor([3, 1]), 3), keep="last")
    assert isinstance(state, KeyValue) and state.keys.shape[1] == kv_heads


def test_rotary_depends_on_distance_alone() -> None:
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    at = lambda place: torch.tensor([[[place]]])  # noqa: E731
    near = (rotate(query, at(5)) * rotate(key, at(2))).sum()
    far = (rotate(query, at(1005)) * rotate(key, at(1002))).sum()
    torch.testing.assert_close(near, far)
    torch.testing.assert_close(rotate(query, at(0)), query)
    assert not torch.isclose(near, (rotate(query, at(5)) * rotate(key, at(3))).sum())


def test_rotary_axes_share_the_pairs() -> None:
    x = torch.randn(1, 1, 1, 8, dtype=torch.float64)
    turned = rotate(x, torch.tensor([[[0, 7]]]))
    torch.testing.assert_close(turned[..., [0, 2, 4, 6]], x[..., [0, 2, 4, 6]])
    assert not torch.isclose(turned[..., [1, 5]], x[..., [1, 5]]).any()


def test_prefix_and_full_attention_refuse_to_decode() -> None:
    for mode in ("prefix", "full"):
        with pytest.raises(ValueError, match="causal mask only"):
            Attention(8, MaskSpec(mode)).init_state(1)


def test_reversal_turns_each_sequence() -> None:
    sizes = torch.tensor([3, 0, 1, 2])
    assert reversal(Layout.packed(sizes, 8)).tolist() == [[2, 1, 0, 3, 5, 4, 6, 7]]
    padded = [[2, 1, 0, 3], [0, 1, 2, 3], [0, 1, 2, 3], [1, 0, 2, 3]]
    assert reversal(Layout.padded(sizes, 4)).tolist() == padded


@pytest.mark.parametrize("inner", ["min_gru", "attention"])
@pytest.mark.parametrize("join", ["sum", "concat"])
def test_bidirectional_wraps_any_causal_mixer(inner: str, join: str) -> None:
    mixer = build_mixer({"name": "bidirectional", "mixer": {"name": inner}, "join": join}, 8, FULL).double()
    for law in (laws.check_packed, laws.check_padding, laws.check_visibility):
        law(mixer)


def test_keep_all_is_bounded_and_states_are_padded() -> None:
    mixer = Attention(8, CAUSAL)
    with pytest.raises(ValueError, match="at most 16"):
        mixer(torch.randn(1, 17, 8), Layout.padded(torch.tensor([17]), 17), keep="all")
    with pytest.raises(ValueError, match="unpack"):
        mixer(torch.randn(1, 4, 8), Layout.packed(torch.tensor([4]), 4), keep="last")


@pytest.mark.parametrize(
    ("entry", "mask", "message"),
    [
        ({"name": "min_gruu"}, CAUSAL, "did you mean 'min_gru'"),
        ({"heads": 2}, CAUSAL, "needs the name"),
        ({"name": "attention", "head": 2}, CAUSAL, "no option 'head'.*'heads'"),
        ({"name": "attention", "heads": 3}, CAUSAL, "no multiple of 3 heads"),
        ({"name": "attention", "heads": 4, "kv_heads": 3}, CAUSAL, "evenly"),
        ({"name": "attention", "head_dim": 3}, CAUSAL, "odd"),
        ({"name": "attention", "sinks": 1}, CAUSAL, "beside a window"),
        ({"name": "min_gru"}, FULL, "cannot honour"),
        ({"name": "min_gru", "window": 4}, CAUSAL, "window"),
        ({"name": "min_gru", "expansion": 0}, CAUSAL, "no hidden channel"),
        ({"name": "bidirectional", "mixer": {"name": "bidirectional", "mixer": {}}}, FULL, "cannot honour"),
        ({"name": "bidirectional", "mixer": {"name": "min_gru"}, "join": "max"}, FULL, "sum or concat"),
        ({"name": "bidirectional"}, FULL, "mixer"),
    ],
)
def test_a_wrong_entry_is_the_users_error(entry: dict, mask: MaskSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_mixer(entry, 8, mask)


def test_a_window_narrows_only() -> None:
    entry = {"name": "attention", "window": 9, "sinks": 1}
    assert build_mixer(entry, 8, CAUSAL).mask == MaskSpec("causal", 9, 1)
    assert build_mixer(entry, 8, MaskSpec("full", 4)).mask == MaskSpec("full", 4, 1)
    assert build_mixer({"name": "attention"}, 8, MaskSpec("full", 4)).mask == MaskSpec("full", 4)
