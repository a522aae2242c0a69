"""What a route or a request asks for beyond one exchange with one endpoint: one configuration, a listener for each kind of it."""

from __future__ import annotations

from tests.conformance.exchanges import directions, durations, mirrors, redirects
from tests.support.bootstrap import Data, bootstrap, cluster, port


def configuration() -> Data:
    """The scripts of exchanges are played by "up"."""

    def listener(name: str, manager: Data) -> Data:
        return {"name": name, "address": port(name), "filter_chains": [{"filters": [manager]}]}

    return bootstrap(
        [directions.manager()],
        [
            cluster("up", "up"),
            cluster("other", "up_other"),
            cluster("third", "up_third"),
            cluster("dead", "dead"),
            cluster("nowhere"),
            cluster("full", "up_other", circuit_breakers={"thresholds": [{"max_pending_requests": 0}]}),
        ],
        more_listeners=[
            listener("directions", directions.manager()),
            listener("directions_strict", directions.strict()),
            listener("directions_mutated", directions.mutated()),
            listener("durations", durations.manager()),
            listener("mirrors", mirrors.manager()),
            listener("mirrors_everywhere", mirrors.everywhere()),
            listener("redirects", redirects.manager()),
        ],
    )


EXCHANGES = [*directions.EXCHANGES, *durations.EXCHANGES, *mirrors.EXCHANGES, *redirects.EXCHANGES]
