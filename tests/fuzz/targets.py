"""All targets, by name."""

from __future__ import annotations

from tests.fuzz.answers import ANSWERS
from tests.fuzz.configs import CONFIGS
from tests.fuzz.doors import DOORS
from tests.fuzz.machines import MACHINES
from tests.fuzz.messages import MESSAGES
from tests.fuzz.noise import NOISE
from tests.fuzz.texts import TEXTS
from tests.fuzz.yamux import YAMUX

TARGETS = {target.name: target for target in (*MESSAGES, *MACHINES, *NOISE, *YAMUX, *TEXTS, *CONFIGS, *DOORS, *ANSWERS)}
