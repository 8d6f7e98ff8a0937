"""The critic, its losses, and the frames that it is shown again."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.distillation.critic import Critic
from nas.distillation.replay import Replay

SHAPE = (3, 5, 16, 16)


def make_critic(batch_size: int = 4) -> Critic:
    return Critic(Replay(SHAPE, batch_size, seed=0), seed=0)


def videos(count: int, seed: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def gradients(critic: Critic) -> list[Tensor]:
    """Of all parameters, which have one."""
    found = [parameter.grad for parameter in critic.parameters()]
    assert found and all(gradient is not None for gradient in found)
    return [gradient.clone() for gradient in found if gradient is not None]


def test_each_loss_teaches_its_own() -> None:
    critic, frames, real = make_critic(), videos(4, 0).requires_grad_(), videos(4, 1)
    critic.student_loss(frames, real).backward()  # type: ignore[no-untyped-call]
    assert frames.grad is not None and bool((frames.grad != 0).any())
    assert all(parameter.grad is None for parameter in critic.parameters())
    frames.grad = None
    critic.own_loss(frames, real, 0, range(4)).backward()  # type: ignore[no-untyped-call]
    assert frames.grad is None
    assert all(bool((gradient != 0).any()) for gradient in gradients(critic))


@pytest.mark.parametrize("step", [0, 1, 9])
def test_gradients_of_pieces_add_up_to_that_of_the_batch(step: int) -> None:
    """Also where earlier frames are shown, and whatever the pieces."""
    found = []
    for pieces in ((0, 4), (0, 2, 4), (0, 3, 4)):
        critic, frames, real = make_critic(), videos(4, 0), videos(4, 1)
        for before in range(step):
            critic.replay.keep(videos(4, 10 + before), before, range(4))
        for first, end in pairwise(pieces):
            loss = critic.own_loss(frames[first:end], real[first:end], step, range(4)[first:end])
            (loss * ((end - first) / 4)).backward()  # type: ignore[no-untyped-call]
        found.append((*gradients(critic), critic.replay.frames.float()))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert torch.allclose(one, two, rtol=1e-4, atol=1e-6)


def test_a_critic_learns_to_tell_and_its_gradient_takes_the_fault_away() -> None:
    """A grid of every fourth column, which students with a linear shortcut show."""
    grid = torch.tensor([0.3, 0.0, 0.0, 0.0]).repeat(4).expand(SHAPE)
    critic = make_critic()
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.0, 0.99))
    for step in range(20):
        real = videos(4, step) / 2
        optimizer.zero_grad()
        critic.own_loss(real + grid, real, step, range(4)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    real = videos(4, 1000) / 2
    made = (real + grid).requires_grad_()
    assert (critic(real) > critic(made)).float().mean() > 0.95
    critic.student_loss(made, real).backward()  # type: ignore[no-untyped-call]
    assert made.grad is not None
    assert functional.cosine_similarity(made.grad.mean(0).flatten(), grid.flatten(), dim=0) > 0.3


def test_the_scores_of_a_sample_are_its_own() -> None:
    """No normalisation over a batch; it has been the downfall of other critics of patches."""
    critic = make_critic()
    together, alone = critic(videos(4, 0)), critic(videos(4, 0)[2:3])
    assert torch.allclose(together[2:3], alone, atol=1e-6)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in critic.modules())


@pytest.mark.parametrize(("size", "patches"), [((1, 8, 8), 1), ((5, 8, 12), 2), ((17, 16, 16), 20)])
def test_frames_of_any_size(size: tuple[int, int, int], patches: int) -> None:
    assert make_critic()(torch.zeros(2, 3, *size)).shape == (2, patches)


def marked(step: int, batch_size: int) -> Tensor:
    """Frames whose values say of what step and place they are."""
    numbers = torch.tensor([step + place / 8 for place in range(batch_size)])
    return numbers.view(-1, 1, 1, 1, 1).expand(-1, *SHAPE)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_about_half_of_what_is_shown_is_earlier(batch_size: int) -> None:
    """From many steps and all places, none of them of the same step, in a store that does not grow."""
    replay = Replay(SHAPE, batch_size, seed=0)
    size, steps, earlier = replay.frames.numel(), 400, []
    for step in range(steps):
        new = marked(step, batch_size)
        shown = replay.mix(new, step, range(batch_size))[:, 0, 0, 0, 0]
        replay.keep(new, step, range(batch_size))
        assert torch.equal(replay.mix(new, step, range(batch_size))[:, 0, 0, 0, 0], shown), "a step may be tried again"
        for place, value in enumerate(shown.tolist()):
            if value != step + place / 8:
                assert value < step
                earlier.append((step - int(value), value % 1))
    ages = [age for age, _ in earlier]
    assert 0.4 < len(earlier) / (steps * batch_size) < 0.6
    assert min(ages) < 8 and 50 < max(ages) < 100
    assert {part for _, part in earlier} == {place / 8 for place in range(batch_size)}
    assert replay.frames.numel() == size
