"""The admin interface: Envoy's pages in Envoy's words, answered by the supervisor."""
