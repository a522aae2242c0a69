"""Load balancing of a cluster: ``lb_policy`` and its companions, or ``load_balancing_policy`` with typed policies."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Any, Final

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.hash_policy import HashPolicy, build_hash_policies
from forkproxy.config.values import frozen
from forkproxy.config.view import View

MAX_RING_SIZE: Final = 8 * 1024 * 1024
default_panic_threshold: Final = 50
_LB: Final = "envoy.lb"
_ENVOYS: Final = ("envoy.load_balancing_policies.", "envoy.extensions.load_balancing_policies.")

POLICIES: Final = (
    *("ROUND_ROBIN", "LEAST_REQUEST", "RING_HASH", "RANDOM", "MAGLEV", "CLUSTER_PROVIDED"),
    "LOAD_BALANCING_POLICY_CONFIG",
)


@frozen
class SlowStart:
    """``SlowStartConfig``; ``min_weight`` is a share of 1."""

    window_s: float
    aggression: float = 1.0
    min_weight: float = 0.1


@frozen
class ZoneAware:
    """``ZoneAwareLbConfig``. ``force_local_min_size`` None: ``force_local_zone`` is not asked for."""

    routing_percent: int = 100
    min_cluster_size: int = 6
    fail_traffic_on_panic: bool = False
    force_local_min_size: int | None = None
    by_weight: bool = False


@frozen
class SubsetSelector:
    """``LbSubsetSelector``: ``keys`` sorted; ``fallback``: "NOT_DEFINED" (the cluster's counts) or a policy's name."""

    keys: tuple[str, ...]
    fallback: str = "NOT_DEFINED"
    fallback_keys: tuple[str, ...] = ()
    single_endpoint: bool = False


@frozen
class SubsetConfig:
    """``LbSubsetConfig``. ``default_subset``: sorted (key, value as ``metadata_value`` makes it) pairs."""

    fallback: str = "NO_FALLBACK"
    default_subset: tuple[tuple[str, object], ...] = ()
    selectors: tuple[SubsetSelector, ...] = ()
    locality_weight_aware: bool = False
    scale_locality_weight: bool = False
    panic_mode_any: bool = False
    list_as_any: bool = False
    fallback_list: bool = False
    redundant_keys: bool = False
    """Criteria may have more keys than a selector: the longest selector that they cover counts, of equals the first."""


@frozen
class LoadBalancingConfig:
    """How a cluster's endpoints are chosen; Envoy's defaults.

    ``policy``: "ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV" (within each subset when there is ``subset``), or
    "CLUSTER_PROVIDED": the cluster's type knows.
    ``panic_threshold`` in percent, 0: never.
    """

    policy: str = "ROUND_ROBIN"
    choice_count: int = 2
    active_request_bias: float = 1.0
    full_scan: bool = False
    slow_start: SlowStart | None = None
    locality_weighted: bool = False
    zone_aware: ZoneAware = field(default_factory=ZoneAware)
    min_ring_size: int = 1024
    max_ring_size: int = MAX_RING_SIZE
    hash_function: str = "XX_HASH"
    table_size: int = 65537
    use_hostname: bool = False
    hash_balance_factor: int = 0
    hash_policies: tuple[HashPolicy, ...] = ()
    """Of the cluster's own; routes' do not count then."""
    subset: SubsetConfig | None = None
    panic_threshold: int = default_panic_threshold
    close_connections_on_change: bool = False
    ignore_new_hosts: bool = False
    """Endpoints do not count before their first health check (``ignore_new_hosts_until_first_hc``)."""

    @property
    def hashes(self) -> bool:
        """Whether a pick goes by a hash of the request."""
        return self.policy in ("RING_HASH", "MAGLEV")


# Metadata


def metadata_value(value: object) -> object:
    """A metadata value as it is compared: numbers are doubles, and true is not 1."""
    if isinstance(value, bool):
        return (value,)
    if isinstance(value, list | tuple):
        return ("list", *(metadata_value(each) for each in value))
    if isinstance(value, dict):
        return ("struct", *((key, metadata_value(value[key])) for key in sorted(value)))
    return value


def criteria(metadata: dict[str, Any]) -> tuple[tuple[str, object], ...]:
    """Metadata as sorted pairs to be compared."""
    return tuple((key, metadata_value(metadata[key])) for key in sorted(metadata))


def has_metadata(
    metadata: Mapping[str, Any], wanted: Iterable[tuple[str, object]], *, list_as_any: bool = True
) -> bool:
    """Whether an endpoint's metadata has all that is ``wanted``; ``list_as_any``: a list has each of its values."""
    return all(key in metadata and value in metadata_choices(metadata[key], list_as_any) for key, value in wanted)


def metadata_choices(value: object, list_as_any: bool) -> list[object]:
    """What a value may be compared with."""
    if list_as_any and isinstance(value, list):
        return [metadata_value(each) for each in value]
    return [metadata_value(value)]


def build_lb_metadata(view: View | None) -> dict[str, Any]:
    """``core.v3.Metadata``: what stands under ``envoy.lb``. Other filters' is opaque to the proxy itself."""
    if view is None:
        return {}
    view.ignore("typed_filter_metadata", why="Envoy's load balancers do not read it")
    found: dict[str, Any] = view.map_("filter_metadata").get(_LB, {})
    return found


def metadata_json(view: View | None) -> str:
    """The same as JSON with sorted keys; "" when there is none."""
    found = build_lb_metadata(view)
    return json.dumps(found, sort_keys=True, separators=(",", ":")) if found else ""


# The parts that old and typed forms share


def _percent(view: View | None, default: int) -> int:
    """``type.v3.Percent`` as a whole number, made as Envoy makes it: 29 % are 28."""
    return default if view is None else int(100 * (view.float("value") / 100.0))


def _runtime_double(view: View, context: BuildContext) -> float:
    default = view.float("default_value")
    value = context.runtime_value(view.str("runtime_key"))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _slow_start(view: View | None, context: BuildContext) -> SlowStart | None:
    if view is None:
        return None
    window_s = view.duration_s("slow_start_window", 0.0)
    aggression = view.message("aggression")
    factor = 1.0 if aggression is None else _runtime_double(aggression, context)
    least = view.message("min_weight_percent")
    made = SlowStart(
        window_s=window_s,
        aggression=factor if factor > 0.0 else 1.0,
        min_weight=0.1 if least is None else least.float("value") / 100.0,
    )
    return made if window_s else None


def _zone_aware(view: View, context: BuildContext, *, typed: bool) -> ZoneAware:
    force: int | None = None
    by_weight = False
    if typed:
        if view.bool("force_locality_direct_routing"):
            force = 1
        zone = view.message("force_local_zone")
        if zone is not None:
            force = zone.uint("min_size", 1)
        by_weight = view.enum("locality_basis") == "HEALTHY_HOSTS_WEIGHT"
    percent = _percent(view.message("routing_enabled"), 100)
    minimum = view.uint("min_cluster_size", 6)
    return ZoneAware(
        routing_percent=int(_override(context, "upstream.zone_routing.enabled", percent)),
        min_cluster_size=int(_override(context, "upstream.zone_routing.min_cluster_size", minimum)),
        fail_traffic_on_panic=view.bool("fail_traffic_on_panic"),
        force_local_min_size=force,
        by_weight=by_weight,
    )


def _override(context: BuildContext, key: str, default: float) -> float:
    value = context.runtime_value(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _locality(view: View | None, context: BuildContext, *, typed: bool) -> dict[str, Any]:
    """``LocalityLbConfig``, and the same oneof of ``CommonLbConfig``."""
    if view is None:
        return {}
    if view.which("locality_config_specifier") == "locality_weighted_lb_config":
        view.require("locality_weighted_lb_config")
        return {"locality_weighted": True}
    zone_aware = view.message("zone_aware_lb_config")
    return {} if zone_aware is None else {"zone_aware": _zone_aware(zone_aware, context, typed=typed)}


def _consistent_hashing(view: View | None) -> dict[str, Any]:
    """``ConsistentHashingLbConfig``."""
    if view is None:
        return {}
    return {
        "use_hostname": view.bool("use_hostname_for_hashing"),
        "hash_balance_factor": view.uint("hash_balance_factor"),
    }


def _typed_hashing(view: View, context: BuildContext) -> dict[str, Any]:
    config = view.message("consistent_hashing_lb_config")
    found = _consistent_hashing(config)
    if config is not None and config.has("hash_policy"):
        found["hash_policies"] = build_hash_policies(config.repeated("hash_policy"), context)
    return found


def _selectors(view: View, context: BuildContext) -> SubsetSelector:
    keys = tuple(sorted(set(view.strings("keys"))))
    fallback = view.enum("fallback_policy")
    fallback_keys = tuple(sorted(set(view.strings("fallback_keys_subset"))))
    single = view.bool("single_host_per_subset")
    # Envoy's words.
    if fallback == "KEYS_SUBSET":
        if not fallback_keys:
            view.report("fallback_keys_subset cannot be empty")
        elif not set(fallback_keys) <= set(keys):
            view.report("fallback_keys_subset must be a subset of selector keys")
        elif set(fallback_keys) == set(keys):
            view.report("fallback_keys_subset cannot be equal to keys")
    elif fallback_keys:
        view.report("fallback_keys_subset can be set only for KEYS_SUBSET fallback_policy")
    return SubsetSelector(keys, fallback, fallback_keys, single)


def _subset(view: View, context: BuildContext) -> SubsetConfig:
    return SubsetConfig(
        fallback=view.enum("fallback_policy"),
        default_subset=criteria(view.struct("default_subset")),
        selectors=context.each(view.repeated("subset_selectors"), _selectors),
        locality_weight_aware=view.bool("locality_weight_aware"),
        scale_locality_weight=view.bool("scale_locality_weight"),
        panic_mode_any=view.bool("panic_mode_any"),
        list_as_any=view.bool("list_as_any"),
        fallback_list=view.enum("metadata_fallback_policy") == "FALLBACK_LIST",
    )


# Typed policies


def build_round_robin(view: View, context: BuildContext) -> LoadBalancingConfig:
    """``RoundRobin``."""
    return LoadBalancingConfig(
        policy="ROUND_ROBIN",
        slow_start=_slow_start(view.message("slow_start_config"), context),
        **_locality(view.message("locality_lb_config"), context, typed=True),
    )


def build_random(view: View, context: BuildContext) -> LoadBalancingConfig:
    """``Random``."""
    return LoadBalancingConfig(policy="RANDOM", **_locality(view.message("locality_lb_config"), context, typed=True))


def build_least_request(view: View, context: BuildContext) -> LoadBalancingConfig:
    """``LeastRequest``; Envoy refuses ``enable_full_scan``, which has become ``selection_method``."""
    view.only_default("enable_full_scan")
    return LoadBalancingConfig(
        policy="LEAST_REQUEST",
        full_scan=view.enum("selection_method") == "FULL_SCAN",
        **_least_request(view, context),
        **_locality(view.message("locality_lb_config"), context, typed=True),
    )


def _least_request(view: View, context: BuildContext) -> dict[str, Any]:
    bias = view.message("active_request_bias")
    exponent = 1.0 if bias is None else _runtime_double(bias, context)
    return {
        "choice_count": view.uint("choice_count", 2),
        "active_request_bias": exponent if exponent >= 0.0 else 1.0,
        "slow_start": _slow_start(view.message("slow_start_config"), context),
    }


def build_ring_hash(view: View, context: BuildContext) -> LoadBalancingConfig:
    """``RingHash``."""
    hashing = _typed_hashing(view, context) or {
        "use_hostname": view.bool("use_hostname_for_hashing"),
        "hash_balance_factor": view.uint("hash_balance_factor"),
    }
    return LoadBalancingConfig(
        policy="RING_HASH",
        **_ring_size(view),
        hash_function="MURMUR_HASH_2" if view.enum("hash_function") == "MURMUR_HASH_2" else "XX_HASH",
        locality_weighted=view.message("locality_weighted_lb_config") is not None,
        **hashing,
    )


def _ring_size(view: View) -> dict[str, Any]:
    smallest, largest = view.uint("minimum_ring_size", 1024), view.uint("maximum_ring_size", MAX_RING_SIZE)
    if smallest > largest:
        # Envoy's words.
        view.report(
            f"ring hash: minimum_ring_size ({smallest}) > maximum_ring_size ({largest})", field="minimum_ring_size"
        )
    return {"min_ring_size": smallest, "max_ring_size": largest}


def build_maglev(view: View, context: BuildContext) -> LoadBalancingConfig:
    """``Maglev``."""
    return LoadBalancingConfig(
        policy="MAGLEV",
        table_size=_table_size(view),
        locality_weighted=view.message("locality_weighted_lb_config") is not None,
        **_typed_hashing(view, context),
    )


def _table_size(view: View) -> int:
    size = view.uint("table_size", 65537)
    if size < 2 or any(size % divisor == 0 for divisor in range(2, math.isqrt(size) + 1)):
        view.report("The table size of maglev must be prime number", field="table_size")
        return 65537
    return size


def build_cluster_provided(view: View, context: BuildContext) -> LoadBalancingConfig:
    """``ClusterProvided``."""
    return LoadBalancingConfig(policy="CLUSTER_PROVIDED")


def build_subset(view: View, context: BuildContext) -> LoadBalancingConfig:
    """``Subset``."""
    inner = _policies(view.require("subset_lb_policy"), context)
    if inner.subset is not None:
        view.unsupported("subsets of subsets are not implemented", field="subset_lb_policy")
    return replace(inner, subset=replace(_subset(view, context), redundant_keys=view.bool("allow_redundant_keys")))


def _policies(view: View, context: BuildContext) -> LoadBalancingConfig:
    """``LoadBalancingPolicy``: the first that Envoy knows counts, and Envoy knows all that its schema has."""
    found: LoadBalancingConfig | None = None
    for policy in view.repeated("policies"):
        typed = policy.require("typed_extension_config")
        if found is not None:
            typed.ignore("name", "typed_config", why="only the first policy that is known counts")
        elif _is_known(typed):
            made = context.extension(typed, "load balancing policy")
            found = made.value if made is not None else LoadBalancingConfig()
    if found is None:
        # Envoy's words.
        view.report("didn't find a registered load balancer factory implementation", field="policies")
    return found or LoadBalancingConfig()


def _is_known(typed: View) -> bool:
    """Whether Envoy has this policy; one that it has not, it passes over, and so do we."""
    config = typed.any("typed_config")
    if config is None or config.view is not None:
        return True
    url = config.node.get("type_url")  # of a TypedStruct
    if url is None and config.type_name != "google.protobuf.Struct":
        return True  # a type of Envoy's that the schema lacks, or none: that has been said
    names = (typed.str("name"), str(url.value).rpartition("/")[2] if url is not None else "")
    if any(name.startswith(_ENVOYS) for name in names):
        return True
    config.ignore_all(why="Envoy has no such policy either, and takes the next")
    return False


# Cluster


def build_load_balancing(view: View, context: BuildContext, cluster_type: str) -> LoadBalancingConfig:
    """The fields of ``Cluster`` that say how endpoints are chosen."""
    common = view.message("common_lb_config")
    if view.has("load_balancing_policy") or view.enum("lb_policy", supported=POLICIES) == POLICIES[-1]:
        made = _typed(view, common, context, cluster_type)
    else:
        made = _old(view, common, context)
        if made.use_hostname and common is not None and cluster_type != "STRICT_DNS":
            # Envoy's words.
            kind = f"envoy.cluster.{cluster_type.lower()}"
            common.report(f"Cannot use hostname for consistent hashing loadbalancing for cluster of type: '{kind}'")
    threshold = default_panic_threshold
    close = ignore_new = False
    if common is not None:
        threshold = _percent(common.message("healthy_panic_threshold"), default_panic_threshold)
        close = common.bool("close_connections_on_host_set_change")
        ignore_new = common.bool("ignore_new_hosts_until_first_hc")
        common.ignore("update_merge_window", why="changes are applied together at the next pick")
    return replace(
        made,
        panic_threshold=min(100, int(_override(context, "upstream.healthy_panic_threshold", threshold))),
        close_connections_on_change=close,
        ignore_new_hosts=ignore_new,
    )


def _typed(view: View, common: View | None, context: BuildContext, cluster_type: str) -> LoadBalancingConfig:
    # Envoy's words.
    if view.has("lb_subset_config"):
        view.report("cluster: load_balancing_policy cannot be combined with lb_subset_config", field="lb_subset_config")
        view.require("lb_subset_config").ignore_all(why="that has been said")
    old = ("zone_aware_lb_config", "locality_weighted_lb_config", "consistent_hashing_lb_config")
    if common is not None and any(common.has(name) for name in old):
        common.report(
            f"cluster: load_balancing_policy cannot be combined with partial fields ({', '.join(old)}) of common_lb_config"
        )
        for name in old:
            part = common.message(name)
            if part is not None:
                part.ignore_all(why="that has been said")
    view.enum("lb_policy")
    chosen = view.which("lb_config")
    if chosen is not None and chosen in _FIELDS.values():
        view.require(chosen).ignore_all(why="load_balancing_policy replaces it")
    policies = view.message("load_balancing_policy")
    made = _policies(policies, context) if policies is not None else LoadBalancingConfig()
    if made.policy == "CLUSTER_PROVIDED" and cluster_type in ("STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS"):
        view.report("cluster provided LB specified but the cluster did not provide one", field="load_balancing_policy")
    return made


def _old(view: View, common: View | None, context: BuildContext) -> LoadBalancingConfig:
    policy = view.enum("lb_policy", supported=POLICIES)
    own = _FIELDS.get(policy, "")
    settings = view.message(own) if own else None
    other = view.which("lb_config")
    if other is not None and other in _FIELDS.values() and other != own:
        view.require(other).ignore_all(why="it belongs to another lb_policy")
    fields: dict[str, Any] = {}
    if settings is not None:
        if policy == "ROUND_ROBIN":
            fields = {"slow_start": _slow_start(settings.message("slow_start_config"), context)}
        elif policy == "LEAST_REQUEST":
            fields = _least_request(settings, context)
        elif policy == "RING_HASH":
            fields = {**_ring_size(settings), "hash_function": settings.enum("hash_function")}
        else:
            fields = {"table_size": _table_size(settings)}
    fields |= _locality(common, context, typed=False)
    consistent = common.message("consistent_hashing_lb_config") if common is not None else None
    fields |= _consistent_hashing(consistent)
    subset = view.message("lb_subset_config")
    # Without selectors Envoy does not make subsets at all.
    made = _subset(subset, context) if subset is not None else None
    if subset is not None and made is not None and made.locality_weight_aware and "locality_weighted" not in fields:
        # Envoy's words.
        subset.report("Locality weight aware subset LB requires that a locality_weighted_lb_config be set")
    return LoadBalancingConfig(policy=policy, subset=made if made and made.selectors else None, **fields)


_FIELDS: Final = {
    "ROUND_ROBIN": "round_robin_lb_config",
    "LEAST_REQUEST": "least_request_lb_config",
    "RING_HASH": "ring_hash_lb_config",
    "MAGLEV": "maglev_lb_config",
}
