import logging

from peerupd.model.logs import EXTRA, said


def test_event_and_fields_travel_beside_the_words(caplog):
    with caplog.at_level(logging.INFO):
        logging.getLogger("x").info("a path changed", extra=said("path.changed", peer="p", hops=1))

    assert getattr(caplog.records[0], EXTRA) == {"event": "path.changed", "peer": "p", "hops": 1}
