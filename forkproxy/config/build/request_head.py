"""What a connection manager does to a request's head before routing: early mutations, ids and whether they ask for traces."""

from __future__ import annotations

from forkproxy.config.build.context import BuildContext
from forkproxy.config.build.header_mutation import MutationStep, build_step
from forkproxy.config.values import frozen
from forkproxy.config.view import View


@frozen
class UuidRequestIdConfig:
    """``UuidRequestIdConfig``."""

    pack_trace_reason: bool = True
    use_for_sampling: bool = True


@frozen
class TracingConfig:
    """``HttpConnectionManager.Tracing`` without a provider, in hundredths of a percent."""

    client: int
    sampled: int
    overall: int


def build_early_mutations(view: View, context: BuildContext) -> tuple[MutationStep, ...]:
    """``early_header_mutation_extensions``: all of them are one row of steps."""
    steps: tuple[MutationStep, ...] = ()
    for extension in view.repeated("early_header_mutation_extensions"):
        made = context.extension(extension, "early header mutation")
        if made is not None:
            steps += made.value
    return steps


def build_early_header_mutation(view: View, context: BuildContext) -> tuple[MutationStep, ...]:
    """``early_header_mutation.header_mutation.v3.HeaderMutation``."""
    return context.each(view.repeated("mutations"), build_step)


def build_request_id_extension(view: View, context: BuildContext) -> UuidRequestIdConfig:
    """``RequestIDExtension``; nothing said is Envoy's UUIDs."""
    extension = view.message("request_id_extension")
    typed = extension.any("typed_config") if extension is not None else None
    if typed is None or not typed.type_name:
        return UuidRequestIdConfig()
    made = context.typed(typed, "the request id extension")
    return made.value if made is not None else UuidRequestIdConfig()


def build_uuid_request_id(view: View, context: BuildContext) -> UuidRequestIdConfig:
    """``UuidRequestIdConfig``."""
    return UuidRequestIdConfig(
        view.bool("pack_trace_reason", True), view.bool("use_request_id_for_trace_sampling", True)
    )


def build_tracing(view: View | None) -> TracingConfig | None:
    """``Tracing``: what it says of ids. A provider stays unread, and without one nothing is traced, in Envoy too."""
    if view is None:
        return None
    made = [_percent(view.message(name)) for name in ("client_sampling", "random_sampling", "overall_sampling")]
    read = ("provider", "client_sampling", "random_sampling", "overall_sampling")
    others = [name for name in view.message_schema.fields if name not in read]
    view.ignore(*others, why="without a provider nothing is traced, and a provider is not implemented")
    return TracingConfig(*made)


def _percent(view: View | None) -> int:
    return 10_000 if view is None else round(view.float("value") * 100)
