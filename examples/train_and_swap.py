"""Train a policy, and swap it into a running stack: the arm moves on during the swap.

    ./vjepa run --planner expert --episodes 100 &
    ./vjepa --with train --exec python examples/train_and_swap.py --out mine/swapped

The script prints each command of `./vjepa` that it runs. A policy from so little data reaches only some targets;
docs/tutorial.md trains a policy that reaches all.
"""

import argparse
from pathlib import Path

from vjepa_cli import cli

ENCODER = str(Path(__file__).resolve().parents[1] / "models" / "encoder-small")


def vjepa(*words: object) -> None:
    """Run a command of `./vjepa`; one that fails ends the script with its message."""
    print("./vjepa", *words, flush=True)
    try:
        cli.main([str(word) for word in words])
    except SystemExit as end:
        if end.code:
            raise


def main(arguments: list[str] | None = None) -> None:
    """Check that a stack runs, collect data, train a policy, and swap it in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder of the dataset and the policy")
    parser.add_argument("--episodes", type=int, default=300, help="to collect (default 300)")
    parser.add_argument("--episode-steps", type=int, default=15, help="default 15")
    parser.add_argument("--epochs", type=int, default=20, help="of the training (default 20)")
    parser.add_argument("--domain", type=int, help="ROS domain of the stack (default: the one that runs here)")
    given = parser.parse_args(arguments)
    data, policy, parameters = (given.out / name for name in ("data", "policy", "swap.yaml"))
    stack = () if given.domain is None else ("--domain", given.domain)

    size = ("--episodes", given.episodes, "--episode-steps", given.episode_steps)
    mix = ("--behaviour", "mix", "--epsilon", 0.25, "--hold", 8, "--seed", 1000)
    vjepa("status", *stack)
    vjepa("collect", "--out", data, "--encoder", ENCODER, *size, *mix)
    vjepa("train", "bc", "--data", data, "--encoder", ENCODER, "--epochs", given.epochs, "--out", policy)
    # `bc` is loaded again with this bundle, beside the planner that drives, and takes over in one control step.
    parameters.write_text(f"vjepa_planner: {{ros__parameters: {{bc.bundle: '{policy.resolve()}'}}}}\n")
    vjepa("planner", "set", "bc", "--params-file", parameters, *stack)


if __name__ == "__main__":
    main()
