"""The training loop against a plain one, killed and resumed, out of memory, and gone wrong.

Run as a script, it is the process that is killed: python tests/test_training.py FOLDER SEED
"""

import contextlib
import copy
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import environment
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cxrlib.core import atomic
from cxrlib.predict import training
from cxrlib.predict.training import Settings, fit, needed_memory, state_hash, trained_state

CLASSES, WIDTH = 3, 8
EVERY = Settings(epochs=6, batch=8, learning_rate=0.03)
TRAIN, VALID = torch.arange(30), torch.arange(30, 50)


def data(n=50, seed=0):
    """Classes that can be learnt in part; the first column is the position of the image."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(0, CLASSES, (n,), generator=draw)
    x = F.one_hot(y + 1, WIDTH) + 0.7 * torch.randn(n, WIDTH, generator=draw)
    x[:, 0] = torch.arange(n)
    return x, y


class Standardised(nn.Module):
    """The first column is no feature."""

    def forward(self, x):
        return x[:, 1:]


def mlp(seed=0, width=WIDTH, norm=True):
    """With BatchNorm and dropout, or with neither."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        between = [nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3)] if norm else [nn.GELU()]
        return nn.Sequential(
            Standardised(), nn.Linear(width - 1, 16), *between, nn.Linear(16, CLASSES)
        )


def train(network, settings=EVERY, seed=0, folder=None, **options):
    x, y = data()
    options = {"fingerprint": "one", **options}
    return fit(network, x, y, TRAIN, VALID, settings, seed, folder, **options)


def weights(network):
    return state_hash(trained_state(network))


@pytest.fixture(scope="module")
def uninterrupted():
    network = mlp()
    done = train(network)
    # Else no test of the best weights below could fail.
    assert 2 < done.best_epoch < EVERY.epochs
    return done, weights(network)


def same(done, network, uninterrupted):
    """Whether a run ended as the uninterrupted one, its timing apart."""
    expected, state = uninterrupted
    pd.testing.assert_frame_equal(
        done.history.drop(columns="seconds"), expected.history.drop(columns="seconds")
    )
    return done.best_epoch == expected.best_epoch and weights(network) == state


def seen_by(network):
    """A list that gathers (training?, input) of each pass."""
    seen = []
    network.register_forward_pre_hook(lambda m, args: seen.append((m.training, args[0].clone())))
    return seen


# --- the loop itself ---


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ten_steps_are_those_of_a_plain_loop(smoothing):
    """Five epochs of a batch of 8 and one of 6, in the order in which the images came."""
    x, y = data()
    settings = Settings(5, 8, 0.1, weight_decay=0.1, label_smoothing=smoothing)
    network = mlp(norm=False)
    plain, seen = copy.deepcopy(network), seen_by(network)
    part, valid = TRAIN[:14], VALID
    done = fit(network, x, y, part, valid, settings, seed=3)

    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    batches = [batch[:, 0].long() for training_pass, batch in seen if training_pass]
    assert [len(b) for b in batches] == [8, 6] * 5
    states, rows = [], []
    for epoch in range(5):
        losses = []
        plain.train()
        for batch in batches[2 * epoch : 2 * epoch + 2]:
            each = F.cross_entropy(
                plain(x[batch]), y[batch], reduction="none", label_smoothing=smoothing
            )
            optimizer.zero_grad()
            each.mean().backward()
            optimizer.step()
            schedule.step()
            losses += each.tolist()
        plain.eval()
        with torch.no_grad():
            score = plain(x[valid])
        right = (score.argmax(1) == y[valid]).float().mean().item()
        rows.append((sum(losses) / 14, F.cross_entropy(score, y[valid]).item(), right))
        states.append(copy.deepcopy(plain.state_dict()))

    expected = pd.DataFrame(rows, columns=["train_loss", "valid_loss", "valid_accuracy"])
    pd.testing.assert_frame_equal(done.history[list(expected)], expected, rtol=0, atol=1e-6)
    best = expected["valid_loss"].idxmin()
    assert best < 4 and done.best_epoch == best + 1
    torch.testing.assert_close(dict(network.state_dict()), dict(states[best]), rtol=0, atol=1e-6)
    assert not network.training


def test_a_head_has_a_rate_of_its_own():
    """Both rates at once are those of one run with the encoder's and of one with the head's."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower, self.head = nn.Linear(WIDTH, 4), nn.Linear(4, CLASSES)

        def forward(self, x):
            return self.head(self.tower(x))

    torch.default_generator.manual_seed(0)
    start, rates = Two(), []
    moved = {}
    hook = register_optimizer_step_pre_hook(
        lambda o, *_: rates.append([group["lr"] for group in o.param_groups])
    )
    for slow, fast in ((0.01, 0.05), (0.01, None), (0.05, None)):
        network = copy.deepcopy(start)
        one_step = Settings(1, 30, slow, fast)
        train(network, one_step, fingerprint=f"{slow} {fast}")
        moved[slow, fast] = network.state_dict()
    hook.remove()
    assert rates == [[0.01, 0.05], [0.01], [0.05]]
    for name, tensor in moved[0.01, 0.05].items():
        alone = moved[(0.05 if name.startswith("head") else 0.01), None]
        assert torch.equal(tensor, alone[name])
        assert not torch.equal(tensor, start.state_dict()[name])


def test_every_image_once_an_epoch_in_an_order_of_its_own():
    orders = {}
    for seed in (0, 1):
        seen = seen_by(network := mlp(norm=False))
        train(network, Settings(epochs=2, batch=8), seed)
        passed = torch.cat([batch[:, 0] for training_pass, batch in seen if training_pass])
        orders |= {(seed, epoch): passed[30 * epoch : 30 * epoch + 30].tolist() for epoch in (0, 1)}
    assert all(sorted(order) == list(range(30)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4


def test_one_image_left_over_joins_the_batch_before():
    """BatchNorm refuses a batch of one, and no image is dropped."""
    x, y = data()
    seen = seen_by(network := mlp())
    fit(network, x, y, TRAIN[:17], VALID, Settings(epochs=1, batch=8), 0)
    passed = [batch[:, 0].long() for training_pass, batch in seen if training_pass]
    assert [len(p) for p in passed] == [8, 9]
    assert sorted(torch.cat(passed).tolist()) == list(range(17))


def test_the_rate_of_every_step_is_the_cosine():
    rates = []
    hook = register_optimizer_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    try:
        train(mlp())
    finally:
        hook.remove()
    steps = 6 * 4
    assert rates == pytest.approx(
        [0.03 / 2 * (1 + math.cos(math.pi * i / steps)) for i in range(steps)], rel=1e-12
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for rate in rates:
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_what_does_not_ask_for_a_gradient_stays():
    network = mlp()
    network[1].requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    train(network)
    moved = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {n for n in before if not n.startswith("1.")}


def test_draws_outside_go_on_as_if_nothing_had_been():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(mlp(), Settings(epochs=1, augment=False))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ZeroDivisionError):
        train(mlp(), report=lambda *_: 1 / 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_drawn_outside_changes_nothing(uninterrupted):
    torch.manual_seed(8)
    network = mlp()
    assert same(train(network), network, uninterrupted)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"epochs": 0}, "epochs=0: expected a whole number, 1 or more"),
        ({"epochs": True}, "epochs=True"),
        ({"batch": 2.0}, "batch=2.0"),
        ({"rank": -1}, "rank=-1"),
        ({"learning_rate": 0}, "learning_rate=0: expected a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"learning_rate": math.inf}, "learning_rate=inf"),
        ({"learning_rate": "0.1"}, "learning_rate='0.1'"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: expected a number, 0 or more"),
        ({"label_smoothing": 1}, "label_smoothing=1: expected a number from 0 to below 1"),
        ({"augment": "no"}, "augment='no': expected True or False"),
        ({"split_batches": 1}, "split_batches=1"),
        ({"precision": "int8"}, "precision='int8': expected one of float32, bfloat16, float16"),
    ],
)
def test_bad_settings_are_refused(bad, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(**bad)


# --- killed and resumed ---

KILLS = (
    "in a step",
    "before last.pt",
    "half of last.pt",
    "half of the best",
    "after the last last.pt",
    "",
)


def killed(folder, where, seed):
    """Train in a folder and die there; with no place named, whoever started this kills it."""
    rng = random.Random(f"{seed} {where}")
    network, epoch = mlp(), rng.randint(2, 3)  # both improve on the epoch before

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def at_call(number, act, otherwise=lambda *_: None):
        calls = []

        def called(*args):
            calls.append(1)
            return (act if len(calls) == number else otherwise)(*args)

        return called

    def half(write):
        def written(what, path):
            write(what, path)
            os.truncate(path, path.stat().st_size // 2)
            die()

        return written

    if where == "in a step":  # 4 of training and 3 of validation an epoch
        network.register_forward_pre_hook(at_call(rng.randint(8, 42), die))
    elif where == "before last.pt":
        torch.save = at_call(epoch, die, torch.save)
    elif where == "half of last.pt":
        torch.save = at_call(epoch, half(torch.save), torch.save)
    elif where == "half of the best":
        training.save_file = at_call(epoch, half(training.save_file), training.save_file)
    elif where == "after the last last.pt":  # before the history
        atomic.write = at_call(EVERY.epochs, die, atomic.write)
    else:
        network.register_forward_pre_hook(lambda *_: time.sleep(0.005))
    train(network, folder=folder)


def kill_all(folder, seed):
    """Each place in a process of its own, forked before torch has threads."""
    for where in KILLS:
        child = os.fork()
        if not child:
            killed(folder / (where or "anywhere"), where, seed)
            os._exit(0)
        if not where:
            time.sleep(random.Random(seed).uniform(0.02, 0.15))
            os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, where


@pytest.fixture(scope="module")
def graveyard(tmp_path_factory):
    folder, seed = tmp_path_factory.mktemp("killed"), random.SystemRandom().randrange(10**6)
    print(f"places of the kills: seed {seed}")  # shown if a test fails
    command = [sys.executable, __file__, str(folder), str(seed)]
    subprocess.run(command, env=environment(), check=True, timeout=120)
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("where", KILLS)
def test_killed_and_resumed_is_uninterrupted(graveyard, where, uninterrupted):
    """With dropout and BatchNorm, to the same bits; what has its name is whole."""
    folder = graveyard / (where or "anywhere")
    if (last := folder / "last.pt").exists():
        epochs = len(torch.load(last, weights_only=True)["history"])
    else:
        epochs = 0
    for best in folder.glob("best-*"):
        load_file(best)
    if where:
        assert epochs == EVERY.epochs if "after" in where else 1 <= epochs < EVERY.epochs
    network, rows = mlp(), []
    done = train(network, folder=folder, report=lambda row, _: rows.append(row["epoch"]))
    assert rows == list(range(epochs + 1, EVERY.epochs + 1))
    assert same(done, network, uninterrupted)
    best = f"best-{done.best_epoch}.safetensors"
    assert {p.name for p in folder.iterdir()} == {"last.pt", "history.csv", best}
    assert state_hash(load_file(folder / best)) == weights(network)
    kept = pd.read_csv(folder / "history.csv")
    pd.testing.assert_frame_equal(kept, done.history)


def stopped(settings, folder, epoch, device="cpu"):
    """A run that ends after an epoch, resumed; and the same in one go: (resumed, uninterrupted)."""

    def stop(row, _):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(mlp().to(device), settings, folder=folder, report=stop)
    resumed, whole = mlp(seed=99).to(device), mlp().to(device)  # where it starts does not matter
    return (train(resumed, settings, folder=folder), resumed), (train(whole, settings), whole)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_resumes_to_the_same_bits(precision, tmp_path, uninterrupted):
    settings = Settings(6, 8, 0.03, precision=precision)
    resumed, whole = stopped(settings, tmp_path, 3)
    assert same(*resumed, (whole[0], weights(whole[1])))
    loss = whole[0].history["valid_loss"]
    full = uninterrupted[0].history["valid_loss"]
    assert loss.tolist() == pytest.approx(full.tolist(), abs=0.05)
    assert loss.tolist() != full.tolist()  # it was used
    assert next(whole[1].parameters()).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_on_a_gpu_a_run_resumes(precision, tmp_path):
    """Not to the same bits: a GPU adds up in any order."""
    before = torch.cuda.get_rng_state()
    settings = Settings(6, 8, 0.03, precision=precision)
    (resumed, a), (whole, b) = stopped(settings, tmp_path, 3, "cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.testing.assert_close(trained_state(a), trained_state(b), rtol=1e-3, atol=1e-3)
    assert resumed.history["valid_loss"].tolist() == pytest.approx(
        whole.history["valid_loss"].tolist(), abs=1e-3
    )


def test_steps_that_overflow_float16_are_skipped_and_the_scale_resumes(tmp_path):
    """Gradients that are infinite under the first scale of 65536 are no lost loss."""
    x, y = data()
    settings = Settings(2, 8, 1e-3, precision="float16")

    def last(name, report=None):
        run = (mlp(norm=False), 100 * x, y, TRAIN, VALID, settings, 0, tmp_path / name, "one")
        with contextlib.suppress(KeyboardInterrupt):
            fit(*run, report)
        return torch.load(tmp_path / name / "last.pt", weights_only=True)

    whole = last("whole")
    skipped = math.log2(65536 / whole["scaler"]["scale"])  # it is halved each time
    assert skipped > 0
    assert {int(s["step"]) for s in whole["optimizer"]["state"].values()} == {8 - skipped}

    def stop(*_):
        raise KeyboardInterrupt

    assert len(last("stopped", stop)["history"]) == 1
    resumed = last("stopped")
    assert resumed["scaler"] == whole["scaler"]
    assert state_hash(resumed["weights"]) == state_hash(whole["weights"])


# --- checkpoints that are not taken ---


def test_a_finished_run_gives_its_weights_again(tmp_path, uninterrupted):
    train(mlp(), folder=tmp_path)
    network = mlp(seed=99)
    again = train(network, folder=tmp_path, report=lambda *_: pytest.fail("trained again"))
    assert same(again, network, uninterrupted) and not network.training


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    train(mlp(), folder=tmp_path)
    held = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"last\.pt is of another run .*name another folder"):
        train(mlp(), folder=tmp_path, fingerprint="two")
    with pytest.raises(ValueError, match=r"last\.pt does not fit the network"):
        train(nn.Sequential(Standardised(), nn.Linear(7, CLASSES)), folder=tmp_path)
    assert held == {p: p.read_bytes() for p in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("name", "left"),
    [(n, lambda b: b[: len(b) // 2]) for n in ("last.pt", "best-*")]
    + [(n, lambda _: b"a note") for n in ("last.pt", "best-*")]
    + [(n, lambda _: b"") for n in ("last.pt", "best-*")]
    + [("best-*", None)],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, name, left):
    """Cut short, overwritten, emptied; or the best weights are gone."""
    train(mlp(), Settings(epochs=2, batch=8), folder=tmp_path)
    path = next(tmp_path.glob(name))
    whole = path.read_bytes()
    path.unlink()
    if left:
        path.write_bytes(left(whole))
    with pytest.raises(ValueError, match=f"{path.name} cannot be read .*: remove its folder") as e:
        train(mlp(), Settings(epochs=2, batch=8), folder=tmp_path)
    assert "\n" not in str(e.value)


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"fingerprint": "one", "harm": Harm(tmp_path / "harm")}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt cannot be read"):
        train(mlp(), folder=tmp_path)
    assert not (tmp_path / "harm").exists()


# --- what goes wrong ---


def spoilt(network, at, value, training_pass=True):
    """The network gives a value that is no number in one of its passes."""
    passes = []

    def hook(module, _, logits):
        passes.extend([1] * (module.training is training_pass))
        spoil = module.training is training_pass and len(passes) == at
        return logits * value if spoil else logits

    return network.register_forward_hook(hook)


def test_a_loss_that_is_no_number_stops_and_the_last_good_epoch_stays(tmp_path, uninterrupted):
    network = mlp()
    spoilt(network, 10, math.nan)  # of 4 an epoch
    message = (
        r"loss at step 10 of 24 \(epoch 3\) is nan; the last good checkpoint is that of epoch 2 in "
        rf"{re.escape(str(tmp_path))}; start another run with learning_rate below 0\.03$"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(network, folder=tmp_path)
    kept = torch.load(tmp_path / "last.pt", weights_only=True)
    assert len(kept["history"]) == 2
    assert all(t.isfinite().all() for t in kept["weights"].values())
    # Another rate is another run, which this folder does not take; the cause gone, it goes on.
    with pytest.raises(ValueError, match="of another run"):
        train(mlp(), Settings(6, 8, 0.01), folder=tmp_path, fingerprint="rate 0.01")
    network = mlp()
    assert same(train(network, folder=tmp_path), network, uninterrupted)


def test_a_lost_loss_without_a_good_checkpoint_says_so():
    network = mlp()
    spoilt(network, 2, math.inf)
    with pytest.raises(FloatingPointError, match=r"step 2 of 24.* no good checkpoint before it"):
        train(network)
    network = mlp()
    spoilt(network, 5, math.nan)
    with pytest.raises(FloatingPointError, match=r"epoch was 1, of which nothing is kept on disk"):
        train(network)
    with pytest.raises(FloatingPointError, match=r"learning_rate below 1e\+30 or precision='float"):
        train(mlp(norm=False), Settings(6, 8, 1e30, precision="bfloat16"))


def test_a_lost_validation_loss_is_never_a_checkpoint(tmp_path):
    network = mlp()
    spoilt(network, 4, math.nan, training_pass=False)  # of 3 an epoch
    with pytest.raises(FloatingPointError, match=r"validation loss \(epoch 2\) is nan.*epoch 1 in"):
        train(network, folder=tmp_path)
    assert len(torch.load(tmp_path / "last.pt", weights_only=True)["history"]) == 1


class Small(nn.Module):
    """A network on a device with room for so many training images."""

    def __init__(self, network, room, error):
        super().__init__()
        self.network, self.room, self.error = network, room, error
        self.sizes = []

    def forward(self, x):
        if self.training:
            self.sizes.append(len(x))
            if len(x) > self.room:
                self.error()
        return self.network(x)


def gpu_full():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def cpu_full():
    torch.empty(2**50)  # four million gigabytes


@pytest.mark.parametrize("error", [gpu_full, cpu_full])
def test_out_of_memory_says_what_to_change(error):
    message = (
        r"with 8 images at once: set split_batches=True .*, or recompute=True .*, or "
        r"precision='bfloat16', or lower batch \(now 8\)"
    )
    with pytest.raises(MemoryError, match=message):
        train(Small(mlp(norm=False), 7, error))
    with pytest.raises(MemoryError, match=r"with 1 images at once: recompute=True"):
        train(Small(mlp(norm=False), 0, error), Settings(batch=8, split_batches=True))


@pytest.mark.parametrize("error", [gpu_full, cpu_full])
def test_split_batches_give_the_same_weights(error, tmp_path):
    settings = Settings(6, 8, 0.03, label_smoothing=0.1, split_batches=True)
    whole, small = mlp(norm=False), Small(mlp(norm=False), 4, error)
    expected = train(whole, settings)
    done = train(small, settings, folder=tmp_path)
    torch.testing.assert_close(
        trained_state(small.network), trained_state(whole), rtol=0, atol=1e-5
    )
    assert done.history["train_loss"].tolist() == pytest.approx(
        expected.history["train_loss"].tolist(), abs=1e-5
    )
    # Once halved it stays so: in this run, and when it is resumed.
    epoch = [4, 4, 4, 4, 4, 4, 4, 2]
    assert small.sizes == [8, *6 * epoch]
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert last["at_once"] == 4
    small.sizes.clear()
    last |= {"history": last["history"][:5], "best_epoch": done.best_epoch}
    torch.save(last, tmp_path / "last.pt")
    train(small, settings, folder=tmp_path)
    assert small.sizes == epoch


def test_out_of_memory_in_validation_is_said_too():
    network = mlp()

    def full(module, _):
        if not module.training:
            gpu_full()

    network.register_forward_pre_hook(full)
    with pytest.raises(MemoryError, match=r"lower batch \(now 8\)"):
        train(network)


def test_another_error_passes_through():
    network = nn.Linear(WIDTH + 1, CLASSES)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(network, Settings(batch=8, split_batches=True))


# --- augmentation ---


def blobs(side=48):
    """An image of three blobs of 1, 2 and 3, at x, y = -0.5, -0.3; 0.4, -0.2; 0, 0.5, on -1."""
    at = torch.linspace(-1, 1, side)
    image = torch.full((side, side), -1.0)
    for height, (x, y) in enumerate(((-0.5, -0.3), (0.4, -0.2), (0.0, 0.5)), start=1):
        image += height * torch.exp(-((at - x) ** 2 + (at[:, None] - y) ** 2) / (2 * 0.06**2))
    return image.expand(3, side, side)


def centres(images):
    """Where the blobs are: (n, 3, 2), from the moments of what is near each."""
    at = torch.linspace(-1, 1, images.shape[-1])
    found = []
    for x, y in ((-0.5, -0.3), (0.4, -0.2), (0.0, 0.5)):
        near = ((at - x).abs() < 0.32) & ((at[:, None] - y).abs() < 0.32)
        mass = (images[:, 0] + 1) * near
        total = mass.sum((1, 2))
        found.append(torch.stack([(mass * at).sum((1, 2)), (mass * at[:, None]).sum((1, 2))], 1))
        found[-1] /= total[:, None]
    return torch.stack(found, dim=1)


def test_augmentation_turns_shifts_and_scales_within_its_range():
    """Measured on three blobs: their triangle keeps its shape and its sense, never a mirror's."""
    torch.manual_seed(0)
    image = blobs()
    moved = training.shifted(image.expand(200, 3, 48, 48))
    assert moved.shape == (200, 3, 48, 48)
    assert moved.min() >= image.min() and moved.max() <= image.max()
    before, after = centres(image[None]), centres(moved)
    assert (after[:, 0, 0] < 0).all() and (after[:, 1, 0] > 0).all()  # left stays left
    side = [torch.view_as_complex((c[:, 1] - c[:, 0]).contiguous()) for c in (before, after)]
    change = side[1] / side[0]  # a turn and a scale
    other = [torch.view_as_complex((c[:, 2] - c[:, 0]).contiguous()) for c in (before, after)]
    torch.testing.assert_close(other[1] / other[0], change, rtol=0, atol=0.02)
    turn, scale = change.angle().rad2deg().abs(), change.abs()
    assert 4 < turn.max() < 5.5
    assert 0.94 < scale.min() < 0.96 and 1.04 < scale.max() < 1.06
    middle = torch.view_as_complex(after.mean(1)) - change * torch.view_as_complex(before.mean(1))
    assert 0.08 < middle.real.abs().max() < 0.11  # 5 % of a width of 2
    assert 0.08 < middle.imag.abs().max() < 0.11


def test_training_images_alone_are_augmented_and_only_when_asked():
    x = blobs(16).repeat(12, 1, 1, 1) + torch.arange(12)[:, None, None, None]
    y = torch.arange(12) % CLASSES
    hashes = []
    for augment in (False, True, True):
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)
            network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, CLASSES))
        seen = seen_by(network)
        settings = Settings(epochs=2, batch=4, augment=augment)
        fit(network, x, y, torch.arange(8), torch.arange(8, 12), settings, 0)
        changed = [not any(torch.equal(i, j) for j in x) for t, b in seen if t for i in b]
        assert changed == [augment] * 16
        assert all(torch.equal(b, x[8:]) for t, b in seen if not t)
        hashes.append(weights(network))
    assert hashes[0] != hashes[1] == hashes[2]
    assert Settings().augment is False


# --- memory, counted ---

FLOAT = 4


def test_memory_of_a_linear_layer_in_closed_form():
    layer, x = nn.Linear(10, 4), torch.randn(100, 10)
    size, saved = 10 * 4 + 4, 32 * 10
    expected = FLOAT * (4 * size + saved)  # itself, gradient and two moments
    assert needed_memory(layer, x[40:72]) == expected  # though it shares memory with all of x
    assert needed_memory(layer, x[:1].expand(32, 10)) == expected  # or with itself
    layer.weight.requires_grad_(False)  # the input is needed for its gradient alone
    assert needed_memory(layer, x[:32]) == FLOAT * (size + 3 * 4)


def test_memory_of_an_mlp_in_closed_form():
    """ReLU and the layer after it keep one tensor: counted once. BatchNorm keeps statistics."""
    n, x = 32, torch.randn(32, 10)
    network = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 4))
    parameters = 10 * 16 + 16 + 16 * 4 + 4
    assert needed_memory(network, x) == FLOAT * (4 * parameters + n * (10 + 16))
    network.insert(1, nn.BatchNorm1d(16))
    parameters += 2 * 16
    buffers = FLOAT * 2 * 16 + 8  # mean, variance, and an int64 count
    saved = n * (10 + 16 + 16) + 2 * 16
    assert needed_memory(network, x) == FLOAT * (4 * parameters + saved) + buffers


def test_tied_weights_are_counted_once():
    first = nn.Linear(6, 6, bias=False)
    network = nn.Sequential(first, nn.Linear(6, 6, bias=False))
    network[1].weight = first.weight
    assert needed_memory(network, torch.randn(5, 6)) == FLOAT * (4 * 36 + 2 * 5 * 6)


def test_counting_leaves_everything_as_it_was():
    network, x = mlp(), torch.randn(8, WIDTH)
    network[2].eval()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    needed_memory(network, x)
    needed_memory(network.train(), x)
    assert network.training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in network.parameters())


if __name__ == "__main__":
    kill_all(Path(sys.argv[1]), sys.argv[2])
