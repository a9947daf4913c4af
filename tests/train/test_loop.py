"""What the loop promises for any task, on a toy one: two models that learn from each other, one with a batch norm."""

import logging
import os
import signal

import pytest
import torch
from torch import nn

from imtalker import InputError
from imtalker.models.layers import BatchNorm2d
from imtalker.train.loop import Settings, Training
from imtalker.train.runtime import make_fabric


class Toy:
    """A line fitted to y = 3x - 1 through a norm, and a second model that learns from the first; dropout is random."""

    def __init__(self, rate=0.05):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.norm, self.line, self.other = BatchNorm2d(4), nn.Linear(4, 1), nn.Linear(1, 1)
        for value, start in zip((*self.norm.parameters(), *self.norm.buffers()), (1, 0, 0, 1)):
            value.data.fill_(start)
        first = [*self.norm.parameters(), *self.line.parameters()]
        self.both = {
            "first": torch.optim.Adam(first, rate),
            "second": torch.optim.Adam(self.other.parameters(), rate),
        }

    def modules(self):
        return {"norm": self.norm, "line": self.line, "other": self.other}

    def optimizers(self):
        return self.both

    def losses(self, batch):
        x = nn.functional.dropout(batch["x"], 0.1)
        y = self.line(self.norm(x[..., None, None])[..., 0, 0])
        yield "first", {"fit": (y - batch["y"]).square().mean()}
        yield "second", {"copy": (self.other(y.detach()) - y.detach()).abs().mean()}


def batches(step, process, processes):
    while True:
        random = torch.Generator().manual_seed(step * processes + process)
        x = torch.randn(8, 4, generator=random)
        yield {"x": x, "y": 3 * x[:, :1] - 1}
        step += 1


def training(file, steps=20, task=None, watch=None, facts=None, **settings):
    settings = Settings(steps, **{"ema": 0.99, "averaged": ("norm", "line"), "warmup": 3, "end": 0.1, **settings})
    return Training(task or Toy(), batches, file, settings, watch=watch, facts=facts)


def everything(run):
    state = {f"{name}.{key}": v for name, m in run.modules.items() for key, v in m.state_dict().items()}
    return state | {f"average.{name}": value for name, value in run.average.items()}


def assert_same(one, other):
    one, other = everything(one), everything(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_losses_go_down(tmp_path):
    lines = []
    task = Toy(0.1)
    run = training(tmp_path / "a.pt", 120, task, lambda step, means: lines.append(means), log_seconds=0)
    outcome = run.run()
    assert (outcome.step, outcome.finished) == (120, True)
    assert lines[-1]["fit"] < 0.2 * lines[0]["fit"]
    assert lines[-1]["copy"] < 0.5 * lines[0]["copy"]


@pytest.mark.parametrize("stopped_at", [1, 7, 13])
def test_a_stopped_training_resumes_exactly(tmp_path, stopped_at):
    whole = training(tmp_path / "whole.pt")
    whole.run()
    torch.manual_seed(99)  # other random numbers of the process do not matter
    first = training(tmp_path / "parts.pt", watch=lambda step, _: step >= stopped_at, log_seconds=0)
    outcome = first.run()
    assert stopped_at <= outcome.step < 20
    assert not outcome.finished
    second = training(tmp_path / "parts.pt")
    assert second.step == outcome.step
    assert second.run().finished
    assert_same(whole, second)


def test_a_training_killed_in_a_step_resumes_exactly(tmp_path):
    """The interrupted step runs again from the checkpoint before it."""

    class Killed(Toy):
        count = 0

        def losses(self, batch):
            for item in super().losses(batch):
                yield item
                self.count += 1
                if self.count == 11:  # between the two optimisers of a step
                    raise MemoryError("as on a machine that crashes")

    whole = training(tmp_path / "whole.pt")
    whole.run()
    with pytest.raises(MemoryError):
        training(tmp_path / "parts.pt", task=Killed(), save_seconds=0).run()
    rest = training(tmp_path / "parts.pt")
    assert rest.step == 5
    rest.run()
    assert_same(whole, rest)


@pytest.mark.skipif(os.name == "nt", reason="a signal to oneself ends a process on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_after_the_step_with_a_checkpoint(tmp_path, number):
    class Interrupted(Toy):
        def losses(self, batch):
            yield from super().losses(batch)
            if run.step == 4:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    run = training(tmp_path / "a.pt", task=Interrupted())
    outcome = run.run()
    assert (outcome.step, outcome.finished) == (5, False)
    assert signal.getsignal(number) is before
    assert_same(run, training(tmp_path / "a.pt"))


def test_a_finished_training_can_be_extended(tmp_path):
    training(tmp_path / "a.pt", 5).run()
    assert training(tmp_path / "a.pt", 5).run().step == 5, "it is finished"
    assert training(tmp_path / "a.pt", 8).run().step == 8


def test_minutes_are_counted_over_all_runs(tmp_path):
    run = training(tmp_path / "a.pt", None, minutes=0.3 / 60)
    assert run.run().finished
    assert 0.3 <= run.seconds < 3
    again = training(tmp_path / "a.pt", None, minutes=0.3 / 60)
    assert again.run().step == run.step


def test_rates_rise_and_then_fall_along_a_cosine(tmp_path):
    rates = []
    task = Toy(0.5)

    def watch(step, _):
        rates.append(task.both["second"].param_groups[0]["lr"])

    training(tmp_path / "a.pt", 60, task=task, watch=watch, log_seconds=0, warmup=10, end=0.2).run()
    assert rates[:9] == sorted(rates[:9])
    assert rates[0] == pytest.approx(0.05, rel=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[30] == pytest.approx(0.5 * 0.6, rel=0.01)
    assert rates[-1] == pytest.approx(0.5 * 0.2, rel=0.01)


def test_averaged_weights_are_swapped_in_and_out(tmp_path):
    run = training(tmp_path / "a.pt", 30)
    run.run()
    own = run.modules["line"].weight.clone()
    with run.averaged():
        mean = run.modules["line"].weight.clone()
        assert torch.equal(mean, run.average["line.weight"])
    assert torch.equal(run.modules["line"].weight, own)
    assert not torch.equal(mean, own)


def test_averages_follow_quickly_at_first_and_hold_later(tmp_path):
    """The average of a short training must not be its starting weights."""
    run = training(tmp_path / "a.pt", 50, ema=0.9999)
    start = run.average["line.weight"].clone()
    run.run()
    moved = (run.modules["line"].weight - start).norm()
    assert (run.average["line.weight"] - start).norm() > 0.5 * moved


def test_clipping_bounds_the_gradients(tmp_path):
    class Steep(Toy):
        def losses(self, batch):
            for name, parts in super().losses(batch):
                yield name, {key: 1e4 * value for key, value in parts.items()}
                self.norms.append(nn.utils.get_total_norm([p.grad for p in self.line.parameters()]).item())

    task = Steep()
    task.norms = []
    training(tmp_path / "a.pt", task=task, clip=0.5).run()
    assert max(task.norms) <= 0.5 + 1e-4
    assert len(task.norms) == 40


def test_nan_ends_the_training_and_keeps_the_checkpoint(tmp_path):
    training(tmp_path / "a.pt", 5).run()
    before = (tmp_path / "a.pt").read_bytes()

    class Exploding(Toy):
        def losses(self, batch):
            for name, parts in super().losses(batch):
                yield name, {key: value * float("nan") for key, value in parts.items()}

    with pytest.raises(InputError, match="no longer a number at step"):
        training(tmp_path / "a.pt", 10, task=Exploding(), log_seconds=1e9, save_seconds=0).run()
    assert (tmp_path / "a.pt").read_bytes() == before


def test_other_settings_do_not_resume_a_checkpoint(tmp_path):
    training(tmp_path / "a.pt", 5, facts={"batch size": 8, "rate": 0.05}).run()
    with pytest.raises(InputError, match="started with batch size 8, this run has 4"):
        training(tmp_path / "a.pt", 5, facts={"batch size": 4, "rate": 0.05})
    (tmp_path / "b.pt").write_bytes(b"something else")
    with pytest.raises(InputError, match="truncated or not a file"):
        training(tmp_path / "b.pt", 5)
    torch.save({"weights": torch.zeros(3)}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="not a training checkpoint"):
        training(tmp_path / "c.pt", 5)


def test_mixed_precision_trains_and_resumes(tmp_path):
    def run(file, steps):
        fabric = make_fabric("cpu", precision="bf16-mixed")
        return Training(Toy(), batches, file, Settings(steps), fabric)

    whole = run(tmp_path / "whole.pt", 8)
    whole.run()
    run(tmp_path / "parts.pt", 3).run()
    rest = run(tmp_path / "parts.pt", 8)
    rest.run()
    assert whole.modules["line"].weight.dtype == torch.float32
    assert_same(whole, rest)
    exact = training(tmp_path / "exact.pt", 8, warmup=0, end=1.0)
    exact.run()
    assert not torch.equal(exact.modules["line"].weight, whole.modules["line"].weight)


def test_log_lines_show_losses_and_speed(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="imtalker"):
        training(tmp_path / "a.pt", 3).run()
        training(tmp_path / "a.pt", 4)
    assert "step 3  fit " in caplog.text
    assert "steps/s  100 %" in caplog.text
    assert "Resuming at step 3" in caplog.text


def test_a_limit_and_an_existing_device_are_needed(tmp_path):
    with pytest.raises(InputError, match="how long to train"):
        Settings()
    with pytest.raises(InputError, match="Training cannot run on nonsense"):
        make_fabric("nonsense")
