"""Active health checks: what asks endpoints how they are, and what it makes of their answers.

A HealthChecker is made for each cluster that wants one and runs in one process of the machine
(supervisor/health_checkers.py); it has a Session for each endpoint, and the session a Probe, which knows the protocol.
(Envoy: "Health checking".)
"""
