"""The experiments by name, and what is compared in them: specs, ideas, engines, roles."""
