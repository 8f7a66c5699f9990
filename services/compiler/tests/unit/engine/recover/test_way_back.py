"""A block that learnt too far goes back to where its held-out error is least."""

from __future__ import annotations

import pytest
import torch

from boardwright.compiler.engine.recover.block import Block


@pytest.mark.parametrize(("aim", "kept"), [(1.2, 1.0), (0.55, 0.5), (0.2, 0.25)])
def test_the_best_place_on_the_way_is_kept(monkeypatch, aim, kept):
    learnt = [torch.nn.Parameter(torch.full((3,), 3.0)), torch.nn.Parameter(torch.full((2,), -1.0))]
    start = [torch.full((3,), 1.0), torch.full((2,), 0.0)]

    def error(block, states, targets, spread):
        shares = [(learnt[0][0].item() - 1) / 2, -learnt[1][0].item()]
        assert shares[0] == pytest.approx(shares[1])
        return (shares[0] - aim) ** 2

    monkeypatch.setattr(Block, "_error", error)
    block = object.__new__(Block)
    found = block._best_of_the_way([(value, 0.1) for value in learnt], start, [], [], {})
    assert found == pytest.approx((kept - aim) ** 2)
    torch.testing.assert_close(learnt[0].detach(), torch.full((3,), 1.0 + 2 * kept))
    torch.testing.assert_close(learnt[1].detach(), torch.full((2,), -kept))
    assert all(value.requires_grad for value in learnt)
