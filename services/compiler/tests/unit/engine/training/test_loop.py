"""The training loop: it learns, the same way each time, within its limits, and says what happened."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.training.data import Batch
from boardwright.compiler.engine.training.loop import judge, train
from boardwright.compiler.engine.training.memory import bytes_per_sample, part_size
from boardwright.compiler.engine.training.options import TrainOptions


class Line(torch.nn.Module):
    """y = w x, to be learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor]:
        return (self.layer(inputs["x"]),)


class Points:
    """Batches of points on the line; ``seen`` counts the epochs that were asked for."""

    def __init__(self, count: int = 5, size: int = 8) -> None:
        self._count, self._size = count, size
        self.stop_in: int | None = None

    def __len__(self) -> int:
        return self._count

    def epoch(self, number: int) -> Iterator[Batch]:
        if number == self.stop_in:
            raise KeyboardInterrupt
        generator = torch.manual_seed(number)
        for _ in range(self._count):
            yield Batch({"x": torch.randn(self._size, 4, generator=generator)}, None)


def error(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    wanted = batch.inputs["x"] @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
    return functional.mse_loss(network(batch.inputs)[0], wanted)


def trained(options: TrainOptions, points: Points | None = None, **more: object) -> tuple[Line, object]:
    network = Line()
    record = train(network, Points() if points is None else points, error, options, **more)
    return network, record


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_learns_and_tells_each_step(optimizer):
    told = []
    options = TrainOptions(
        epochs=30, learning_rate=0.1 if optimizer == "adamw" else 0.02, optimizer=optimizer
    )
    network, record = trained(options, on_step=lambda step, steps, loss: told.append((step, steps)))
    assert told == [(step, 150) for step in range(1, 151)]
    assert record.losses[0] > 1 > 0.05 > record.losses[-1]
    assert record.stopped == "finished"
    assert (record.steps, record.samples) == (150, 1200)
    assert not network.training
    torch.testing.assert_close(network.layer.weight[0], torch.tensor([1.0, -2.0, 0.5, 3.0]), atol=0.1, rtol=0)


def test_the_same_seed_trains_the_same_weights():
    options = TrainOptions(epochs=3, learning_rate=0.1, average=0.9, weight_decay=0.01)
    first, second = trained(options)[0], trained(options)[0]
    assert torch.equal(first.layer.weight, second.layer.weight)


def test_steps_bound_the_epochs_and_the_rate_rises_and_falls():
    """Under a slope of 1 and plain SGD, a weight moves by the rate of each step."""
    network = Line()
    places = [0.0]
    weight = network.layer.weight
    options = TrainOptions(
        epochs=10, steps=8, learning_rate=0.1, warm_up=0.5, optimizer="sgd", momentum=0.0, gradient_clip=0
    )
    record = train(
        network,
        Points(),
        lambda net, batch: 100 + net.layer.weight.sum(),
        options,
        groups=[{"params": [weight], "rate_factor": 2.0}],
        after_step=lambda: places.append(float(weight.detach()[0, 0])),
    )
    assert record.steps == record.steps_planned == 8
    rates = [before - after for before, after in itertools.pairwise(places)]
    assert rates[:5] == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2])
    assert 0 < rates[7] < rates[6] < rates[5] < 0.2


def test_divergence_names_step_rate_and_what_to_do():
    with pytest.raises(
        EngineError, match=r"at step \d+ with the learning rate .* Set learning_rate to 0.01, or"
    ) as caught:
        trained(TrainOptions(epochs=200, learning_rate=50.0, optimizer="sgd", gradient_clip=0))
    assert caught.value.reason == "TRAINING_DIVERGED"


def test_a_loss_that_is_no_number_is_divergence_at_once():
    with pytest.raises(
        EngineError, match=r"At step 0, before .* the loss became nan: no learning_rate helps"
    ) as caught:
        train(Line(), Points(), lambda network, batch: error(network, batch) / 0 * 0, TrainOptions())
    assert caught.value.reason == "TRAINING_DIVERGED"


def test_training_stops_where_nothing_is_gained():
    options = TrainOptions(epochs=50, learning_rate=1e-9, patience=3)
    _, record = trained(options)
    assert record.stopped == "no-progress"
    assert record.steps < 250


def test_a_time_limit_ends_training_and_the_record_says_so():
    _, record = trained(TrainOptions(epochs=50, time_limit_seconds=1e-9))
    assert record.stopped == "time-limit"
    assert record.steps == 1
    assert "after 1 of 250 steps" in record.notes[0]


def test_interrupted_training_goes_on_to_the_same_result(tmp_path):
    options = TrainOptions(epochs=6, learning_rate=0.1, average=0.9)
    whole, told = trained(options)
    points = Points()
    points.stop_in = 4
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        trained(options, points, state_file=state)
    resumed, record = trained(options, state_file=state)
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
    assert 1 <= record.resumed_after <= 4
    assert f"went on after epoch {record.resumed_after} " in record.interruption
    assert record.describe() == told.describe()
    assert trained(TrainOptions(epochs=2), state_file=state)[1].resumed_after is None
    state.write_bytes(state.read_bytes()[:1000])
    assert trained(options, state_file=state)[1].describe() == told.describe()
    torch.save(["something else"], state)
    assert trained(options, state_file=state)[1].describe() == told.describe()


def test_a_state_of_which_a_bit_has_changed_is_begun_anew(tmp_path):
    """torch reads it without a word, to other weights."""
    state = tmp_path / "state"
    options = TrainOptions(epochs=2, learning_rate=0.1)
    trained(options, state_file=state)
    assert trained(options, state_file=state)[1].resumed_after is not None
    written = bytearray(state.read_bytes())
    saved = bytes(written[32:])
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/0"))
        weights = archive.read(name)
    written[32 + saved.index(weights)] ^= 1
    state.write_bytes(written)
    torch.load(io.BytesIO(written[32:]), weights_only=True)
    assert trained(options, state_file=state)[1].resumed_after is None


def test_what_learns_beside_the_network_goes_on_too(tmp_path):
    """An adapter is in a group of the optimizer and not in the network."""

    def learnt(points: Points, **more: object) -> tuple[Line, object]:
        network, adapter = Line(), torch.nn.Parameter(torch.ones(1))
        groups = [{"params": list(network.parameters())}, {"params": [adapter], "rate_factor": 10.0}]
        options = TrainOptions(epochs=4, learning_rate=0.1)
        train(network, points, lambda net, batch: error(net, batch) * adapter.square(), options,
              groups=groups, **more)  # fmt: skip
        return network, adapter

    points = Points()
    points.stop_in = 2
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        learnt(points, state_file=state)
    (network, adapter), (whole, told) = learnt(Points(), state_file=state), learnt(Points())
    assert torch.equal(adapter, told) and adapter.item() != 1
    assert torch.equal(network.layer.weight, whole.layer.weight)


def test_a_state_that_cannot_be_written_does_not_stop_training(tmp_path, caplog):
    network, _ = trained(TrainOptions(epochs=3, learning_rate=0.1), state_file=tmp_path / "nowhere" / "state")
    assert torch.equal(
        network.layer.weight, trained(TrainOptions(epochs=3, learning_rate=0.1))[0].layer.weight
    )
    assert caplog.text.count("interrupted, it would start over") == 1


def test_a_batch_in_parts_learns_what_the_whole_does():
    options = TrainOptions(epochs=2, learning_rate=0.1)
    network = Line()
    batch = next(Points().epoch(0))
    each = bytes_per_sample(network, batch, error)
    assert each > 0
    memory = int(each * 1.6 * 3.5) + 4 * 4 * 5
    assert part_size(network, batch, error, memory) == 3
    whole, _ = trained(options)
    parts, record = trained(options, memory_bytes=memory)
    assert record.part_samples == 3
    assert "computed 3 samples at a time" in record.notes[0]
    torch.testing.assert_close(parts.layer.weight, whole.layer.weight)
    with pytest.raises(EngineError, match="Use a smaller network or input size") as caught:
        part_size(network, batch, error, 4 * 4 * 5)
    assert caught.value.reason == "MEMORY_TOO_SMALL"


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(DatasetUnfit, match="no sample to train with"):
        trained(TrainOptions(), Points(0))
    frozen = Line().requires_grad_(False)
    with pytest.raises(EngineError) as caught:
        train(frozen, Points(), error, TrainOptions())
    assert caught.value.reason == "TRAINING_NOTHING"


def test_an_average_keeps_to_what_was_learnt():
    options = TrainOptions(epochs=30, learning_rate=0.1, average=0.9)
    network, _ = trained(options)
    assert judge(network, Points(), error) < 0.05


def test_frozen_batch_norms_keep_their_statistics():
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    wrapped = lambda net, batch: net(batch.inputs["x"]).square().mean()  # noqa: E731
    train(network, Points(), wrapped, TrainOptions(epochs=1, freeze_batch_norm=True))
    assert network[0].running_mean.abs().max() == 0
    train(network, Points(), wrapped, TrainOptions(epochs=1))
    assert network[0].running_mean.abs().max() > 0


def test_held_out_batches_choose_the_weights_and_training_goes_back_to_them():
    """Rates at which epochs overshoot: each that does worse is left for the best, with a smaller rate."""
    network = Line()
    options = TrainOptions(
        epochs=6, learning_rate=1.2, warm_up=0.0, final_learning_rate=1.0, optimizer="sgd", momentum=0.0,
        gradient_clip=0, diverged_factor=1e9,
    )  # fmt: skip
    record = train(network, Points(), error, options, held_out=Points(2))
    assert len(record.judged) == 7
    assert record.went_back >= 1
    assert record.kept_epoch == min(range(7), key=record.judged.__getitem__)
    assert judge(network, Points(2), error) == pytest.approx(min(record.judged))
    assert record.judged[-1] < record.judged[0] / 2


def test_weights_that_no_epoch_improves_are_left_as_they_were():
    network = Line()
    with torch.no_grad():
        network.layer.weight.copy_(torch.tensor([[1.0, -2.0, 0.5, 3.0]]))
    options = TrainOptions(epochs=3, learning_rate=0.05, average=0.9)
    record = train(network, Points(), error, options, held_out=Points(2))
    assert record.kept_epoch == 0
    assert torch.equal(network.layer.weight.detach()[0], torch.tensor([1.0, -2.0, 0.5, 3.0]))
    assert "No epoch did better on the held-out samples" in record.notes[-1]
    assert record.describe()["judged"][0] == 0


def test_patience_waits_for_held_out_batches_where_there_are_any():
    """What is trained on grows better all the time, and what judges grows worse."""

    class Other(Points):
        def epoch(self, number: int) -> Iterator[Batch]:
            for batch in super().epoch(number):
                yield Batch({"x": -2 * batch.inputs["x"].abs() - 1}, batch.labels)

    def one_sided(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        made = network(batch.inputs)[0]
        return (made - 1).square().mean() if bool((batch.inputs["x"] > 0).any()) else made.square().mean()

    record = train(
        Line(),
        Points(),
        one_sided,
        TrainOptions(epochs=40, learning_rate=0.01, patience=2),
        held_out=Other(2),
    )
    assert record.stopped == "no-progress"
    assert record.kept_epoch == 0
    assert len(record.losses) == 2


def test_interrupted_training_remembers_what_did_best(tmp_path):
    options = TrainOptions(epochs=6, learning_rate=0.9, optimizer="sgd", momentum=0.0, gradient_clip=0,
                           warm_up=0.0, diverged_factor=1e9)  # fmt: skip
    whole = Line()
    told = train(whole, Points(), error, options, held_out=Points(2))
    points = Points()
    points.stop_in = 4
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train(Line(), points, error, options, held_out=Points(2), state_file=state)
    resumed = Line()
    record = train(resumed, Points(), error, options, held_out=Points(2), state_file=state)
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
    assert (record.judged, record.kept_epoch, record.went_back) == (
        told.judged, told.kept_epoch, told.went_back,
    )  # fmt: skip


class Normed(torch.nn.Module):
    """A line behind a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.line = torch.nn.BatchNorm1d(4), Line()

    def forward(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor]:
        made: tuple[torch.Tensor] = self.line({"x": self.norm(inputs["x"])})
        return made


class Uneven(Points):
    """A batch of four, and one of the sample that is left."""

    def epoch(self, number: int) -> Iterator[Batch]:
        for batch in super().epoch(number):
            yield next(batch.parts(4))
            yield next(batch.parts(1))


def test_a_last_batch_of_one_sample_leaves_batch_norms_their_statistics():
    network = Normed()
    record = train(network, Uneven(1), error, TrainOptions(epochs=2, learning_rate=0.01))
    assert record.steps == 1 * 2  # what an epoch says it has
    assert torch.isfinite(network.norm.running_var).all()
    alone = Normed()
    train(alone, Points(3, 1), error, TrainOptions(epochs=1, learning_rate=0.01))
    assert alone.norm.running_mean.abs().max() == 0


def test_parts_of_a_batch_are_said_to_differ_where_batch_norms_see_them():
    network = Normed()
    batch = next(Points().epoch(0))
    memory = int(bytes_per_sample(network, batch, error) * 1.6 * 3.5) + 4 * 4 * 13
    record = train(network, Points(1), error, TrainOptions(epochs=1), memory_bytes=memory)
    assert record.part_samples
    assert "batch norms take their statistics from these alone" in record.notes[0]
