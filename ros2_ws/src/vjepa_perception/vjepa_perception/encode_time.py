"""The time of one encode on this machine, for whoever chooses a rate before a stack starts.

    encode_time '{"encoder": "encoder-small", "device": "cpu"}'

The argument has the parameters of the node `vjepa_perception` as JSON. The output is the median in seconds. It is a
program of its own, so that the launching process loads no encoder and measures beside none. As in the node, dtype
`auto` is the faster one.
"""

import sys

from vjepa_interfaces.errors import VjepaError
from vjepa_interfaces.json_text import parse_json
from vjepa_perception.perception_parameters import encoder_config


def main() -> None:
    """Print the median time of one encode; after an error that a user can fix, print that and exit with status 2."""
    try:
        config = encoder_config(parse_json(sys.argv[1]))
        from vjepa_perception.encoder import load_encoder

        print(load_encoder(config, live=True).encode_time_s())
    except VjepaError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
