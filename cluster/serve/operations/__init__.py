"""What operators see and do over HTTP: administration, metrics, and a page that shows the cluster.

``grafana/`` has a dashboard, alert rules, and what tells Grafana and Prometheus of them.
"""
