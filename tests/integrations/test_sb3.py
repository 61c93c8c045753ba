"""`TrackingCallback` with the real Stable-Baselines3."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

stable_baselines3 = pytest.importorskip("stable_baselines3")
gymnasium = pytest.importorskip("gymnasium")
torch = pytest.importorskip("torch")

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402

import runstone  # noqa: E402
from runstone_integrations.sb3 import TrackingCallback  # noqa: E402


def make_model(**options: Any) -> Any:
    common: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 1, "seed": 0, "device": "cpu"}
    small = {"net_arch": [4]}
    return stable_baselines3.PPO("MlpPolicy", "CartPole-v1", policy_kwargs=small, **{**common, **options})


def read(tracker: TrackingCallback) -> runstone.RunInfo:
    assert tracker.run is not None
    return runstone.open_workspace().run(tracker.run.id)


def steps(info: runstone.RunInfo, name: str) -> list[int]:
    return info.series(name).step.tolist()


class Ask(BaseCallback):  # type: ignore[misc]
    """Asks the run to stop at a time step, as a sweep does."""

    def __init__(self, tracker: TrackingCallback, at: int, word: str) -> None:
        super().__init__()
        self.tracker, self.at, self.word = tracker, at, word

    def _on_step(self) -> bool:
        if self.num_timesteps == self.at:
            runstone.open_workspace().request_stop(self.tracker.run.id, self.word)  # type: ignore[union-attr,arg-type]
        return True


def test_what_the_logger_gets_stands_at_the_time_steps() -> None:
    tracker = TrackingCallback(project="toy", params={"mine": 1})
    env = Monitor(gymnasium.make("CartPole-v1"))
    evaluation = EvalCallback(env, eval_freq=50, n_eval_episodes=1, verbose=0)
    make_model().learn(96, callback=[tracker, evaluation], log_interval=1)
    info = read(tracker)
    assert (info.status, info.project, info.params["mine"]) == ("finished", "toy", 1)
    assert steps(info, "rollout/ep_rew_mean") == [32, 64, 96]
    assert steps(info, "train/loss") == [50, 96]  # of the update before, when the logger is emptied the next time
    assert steps(info, "eval/mean_reward") == [50]
    assert info.series("time/total_timesteps").value.tolist()[-1] == 96


def test_settings_of_the_algorithm_are_params() -> None:
    tracker = TrackingCallback()
    make_model(learning_rate=0.01).learn(32, callback=tracker)
    told = read(tracker).params["sb3"]
    assert (told["params"]["learning_rate"], told["params"]["n_steps"]) == (0.01, 32)
    assert told["params"]["gamma"] == 0.99  # a default
    assert told["algorithm"].endswith(".PPO")
    assert (told["env"]["id"], told["env"]["count"]) == ("CartPole-v1", 1)
    assert (told["total_timesteps"], told["last_step"], told["ended_by"]) == (32, 32, "timesteps")


def test_learning_that_goes_on_goes_on_in_the_run() -> None:
    tracker, model = TrackingCallback(), make_model()
    model.learn(32, callback=tracker, log_interval=1)
    first = read(tracker).id
    model.learn(32, callback=tracker, log_interval=1, reset_num_timesteps=False)
    assert (read(tracker).id, read(tracker).status) == (first, "finished")
    assert steps(read(tracker), "time/fps") == [32, 64]
    model.learn(32, callback=tracker, log_interval=1)
    assert read(tracker).id != first
    assert steps(read(tracker), "time/fps") == [32]


@pytest.mark.parametrize(("word", "status"), [("stop", "stopped"), ("prune", "pruned")])
def test_request_to_stop_ends_the_learning_after_the_step(word: str, status: str) -> None:
    tracker, model = TrackingCallback(), make_model()
    model.learn(320, callback=[Ask(tracker, 40, word), tracker], log_interval=1)
    assert model.num_timesteps == 40
    assert (read(tracker).status, read(tracker).params["sb3"]["ended_by"]) == (status, "request")


def test_end_by_another_callback_is_told_from_the_end_of_the_steps() -> None:
    class End(BaseCallback):  # type: ignore[misc]
        def _on_step(self) -> bool:
            return bool(self.num_timesteps < 20)

    tracker = TrackingCallback()
    make_model().learn(64, callback=[tracker, End()])
    told = read(tracker).params["sb3"]
    assert (read(tracker).status, told["ended_by"], told["last_step"]) == ("finished", "callback", 20)


def test_weights_are_the_same_with_and_without_and_the_logger_is_left_as_it_was() -> None:
    plain = make_model().learn(64)
    after_plain = torch.get_rng_state()
    tracked = make_model()
    tracked.learn(64, callback=TrackingCallback(log_model=True), log_interval=1)
    assert torch.equal(after_plain, torch.get_rng_state())
    weights, others = tracked.policy.state_dict(), plain.policy.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in others)
    assert [type(each) for each in tracked.logger.output_formats] == [
        type(each) for each in plain.logger.output_formats
    ]


def test_model_is_kept_and_loads() -> None:
    tracker = TrackingCallback(log_model=True)
    make_model().learn(32, callback=tracker)
    (artifact,) = read(tracker).artifacts
    assert artifact.name == "model.zip"
    (file,) = artifact.files
    stored = read(tracker).path.parents[2] / "blobs" / file.hash[:2] / file.hash
    with stored.open("rb") as opened:
        assert stable_baselines3.PPO.load(opened, device="cpu").n_steps == 32


def test_exception_in_a_with_block_fails_the_run_and_the_run_of_the_user_stays_open() -> None:
    class Explode(BaseCallback):  # type: ignore[misc]
        def _on_step(self) -> bool:
            raise RuntimeError("the user's own error")

    tracker, model = TrackingCallback(), make_model()
    with pytest.raises(RuntimeError, match="the user's own error"), tracker:
        model.learn(32, callback=[tracker, Explode()])
    assert read(tracker).status == "failed"
    with runstone.start_run() as run:
        model.learn(32, callback=TrackingCallback(), log_interval=1)
        assert not run.is_finished
    assert steps(runstone.open_workspace().run(run.id), "time/fps") == [32]
    assert not [each for each in model.logger.output_formats if "runstone" in type(each).__module__]


def test_copies_record_runs_of_their_own() -> None:
    tracker = TrackingCallback(project="toy")
    assert len(pickle.dumps(tracker)) < 2_000
    copied = copy.deepcopy(tracker)
    make_model().learn(32, callback=tracker)
    make_model().learn(32, callback=copied)
    assert read(copied).id != read(tracker).id
    assert read(copied).project == "toy"
