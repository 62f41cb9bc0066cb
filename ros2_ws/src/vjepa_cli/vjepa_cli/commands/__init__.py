"""The commands, one file for each."""

COMMANDS = {
    "tour": ("tour", "a first look in a minute or two: run, swap, record, draw"),
    "run": ("run", "run the full loop for a few episodes, ending in a scoreboard"),
    "eval": ("run", "evaluate a planner over many episodes in lockstep"),
    "planner": ("graph", "list the planners of a running stack, or swap the one that drives"),
    "record": ("graph", "record a running stack into a rosbag2 bag, until Ctrl-C or for a while"),
    "status": ("graph", "the state of a running stack"),
    "view": ("view", "look at a running stack, or at a bag, in the rerun viewer"),
    "looks": ("looks", "draw what the simulation's camera sees under each look"),
    "goal": ("goal", "give a running stack a goal, for planners that seek one"),
    "node": ("node", "become one node of the stack, for a container that runs it alone"),
    "camera": ("camera", "look at what a camera, a video file or a stream gives"),
    "security": ("security", "what an SROS 2 keystore for the stack is made of"),
    "bag": ("bag", "repair a recording that was cut short"),
    "dataset": ("dataset", "make datasets from bags; look into, merge, re-encode and share them"),
    "collect": ("dataset", "a dataset of simulated episodes, without ROS in the way"),
    "train": ("train", "train an encoder, a policy or a model of the world"),
    "probe": (
        "probe",
        "what an encoder holds: linear and attentive probes, against an untrained one and raw pixels",
    ),
    "improve": ("improve", "online rounds: record, train warm, evaluate, keep what is better"),
    "reproduce": ("reproduce", "run experiments by name: data, training and evaluation"),
    "report": ("report", "write the page of all results from the JSON files of experiments"),
    "docs": ("docs", "write the tables of the pages that follow from the code"),
}
"""The commands by name: the module whose `ACTIONS` contain the command, and its purpose."""
