"""The router: one endpoint for clients, forwarding to list servers and to daemons by name."""
